"""A volume of voxels, and where it lies in the patient: from a file, DICOM, or a stack of pictures.

What cannot be read to the last byte, or does not say what it is, is refused.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomalib_medclip.errors import ImageReadError, MaskError, NoPictureError, VolumeError
from anomalib_medclip.files import is_folder
from anomalib_medclip.readers.dicom import (
    OnHeaders,
    beside_a_series,
    read_series,
    series_of,
)
from anomalib_medclip.readers.dicom_frames import Slice, slices_in
from anomalib_medclip.readers.dicom_order import ALLOW_UNEVEN
from anomalib_medclip.readers.dicom_values import DicomWhere
from anomalib_medclip.readers.file_kind import DICOM, is_dicom, kind_by
from anomalib_medclip.readers.grid import same_grid as same_grid
from anomalib_medclip.readers.intensity import IntensityPolicy, apply_intensity
from anomalib_medclip.readers.left_out import LeftOut
from anomalib_medclip.readers.lesion import MaskLabels, Number
from anomalib_medclip.readers.lesion_number import LesionNumber
from anomalib_medclip.readers.listing import stranger
from anomalib_medclip.readers.masks_among import masks_among
from anomalib_medclip.readers.picture import (
    IMAGE_SUFFIXES,
    read_image,
    read_label_map,
    read_outline,
)
from anomalib_medclip.readers.size_limit import check_voxels
from anomalib_medclip.readers.stack_names import Stack, first_unlike, stack_of
from anomalib_medclip.readers.unpacked import Unpacked
from anomalib_medclip.readers.volume_file import read_volume_file

AS_SEEN = np.array([[0.0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
"""The affine of pictures that say nothing of the patient: rows go down an axial slice as it is
usually shown, columns to the right of it, slices up."""


class Volume(NamedTuple):
    """Voxels and their place.

    Attributes:
        voxels: Values in [0, 1], or labels, of shape ``(i, j, k)`` as in the file.
        affine: From voxel indices to millimetres, towards right, anterior and superior.
        headers: Of a file that of NIfTI on its grid, of a DICOM series those of its slices, in
            their order; of pictures, none. They may name the patient.
        left_out: Files of its folder that are none of its slices, and why.
    """

    voxels: NDArray[Any]
    affine: NDArray[np.float64]
    headers: tuple[Any, ...] = ()
    left_out: tuple[LeftOut, ...] = ()


def read_volume(
    path: str | Path | Sequence[Path],
    intensity: IntensityPolicy = None,
    uneven: bool = False,
    dicom_where: DicomWhere | None = None,
    on_headers: OnHeaders | None = None,
) -> Volume:
    """Read a volume as float32 in [0, 1].

    Args:
        path: A file (NIfTI, Analyze, MGH, NRRD, MetaImage, DICOM), a folder with one DICOM series,
            the files of one series, or a folder of grey pictures, which are its slices in the order
            of the numbers in their names.
        intensity: How the numbers reach [0, 1]. Only 8-bit pictures need no policy.
        uneven: See ``anomalib_medclip.readers.dicom.read_series``.
        dicom_where: Chooses one of several volumes; see there.
        on_headers: Told those of the files of a series; see there.

    Raises:
        ConfigError: ``dicom_where`` names what is no attribute of DICOM.
        ImageReadError: A file is missing, too large, cut off or cannot be decoded.
        IntensityError: The policy does not fit, or numbers are not finite.
        VolumeError: It is not what it says.
    """
    if not isinstance(path, str | Path):
        return Volume(*read_series(path, intensity, uneven, dicom_where, on_headers))
    path = Path(path)
    if is_folder(path):
        return _read_folder(path, intensity, uneven, dicom_where)
    with Unpacked(path) as file:
        if kind_by(path, file.head) == DICOM:
            return Volume(*series_of(slices_in(file), intensity, uneven, dicom_where))
        found = read_volume_file(file)
    voxels = apply_intensity(found.numbers, intensity, path)
    return Volume(voxels, found.affine, (found.header,))


def read_labels(path: str | Path, numbered: bool = False) -> Volume:
    """Read a volume of labels, such as lesion or organ masks, as whole numbers.

    Args:
        path: A file as of ``read_volume``, or a folder of masks as pictures; DICOM is not read.
        numbered: Take the numbers of pictures for labels, and not for 1 on the lesion.

    Raises:
        ImageReadError: A file is missing, cut off or cannot be decoded.
        MaskError: Numbers that are not whole.
    """
    path = Path(path)
    if is_folder(path):
        return _stack_masks(path, read_label_map) if numbered else read_outlines(path)[0]
    with Unpacked(path) as file:
        found = read_volume_file(file)
    values = found.numbers
    if strange := int((~np.isfinite(values)).sum()):
        msg = f"{path} holds {strange} numbers that are not finite, and no labels; set them to 0"
        raise MaskError(msg)
    if (values != np.rint(values)).any():
        msg = f"{path} holds numbers that are not whole, and so no labels; threshold it first"
        raise MaskError(msg)
    if values.size and max(abs(float(values.min())), abs(float(values.max()))) >= 2**31:
        msg = f"{path} holds numbers of more than 31 bits, which are no labels; replace it"
        raise MaskError(msg)
    return Volume(values.astype(np.int32), found.affine)


def read_outlines(folder: Path, labels: MaskLabels = MaskLabels()) -> tuple[Volume, Number | None]:
    """What masks as pictures mark, one of each slice; one may be empty, as healthy slices' are.

    Args:
        folder: Where they are.
        labels: What their numbers mean.

    Returns:
        ``LESION``, ``IGNORED`` or 0 at each voxel, and the number that means lesion; see
        ``Outline``.

    Raises:
        ImageReadError: A file is missing, cut off or cannot be decoded.
        MaskError: What a number means is not said, or of two in two slices, which is the lesion.
    """
    number = LesionNumber()

    def read(path: Path) -> NDArray[np.uint8]:
        outline = read_outline(path, labels)
        number.meet(outline.number, path)
        return outline.marks

    return _stack_masks(folder, read), number.first and number.first[0]


def _read_folder(
    folder: Path, intensity: IntensityPolicy, uneven: bool, where: DicomWhere | None
) -> Volume:
    slices, no_pictures, others = _dicom_in(folder)
    if slices:
        series = series_of(slices, intensity, uneven, where)
        left_out = (*no_pictures, *map(beside_a_series, others), *series.left_out)
        return Volume(*series[:3], left_out)
    stack, strangers = _stack_among(folder, others)
    pictures = stack.paths
    if not uneven and (before := stack.gap()) is not None:
        msg = f"slices are missing between {pictures[before]} and {pictures[before + 1]}"
        raise VolumeError(msg + f"; complete the stack, or {ALLOW_UNEVEN}")
    grey = []
    for path in pictures:
        colours = read_image(path, intensity).numpy()
        check_voxels(folder, len(pictures), *colours.shape[1:])
        if (colours != colours[:1]).any():
            msg = f"{path} is in colour, of which no volume is made; convert it to grey"
            raise VolumeError(msg)
        grey.append(colours[0].copy())
    return Volume(_stacked(folder, pictures, grey), AS_SEEN, left_out=(*no_pictures, *strangers))


def _dicom_in(folder: Path) -> tuple[list[Slice], list[LeftOut], list[Path]]:
    """The pictures of its DICOM files, those of them that hold none, and other files, by name.

    Raises:
        ImageReadError: Something in it cannot be read, and so might be DICOM.
        VolumeError: Of a file; see ``slices_in``.
    """
    slices, no_pictures, others = [], [], []
    for path in _files(folder):
        with Unpacked(path) as file:
            if kind_by(path, file.head) != DICOM:
                others.append(path)
                continue
            try:
                slices += slices_in(file)
            except NoPictureError as error:
                no_pictures.append(LeftOut(path, error.reason, error.remedy))
    return slices, no_pictures, others


def _files(folder: Path) -> list[Path]:
    """The files of a folder by name, but hidden ones."""
    there = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    return [path for path in there if not is_folder(path)]


def _stack_among(
    folder: Path, files: list[Path], masks: bool = False
) -> tuple[Stack, list[LeftOut]]:
    """The slices among the files of a folder, and why others are none.

    Args:
        folder: The folder.
        files: What is in it.
        masks: Whether masks are wanted; else those that are known by their names are left out.

    Raises:
        VolumeError: See ``stack_of``.
    """
    pictures = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    taken = set(pictures)
    left_out = [stranger(path) for path in files if path not in taken]
    left_out += [] if masks else masks_among(pictures, folder)
    gone = {one.path for one in left_out}
    stack = stack_of(folder, [path for path in pictures if path not in gone])
    return stack, sorted([*left_out, *stack.left_out])


def _stack_masks(folder: Path, read: Callable[[Path], NDArray[Any]]) -> Volume:
    """Masks as pictures; one may be empty, as healthy slices' are."""
    stack, left_out = _stack_among(folder, _files(folder), masks=True)
    slices = [read(path) for path in stack.paths]
    voxels = _stacked(folder, stack.paths, slices).astype(np.int32)
    return Volume(voxels, AS_SEEN, left_out=tuple(left_out))


