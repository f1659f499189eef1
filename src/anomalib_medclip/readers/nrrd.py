"""NRRD files, by the definition of the format (teem.sourceforge.net/nrrd/format.html)."""

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomalib_medclip.errors import ImageReadError, VolumeError
from anomalib_medclip.readers.grid import Voxels, nifti_header, sound_affine, three_sides
from anomalib_medclip.readers.size_limit import check_voxels
from anomalib_medclip.readers.text_header import TextHeader, beside, lines_of, voxels_of, words_of
from anomalib_medclip.readers.unpacked import Unpacked

logger = logging.getLogger(__name__)

STRAIGHTEN = "resample it onto axes at right angles, for example in 3D Slicer"

_SIGNS = {
    "right-anterior-superior": (1, 1, 1), "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1), "las": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1), "lps": (-1, -1, 1),
}  # fmt: skip
"""What leads from the spaces of NRRD towards right, anterior and superior."""

_NAMES = {
    "i1": "int8 signed_char int8_t", "u1": "uint8 uchar unsigned_char uint8_t",
    "i2": "int16 short short_int signed_short signed_short_int int16_t",
    "u2": "uint16 ushort unsigned_short unsigned_short_int uint16_t",
    "i4": "int32 int signed_int int32_t", "u4": "uint32 uint unsigned_int uint32_t",
    "i8": "int64 longlong long_long long_long_int signed_long_long signed_long_long_int int64_t",
    "u8": "uint64 ulonglong unsigned_long_long unsigned_long_long_int uint64_t",
    "f4": "float", "f8": "double",
}  # fmt: skip
_TYPES = {name: code for code, names in _NAMES.items() for name in names.split()}
_ENCODINGS = {"ascii": "text", "txt": "text", "gz": "gzip", "bz2": "bzip2"}
_ALONG = ("domain", "space", "none", "???")
"""Kinds of axes along which voxels lie, not numbers of one voxel."""


def read_nrrd_header(path: Path) -> TextHeader:
    """The header of an NRRD file (.nrrd, .nhdr).

    Raises:
        ImageReadError: It has no end, or names no file.
        VolumeError: Its voxels lie in several files, or behind lines of text.
    """
    lines, end = lines_of(path, rb"\r?\n\r?\n", optional=True)
    fields: dict[str, str] = {}
    for line in lines:
        name, found, value = line.partition(":")
        if found and not line.startswith("#") and not value.startswith("="):
            fields[name.strip().lower().replace(" ", "")] = value.strip()
    encoding = fields.get("encoding", "").lower()
    encoding = _ENCODINGS.get(encoding, encoding)
    with words_of(path):
        skip, lines_skipped = int(fields.get("byteskip", 0)), int(fields.get("lineskip", 0))
    if lines_skipped or (skip and encoding != "raw"):
        msg = f"{path} skips lines or packed bytes before its voxels; write it again without"
        raise VolumeError(msg)
    if "datafile" in fields:
        return TextHeader(fields, beside(path, fields["datafile"]), skip, encoding)
    return TextHeader(fields, path, end + skip if skip >= 0 else -1, encoding)


def read_nrrd(file: Unpacked) -> Voxels:
    """Read an NRRD file (.nrrd), or a header with its voxels beside (.nhdr).

    Raises:
        ImageReadError: The file is missing, too large, cut off, or cannot be decoded.
        VolumeError: It is no volume of real numbers in millimetres.
    """
    path = file.path
    file.refuse_packed()
    if not file.head.startswith(b"NRRD000"):
        msg = f"{path} does not begin as an NRRD file does; replace it or take it out of the data"
        raise ImageReadError(msg)
    header = read_nrrd_header(path)
    _refuse_other_numbers(path, header)
    with words_of(path):
        dtype = _dtype(header)
        shape = tuple(int(word) for word in header.fields["sizes"].split())
        if len(shape) != int(header.fields["dimension"]):
            msg = f"{len(shape)} sizes of {header.fields['dimension']} dimensions"
            raise ValueError(msg)
        along = _axes_along(path, header, shape)
        spatial = tuple(shape[axis] for axis in along)
        sides = three_sides(path, spatial)
        check_voxels(path, *sides)
        affine = _affine(path, header, along, len(shape))
    affine = sound_affine(path, affine, sides, straighten=STRAIGHTEN)
    numbers = voxels_of(path, header, shape, dtype).reshape(sides, order="F")
    return Voxels(numbers, affine, nifti_header(spatial, affine))


