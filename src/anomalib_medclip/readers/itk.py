"""NRRD and MetaImage files, decoded by SimpleITK from bytes that are all accounted for."""

import logging
from collections.abc import Callable
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomalib_medclip.errors import ImageReadError, RuntimeMissingError, VolumeError
from anomalib_medclip.readers.grid import Voxels, nifti_header, sound_affine, three_sides
from anomalib_medclip.readers.size_limit import check_voxels
from anomalib_medclip.readers.text_header import (
    TextHeader,
    check_bytes,
    read_meta_header,
    read_nrrd_header,
)
from anomalib_medclip.readers.unpacked import Unpacked

logger = logging.getLogger(__name__)

_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK counts towards left, posterior and superior
_STRAIGHTEN = "resample it onto axes at right angles, for example in 3D Slicer"
_ANATOMICAL = ("right", "left", "ras", "las", "lps")
"""How the spaces of NRRD begin that say where the patient's sides are."""


def read_nrrd(file: Unpacked) -> Voxels:
    """Read an NRRD file (.nrrd), or a header with its voxels beside (.nhdr).

    Raises:
        ImageReadError: The file is missing, too large, cut off, or cannot be decoded.
        VolumeError: It is no volume of real numbers in millimetres.
        RuntimeMissingError: SimpleITK is not installed.
    """
    return _read(file, "NrrdImageIO", read_nrrd_header, _refuse_in_nrrd)


def read_meta_image(file: Unpacked) -> Voxels:
    """Read a MetaImage file (.mha), or a header with its voxels beside (.mhd).

    Raises:
        ImageReadError: See ``read_nrrd``.
        VolumeError: See ``read_nrrd``.
        RuntimeMissingError: See ``read_nrrd``.
    """
    return _read(file, "MetaImageIO", read_meta_header, _refuse_in_meta_image)


def _read(
    file: Unpacked,
    reader_name: str,
    read_header: Callable[[Path], TextHeader],
    refuse: Callable[[Path, TextHeader], None],
) -> Voxels:
    path = file.path
    if file.is_packed:
        msg = f"{path} is packed by gzip as a whole; unpack it by gunzip, and give it again"
        raise ImageReadError(msg)
    try:
        header = read_header(path)
        refuse(path, header)
    except ValueError as error:
        if isinstance(error, VolumeError):
            raise
        msg = f"the header of {path} holds words where numbers should be: {error}; repair it"
        raise VolumeError(msg) from error
    itk = _simple_itk(path)
    reader = itk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO(reader_name)  # by content, whatever the ending
    try:
        reader.ReadImageInformation()
        shape, width = _checked_shape(path, reader, itk)
        check_bytes(path, header, prod(shape), width)
        image = reader.Execute()
    except RuntimeError as error:
        why = str(error).strip().splitlines()[-1].strip()
        msg = f"cannot read {path} by SimpleITK: {why}; replace it or take it out of the data"
        raise ImageReadError(msg) from error
    sides = three_sides(path, shape)
    affine = sound_affine(path, _affine(image), sides, straighten=_STRAIGHTEN)
    numbers = np.ascontiguousarray(itk.GetArrayFromImage(image).transpose()).reshape(sides)
    return Voxels(numbers, affine, nifti_header(shape, affine))


def _simple_itk(path: Path) -> ModuleType:
    try:
        import SimpleITK as Itk
    except ImportError as error:
        msg = (
            f"{path} is read by SimpleITK, which is not installed; "
            "pip install 'anomalib-medclip[formats]'"
        )
        raise RuntimeMissingError(msg) from error
    no_type: Any = Itk
    no_type.ProcessObject.SetGlobalWarningDisplay(False)
    return Itk


def _checked_shape(path: Path, reader: Any, itk: Any) -> tuple[tuple[int, ...], int]:  # noqa: ANN401
    """Shape and bytes of a number, by the header alone."""
    shape, parts = tuple(reader.GetSize()), int(reader.GetNumberOfComponents())
    one = f'import SimpleITK as s;a=s.ReadImage("{path}");s.WriteImage('
    if parts > 1:
        msg = (
            f"{path} holds {parts} numbers at each voxel, as colours, vectors or overlapping "
            f"segments; take one out, the first by python -c '{one}"
            f's.VectorIndexSelectionCast(a,0),"{path.with_name(path.stem + "_0.nii.gz")}")\''
        )
        raise VolumeError(msg)
    if any(side > 1 for side in shape[3:]):
        msg = (
            f"{path} is of shape {shape} and holds {prod(shape[3:])} volumes; take one out, the "
            f"first by python -c '{one}a[:,:,:,0],\"{path.with_name(path.stem + '_0.nii.gz')}\")'"
        )
        raise VolumeError(msg)
    sides = three_sides(path, shape)
    check_voxels(path, *sides)
    if "complex" in itk.GetPixelIDValueAsString(reader.GetPixelID()):
        msg = f"{path} holds complex numbers; store their size"
        raise VolumeError(msg)
    pixel = itk.Image([1] * len(shape), reader.GetPixelID())
    return shape, int(pixel.GetSizeOfPixelComponent())


def _affine(image: Any) -> NDArray[np.float64]:  # noqa: ANN401 - of SimpleITK
    """From voxel indices to millimetres, towards right, anterior and superior."""
    dimension = image.GetDimension()
    axes = np.array(image.GetDirection()).reshape(dimension, dimension) * image.GetSpacing()
    affine = np.eye(4)
    kept = min(dimension, 3)
    affine[:kept, :kept] = axes[:kept, :kept]
    affine[:kept, 3] = image.GetOrigin()[:kept]
    return _TO_RAS @ affine


def _refuse_in_nrrd(path: Path, header: TextHeader) -> None:
    """What SimpleITK does not look at: units, and numbers that stand for others."""
    fields = header.fields
    if header.encoding not in ("raw", "gzip", "text"):
        msg = f"{path} has voxels in the encoding {header.encoding!r}; write it as raw or gzip"
        raise VolumeError(msg)
    units = {unit.lower() for unit in fields.get("spaceunits", "").replace('"', " ").split()}
    units |= {unit.lower() for unit in fields.get("units", "").replace('"', " ").split()}
    if strange := units - {"mm", "millimeter", "millimeters", "???", "none"}:
        msg = f"{path} states lengths in {', '.join(sorted(strange))}; write it in millimetres"
        raise VolumeError(msg)
    if fields.keys() & {"oldmin", "oldmax"}:
        msg = f"{path} holds numbers that stand for others (old min, old max); write those"
        raise VolumeError(msg)
    if not fields.get("space", "").lower().startswith(_ANATOMICAL):
        logger.warning("%s does not say how it lies in the patient", path)


def _refuse_in_meta_image(path: Path, header: TextHeader) -> None:
    """Likewise."""
    fields = header.fields
    unit = fields.get("distanceunits", "mm").lower()
    if unit not in ("mm", "?", ""):
        msg = f"{path} states lengths in {unit}; write it in millimetres"
        raise VolumeError(msg)
    slope = float(fields.get("elementtointensityfunctionslope", 1))
    offset = float(fields.get("elementtointensityfunctionoffset", 0))
    if (slope, offset) != (1, 0):
        msg = f"{path} holds numbers that stand for others (slope {slope:g}, offset {offset:g})"
        raise VolumeError(msg + "; write those")
    if not fields.keys() & {"transformmatrix", "orientation", "rotation"}:
        logger.warning("%s does not say how it lies in the patient", path)
