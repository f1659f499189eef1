"""MetaImage files, by the definition of the format (itk.org/Wiki/MetaIO/Documentation)."""

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anomalib_medclip.errors import VolumeError
from anomalib_medclip.readers.grid import Voxels, nifti_header, sound_affine, three_sides
from anomalib_medclip.readers.nrrd import STRAIGHTEN
from anomalib_medclip.readers.size_limit import check_voxels
from anomalib_medclip.readers.text_header import TextHeader, beside, lines_of, voxels_of, words_of
from anomalib_medclip.readers.unpacked import Unpacked

logger = logging.getLogger(__name__)

_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4",
    "MET_UINT": "u4", "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # it counts towards left, posterior and superior


def read_meta_header(path: Path) -> TextHeader:
    """The header of a MetaImage file (.mha, .mhd).

    Raises:
        ImageReadError: It has no end, or names no file.
        VolumeError: Its voxels lie in several files.
    """
    lines, end = lines_of(path, rb"ElementDataFile\s*=[^\n]*(\n|\Z)")
    pairs = (line.partition("=") for line in lines)
    fields = {name.strip().lower(): value.strip() for name, found, value in pairs if found}
    encoding = "raw" if _is_true(fields, "binarydata") else "text"
    if _is_true(fields, "compresseddata"):
        encoding = "zlib"
    with words_of(path):
        begin, name = int(fields.get("headersize", 0)), fields.get("elementdatafile", "")
    if name.upper() == "LOCAL":
        return TextHeader(fields, path, end, encoding)
    return TextHeader(fields, beside(path, name), begin, encoding)


def _is_true(fields: dict[str, str], name: str) -> bool:
    return fields.get(name, "").lower().startswith(("t", "1", "y"))


def read_meta_image(file: Unpacked) -> Voxels:
    """Read a MetaImage file (.mha), or a header with its voxels beside (.mhd).

    Raises:
        ImageReadError: The file is missing, too large, cut off, or cannot be decoded.
        VolumeError: It is no volume of real numbers in millimetres.
    """
    path = file.path
    file.refuse_packed()
    header = read_meta_header(path)
    fields = header.fields
    with words_of(path):
        _refuse_other_numbers(path, header)
        axes = int(fields["ndims"])
        shape = tuple(int(side) for side in header.numbers("dimsize", axes))
        if fields["elementtype"].upper() not in _TYPES:
            msg = f"its type is {fields['elementtype']}"
            raise ValueError(msg)
        if any(side > 1 for side in shape[3:]):
            count = int(np.prod(shape[3:], dtype=object))
            msg = f"{path} is of shape {shape} and holds {count} volumes; export one of them, for "
            raise VolumeError(msg + "example in 3D Slicer")
        sides = three_sides(path, shape)
        check_voxels(path, *sides)
        affine = _affine(path, header, axes)
    affine = sound_affine(path, affine, sides, straighten=STRAIGHTEN)
    is_big = _is_true(fields, "binarydatabyteordermsb") or _is_true(fields, "elementbyteordermsb")
    dtype = np.dtype(_TYPES[fields["elementtype"].upper()]).newbyteorder(">" if is_big else "<")
    numbers = voxels_of(path, header, shape, dtype).reshape(sides, order="F")
    return Voxels(numbers, affine, nifti_header(shape, affine))


def _refuse_other_numbers(path: Path, header: TextHeader) -> None:
    """Units, several numbers at each voxel, and numbers that stand for others."""
    fields = header.fields
    unit = fields.get("distanceunits", "mm").lower()
    if unit not in ("mm", "?", ""):
        msg = f"{path} states lengths in {unit}; write it in millimetres"
        raise VolumeError(msg)
    if (channels := int(fields.get("elementnumberofchannels", 1))) != 1:
        msg = f"{path} holds {channels} numbers at each voxel, as colours or vectors; export one "
        raise VolumeError(msg + "of them, for example in 3D Slicer")
    slope = float(fields.get("elementtointensityfunctionslope", 1))
    offset = float(fields.get("elementtointensityfunctionoffset", 0))
    if (slope, offset) != (1, 0):
        msg = f"{path} holds numbers that stand for others (slope {slope:g}, offset {offset:g})"
        raise VolumeError(msg + "; write those")


def _affine(path: Path, header: TextHeader, axes: int) -> NDArray[np.float64]:
    """From voxel indices to millimetres, towards right, anterior and superior."""

    def said(names: str, count: int) -> list[float]:
        return next((found for name in names.split() if (found := header.numbers(name, count))), [])

    turn = said("transformmatrix rotation orientation", axes * axes)
    if not turn:
        logger.warning("%s does not say how it lies in the patient", path)
    spacing = np.array(said("elementspacing elementsize", axes) or [1.0] * axes)
    matrix = np.array(turn).reshape(axes, axes).T if turn else np.eye(axes)  # a row is an axis
    affine, kept = np.eye(4), min(axes, 3)
    affine[:kept, :kept] = (matrix * spacing)[:kept, :kept]
    affine[:kept, 3] = (said("offset position origin", axes) or [0.0] * axes)[:kept]
    return _TO_RAS @ affine
