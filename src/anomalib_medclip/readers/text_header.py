"""Headers of NRRD and MetaImage files, which are text, and where their voxels lie.

SimpleITK decodes these formats, and looks neither at checksums, nor at units, nor at what is left
over. That is done here, before it decodes.
"""

import gzip
import re
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

from anomalib_medclip.errors import ImageReadError, VolumeError
from anomalib_medclip.files import MISSING, fault_of, open_file

_LONGEST = 2**20  # bytes of a header
_PART = 2**20


class TextHeader(NamedTuple):
    """What a header says.

    Attributes:
        fields: By their names in lower case.
        voxels: The file with the voxels, which may be that of the header.
        begin: Their first byte in it; below 0, they are its last ones.
        encoding: ``raw``, ``gzip``, ``zlib``, ``text``, or what else is said.
    """

    fields: dict[str, str]
    voxels: Path
    begin: int
    encoding: str


def read_nrrd_header(path: Path) -> TextHeader:
    """The header of an NRRD file (.nrrd, .nhdr).

    Raises:
        ImageReadError: It has no end, or names no file.
        VolumeError: Its voxels lie in several files.
    """
    lines, end = _lines(path, rb"\r?\n\r?\n", optional=True)
    fields: dict[str, str] = {}
    for line in lines:
        name, found, value = line.partition(":")
        if found and not line.startswith("#") and not value.startswith("="):
            fields[name.strip().lower().replace(" ", "")] = value.strip()
    encoding = fields.get("encoding", "").lower()
    encoding = {"txt": "text", "ascii": "text", "gz": "gzip", "bz2": "bzip2"}.get(
        encoding, encoding
    )
    begin = int(fields.get("byteskip", 0))
    if int(fields.get("lineskip", 0)):
        msg = f"{path} skips lines of text before its voxels; write it again without"
        raise VolumeError(msg)
    if "datafile" in fields:
        return TextHeader(fields, _beside(path, fields["datafile"]), begin, encoding)
    return TextHeader(fields, path, end + begin if begin >= 0 else -1, encoding)


def read_meta_header(path: Path) -> TextHeader:
    """The header of a MetaImage file (.mha, .mhd).

    Raises:
        ImageReadError: See ``read_nrrd_header``.
        VolumeError: See ``read_nrrd_header``.
    """
    lines, end = _lines(path, rb"ElementDataFile\s*=[^\n]*(\n|\Z)")
    pairs = (line.partition("=") for line in lines)
    fields = {name.strip().lower(): value.strip() for name, found, value in pairs if found}
    encoding = "raw" if _is_true(fields, "binarydata") else "text"
    if _is_true(fields, "compresseddata"):
        encoding = "zlib"
    begin, name = int(fields.get("headersize", 0)), fields.get("elementdatafile", "")
    if name.upper() == "LOCAL":
        return TextHeader(fields, path, end, encoding)
    return TextHeader(fields, _beside(path, name), begin, encoding)


def _is_true(fields: dict[str, str], name: str) -> bool:
    return fields.get(name, "").lower().startswith(("t", "1", "y"))


def _lines(path: Path, end: bytes, *, optional: bool = False) -> tuple[list[str], int]:
    """The lines of a header, and the byte behind it."""
    with open_file(path) as file:
        head = file.read(_LONGEST)
    found = re.search(end, head)
    if found is None and not (optional and len(head) < _LONGEST):
        msg = f"{path} has a header without an end; replace it"
        raise ImageReadError(msg)
    length = len(head) if found is None else found.end()
    return head[:length].decode("utf-8", "replace").splitlines(), length


def _beside(path: Path, name: str) -> Path:
    """A file with voxels, which lies where the header does, or below."""
    if not name or name.upper().startswith("LIST") or "%" in name:
        msg = f"{path} has its voxels in several files; write it again as one"
        raise VolumeError(msg)
    beside = path.parent / name
    if fault := fault_of(beside):
        said = "is not there" if fault is MISSING else fault.said
        msg = f"{path} has its voxels in {beside}, which {said}; put it there again"
        raise ImageReadError(msg)
    return beside


def check_bytes(path: Path, header: TextHeader, count: int, width: int) -> None:
    """Refuse voxels that are cut off, more than the header wants, or damaged.

    Args:
        path: The file of the header.
        header: What it says.
        count: How many numbers it wants.
        width: Bytes of a number.

    Raises:
        ImageReadError: They are.
    """
    wanted = count * width
    if header.encoding == "raw" and header.begin >= 0:
        held = header.voxels.stat().st_size - header.begin
    elif header.encoding == "raw":
        held = min(header.voxels.stat().st_size, wanted)
    else:
        with open_file(header.voxels) as file:
            file.seek(max(header.begin, 0))
            if header.encoding == "text":
                held, wanted = len(file.read(64 * (count + 1)).split()), count
            else:
                held = _unpacked_length(path, file, header.encoding, wanted)
    if held != wanted:
        unit = "numbers" if header.encoding == "text" else "bytes"
        msg = f"{path} has {held} {unit} of voxels, but its header wants {wanted}; replace it"
        raise ImageReadError(msg)


def _unpacked_length(path: Path, file: BinaryIO, encoding: str, wanted: int) -> int:
    """How many bytes come of packed ones, one more at most than wanted; checksums count."""
    try:
        if encoding == "gzip":
            content, held = gzip.GzipFile(fileobj=file), 0
            while held <= wanted and (part := content.read(_PART)):
                held += len(part)
            return held
        unpack = zlib.decompressobj()
        held, rest = 0, b""
        while held <= wanted and not unpack.eof and (part := rest or file.read(_PART)):
            held += len(unpack.decompress(part, _PART))
            rest = unpack.unconsumed_tail
        if not unpack.eof or unpack.unused_data or file.read(1):
            msg = "the packed voxels are cut off, or something stands behind them"
            raise ValueError(msg)
    except (EOFError, OSError, ValueError, zlib.error) as error:
        msg = f"cannot unpack the voxels of {path}: {error}; replace it"
        raise ImageReadError(msg) from error
    return held
