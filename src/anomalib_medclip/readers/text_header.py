"""Headers of NRRD and MetaImage files, which are text, and the voxels that they speak of.

They are read by the formats' own definitions, and every byte is accounted for. SimpleITK, which
reads them, too, looks neither at checksums, nor at units, nor at what is left over, and a damaged
header can end its process.
"""

import bz2
import gzip
import logging
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from anomalib_medclip.errors import ImageReadError, MedclipError, VolumeError
from anomalib_medclip.files import MISSING, fault_of, open_file
from anomalib_medclip.readers.unpacked import LONGEST_PADDING, without_padding

logger = logging.getLogger(__name__)

_LONGEST = 2**20  # bytes of a header
_PART = 2**20
_WORD = 64  # bytes of a number as text, at most


class TextHeader(NamedTuple):
    """What a header says.

    Attributes:
        fields: By their names in lower case, without spaces.
        voxels: The file with the voxels, which may be that of the header.
        begin: Their first byte in it; below 0, they are its last ones.
        encoding: ``raw``, ``gzip``, ``bzip2``, ``zlib``, ``text``, or what else is said.
    """

    fields: dict[str, str]
    voxels: Path
    begin: int
    encoding: str

    def numbers(self, name: str, count: int | None = None) -> list[float]:
        """The numbers of a field, as many as there should be; none, where it is missing.

        Raises:
            ValueError: They are more or fewer, or words.
        """
        found = [float(word) for word in re.split(r"[\s,()]+", self.fields.get(name, "")) if word]
        if found and count is not None and len(found) != count:
            msg = f"{name} has {len(found)} numbers, not {count}"
            raise ValueError(msg)
        return found


@contextmanager
def words_of(path: Path) -> Iterator[None]:
    """What parsing a header raises becomes an error that names its file.

    Raises:
        VolumeError: In the place of others.
    """
    try:
        yield
    except MedclipError:
        raise
    except (ValueError, LookupError, OverflowError) as error:
        said = "lacks" if isinstance(error, KeyError) else "cannot be understood:"
        msg = f"the header of {path} {said} {str(error)[:100]}; repair it"
        raise VolumeError(msg) from error


def lines_of(path: Path, end: bytes, *, optional: bool = False) -> tuple[list[str], int]:
    """The lines of a header, and the byte behind it.

    Args:
        path: The file.
        end: A pattern of what ends the header.
        optional: Whether the end of the file does, too.

    Raises:
        ImageReadError: It has no end.
    """
    with open_file(path) as file:
        head = file.read(_LONGEST)
    found = re.search(end, head)
    if found is None and not (optional and len(head) < _LONGEST):
        msg = f"{path} has a header without an end; replace it"
        raise ImageReadError(msg)
    length = len(head) if found is None else found.end()
    return head[:length].decode("utf-8", "replace").splitlines(), length


def beside(path: Path, name: str) -> Path:
    """The file with the voxels, which lies where that of the header does, or below.

    Raises:
        ImageReadError: It is not there.
        VolumeError: They are several.
    """
    if not name or name.upper().startswith("LIST") or "%" in name:
        msg = f"{path} has its voxels in several files; write it again as one"
        raise VolumeError(msg)
    there = path.parent / name
    if fault_of(there) is MISSING:
        there = _moved(path, name) or there
    if fault := fault_of(there):
        said = "is not there" if fault is MISSING else fault.said
        msg = f"{path} has its voxels in {there}, which {said}; put it there again"
        raise ImageReadError(msg)
    return there


def _moved(path: Path, name: str) -> Path | None:
    """The only file beside a header with the name that it gives, by another path or other case."""
    wanted = re.split(r"[\\/]", name)[-1].casefold()
    found = [one for one in path.parent.iterdir() if one.name.casefold() == wanted]
    if len(found) != 1:
        return None
    logger.warning("%s has its voxels in %s; %s beside it is taken", path, name, found[0].name)
    return found[0]


def voxels_of(
    path: Path, header: TextHeader, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """The voxels of a file, of which the first axis runs fastest.

    Args:
        path: The file of the header.
        header: What it says.
        shape: Of the voxels; their number is not too large.
        dtype: Of the voxels, with the byte order of the file.

    Raises:
        ImageReadError: They are cut off, more than the header wants, or damaged.
    """
    count = int(np.prod(shape, dtype=object))
    wanted = count if header.encoding == "text" else count * dtype.itemsize
    try:
        with open_file(header.voxels) as file:
            if header.begin < 0:
                file.seek(max(0, header.voxels.stat().st_size - wanted))
            else:
                file.seek(header.begin)
            if header.encoding == "text":
                words = file.read(_WORD * (count + 1)).split()
                held, made = len(words), _written_out(path, words[:count], dtype)
            else:
                raw = without_padding(_unpacked(file, header.encoding, wanted), wanted)
                held, made = len(raw), np.frombuffer(raw[:wanted], dtype)
    except (EOFError, OSError, OverflowError, ValueError, zlib.error) as error:
        if isinstance(error, MedclipError):
            raise
        msg = f"cannot unpack the voxels of {path}: {error}; replace it"
        raise ImageReadError(msg) from error
    if held != wanted:
        _refuse_length(path, header.encoding, held, wanted)
    return made.reshape(shape, order="F").astype(dtype.newbyteorder("="), copy=False)


def _written_out(path: Path, words: list[bytes], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Numbers that are written out."""
    read = float if dtype.kind == "f" else int
    try:
        return np.array([read(word) for word in words], dtype)
    except ValueError as error:
        msg = (
            f"the header of {path} says that voxels are numbers written out as text, and they are "
            "none; if they are binary, say so in it (MetaImage: BinaryData = True, NRRD: encoding: "
            "raw), else replace the file"
        )
        raise ImageReadError(msg) from error


def _refuse_length(path: Path, encoding: str, held: int, wanted: int) -> NoReturn:
    said, unit = str(held) if held < wanted else "more", "bytes"
    if encoding == "text":
        unit = "numbers"
    msg = f"{path} has {said} {unit} of voxels, but its header wants {wanted}; replace it"
    raise ImageReadError(msg)


def _unpacked(file: BinaryIO, encoding: str, wanted: int) -> bytes:
    """The bytes that come of packed ones, a few more at most than wanted; checksums count."""
    most = wanted + LONGEST_PADDING + 1
    if encoding in ("gzip", "bzip2"):
        packed: Any = gzip.GzipFile(fileobj=file) if encoding == "gzip" else bz2.BZ2File(file)
        return bytes(packed.read(most))
    if encoding == "raw":
        return file.read(most)
    unpack, made, rest = zlib.decompressobj(wbits=47), BytesIO(), b""  # zlib or gzip
    while made.tell() <= wanted and not unpack.eof and (part := rest or file.read(_PART)):
        made.write(unpack.decompress(part, _PART))
        rest = unpack.unconsumed_tail
    if not unpack.eof or unpack.unused_data or file.read(1):
        msg = "they are cut off, or something stands behind them"
        raise ValueError(msg)
    return made.getvalue()