def check_same_slices(volume: str | Path | Sequence[Path], labels: str | Path) -> None:
    """Refuse folders of pictures and masks that are numbered differently.

    Raises:
        MaskError: They are, so that a mask would be laid on another slice.
        VolumeError: See ``stack_of``.
    """
    folders = isinstance(volume, str | Path) and is_folder(volume) and is_folder(labels)
    if not folders or any(map(is_dicom, files := _files(Path(str(volume))))):
        return
    images, _ = _stack_among(Path(str(volume)), files)
    masks, _ = _stack_among(Path(labels), _files(Path(labels)), masks=True)
    if pair := first_unlike(images, masks):
        image, mask = pair
        msg = f"mask {mask} and picture {image} are of the same place, but numbered otherwise"
        raise MaskError(msg + "; give each slice a mask with its number, empty if need be")


def _stacked(folder: Path, paths: list[Path], slices: list[NDArray[Any]]) -> NDArray[Any]:
    if not paths:
        msg = f"{folder} holds neither DICOM files nor pictures; correct the path"
        raise ImageReadError(msg)
    for path, one in zip(paths, slices, strict=True):
        if one.shape != slices[0].shape:
            msg = f"{path} is of shape {one.shape} but {paths[0]} of {slices[0].shape}"
            raise VolumeError(msg + "; slices of a volume are of one size")
    return np.stack(slices, axis=-1)