def _refuse_other_numbers(path: Path, header: TextHeader) -> None:
    """Encodings that are not read, units, and numbers that stand for others."""
    fields = header.fields
    if header.encoding not in ("raw", "gzip", "bzip2", "text"):
        msg = f"{path} has voxels in the encoding {header.encoding!r}; write it as raw or gzip"
        raise VolumeError(msg)
    said = f"{fields.get('spaceunits', '')} {fields.get('units', '')}".replace('"', " ").lower()
    if strange := {*said.split()} - {"mm", "millimeter", "millimeters", "???", "none"}:
        msg = f"{path} states lengths in {', '.join(sorted(strange))}; write it in millimetres"
        raise VolumeError(msg)
    if fields.keys() & {"oldmin", "oldmax"}:
        msg = f"{path} holds numbers that stand for others (old min, old max); write those"
        raise VolumeError(msg)


def _dtype(header: TextHeader) -> np.dtype[Any]:
    """Of the numbers in the file, in its byte order."""
    name = header.fields["type"].lower().replace(" ", "_")
    if name not in _TYPES:
        msg = f"its type is {header.fields['type']}"
        raise ValueError(msg)
    dtype = np.dtype(_TYPES[name])
    if dtype.itemsize == 1 or header.encoding == "text":
        return dtype
    match header.fields.get("endian", "").lower():
        case "little":
            return dtype.newbyteorder("<")
        case "big":
            return dtype.newbyteorder(">")
    msg = "it does not say in which order bytes are (endian)"
    raise ValueError(msg)


def _axes_along(path: Path, header: TextHeader, shape: tuple[int, ...]) -> list[int]:
    """The axes along which voxels lie; others, such as of colours, may have a single number."""
    vectors, kinds = _vectors(header), header.fields.get("kinds", "").lower().split()
    along = [
        axis
        for axis, side in enumerate(shape)
        if not (kinds and kinds[axis] not in _ALONG) and not (vectors and vectors[axis] is None)
    ]
    if any(side > 1 for axis, side in enumerate(shape) if axis not in along):
        msg = (
            f"{path} is of shape {shape} with several numbers at each voxel, as colours, vectors "
            "or overlapping segments; export one of them, for example in 3D Slicer"
        )
        raise VolumeError(msg)
    if len(along) > 3 and any(shape[axis] > 1 for axis in along[3:]):
        count = int(np.prod([shape[axis] for axis in along[3:]], dtype=object))
        msg = f"{path} is of shape {shape} and holds {count} volumes; export one of them, for "
        raise VolumeError(msg + "example in 3D Slicer")
    return along


def _vectors(header: TextHeader) -> list[list[float] | None]:
    """The step along each axis, ``None`` where it is none in space; empty where it is not said."""
    said = re.findall(r"\(([^)]*)\)|(none)", header.fields.get("spacedirections", "").lower())
    return [None if none else [float(n) for n in vector.split(",")] for vector, none in said]


def _affine(path: Path, header: TextHeader, along: list[int], axes: int) -> NDArray[np.float64]:
    """From voxel indices to millimetres, towards right, anterior and superior."""
    signs = _SIGNS.get(header.fields.get("space", "").lower().removesuffix("-time"))
    if signs is None:
        logger.warning("%s does not say how it lies in the patient", path)
    affine = np.eye(4)
    vectors, spacings = _vectors(header), header.numbers("spacings", axes)
    if vectors and len(vectors) != axes:
        msg = f"{len(vectors)} space directions of {axes} axes"
        raise ValueError(msg)
    for column, axis in enumerate(along[:3]):
        if vectors and (vector := vectors[axis]):
            affine[:3, column] = 0
            affine[: len(vector), column] = vector
        elif spacings:
            affine[column, column] = spacings[axis]
    if origin := header.numbers("spaceorigin"):
        affine[: len(origin), 3] = origin
    return np.diag([*(signs or (-1, -1, 1)), 1.0]) @ affine  # as ITK takes it
