"""One picture file to a tensor: read it, and place its intensities in [0, 1]; and masks.

Training, testing and prediction all read here, so they cannot differ.
"""

import logging
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.tv_tensors import Image, Mask

from anomalib_medclip.errors import MaskError
from anomalib_medclip.readers.dicom import picture_of
from anomalib_medclip.readers.dicom_frames import slices_in
from anomalib_medclip.readers.file_kind import DICOM, kind_by
from anomalib_medclip.readers.flat import flat_picture, shows_flat
from anomalib_medclip.readers.intensity import IntensityPolicy, apply_intensity
from anomalib_medclip.readers.label_map import labels_of
from anomalib_medclip.readers.lesion import MaskLabels, Outline, outline_of
from anomalib_medclip.readers.picture_file import PICTURE_SUFFIXES, stored_in
from anomalib_medclip.readers.stored import Stored
from anomalib_medclip.readers.unpacked import Unpacked

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (*PICTURE_SUFFIXES, ".dcm", ".dicom")
"""File name endings, in lower case, that count as images in a folder."""

MOST = 0.5
"""Part of a picture above which a lesion is likely the background, in a mask turned inside out."""


def read_image(path: str | Path, intensity: IntensityPolicy = None) -> Image:
    """Read an image file as three channels of float32 in [0, 1], shape ``(3, height, width)``.

    It is the way up that viewers show it, whose labels are meant. Inverted greys (TIFF's
    WhiteIsZero) are turned round, so that high is bright; an alpha channel is dropped.

    Args:
        path: A PNG, JPEG, BMP, TIFF, GIF, WebP or DICOM file, grey or colour, of one picture; or a
            NIfTI file that is one voxel thick.
        intensity: What to do with more than 8 bits a channel, or with numbers with a sign.

    Raises:
        ImageReadError: The file is missing, too large, cannot be decoded, or holds several
            pictures or colours that are not exactly red, green and blue.
        IntensityError: More than 8 bits without a policy, or numbers that are not finite.
        VolumeError: A DICOM file of several frames.
    """
    with Unpacked(Path(path)) as file:
        if kind_by(file.path, file.head) == DICOM:
            return _three_channels(picture_of(slices_in(file), intensity))
        if shows_flat(file):
            return _three_channels(apply_intensity(flat_picture(file), intensity, path))
        stored = stored_in(file)
    if not stored.is_deep:
        return _three_channels(np.divide(stored.as_bytes(), 255, dtype=np.float32))
    if intensity == "dtype" and stored.numbers.dtype.kind == "u":
        intensity = (0.0, float(stored.white))  # 12 bits fill no 16
    placed = apply_intensity(stored.numbers, intensity, path)
    return _three_channels(np.float32(1) - placed if stored.inverted else placed)


def _three_channels(pixels: NDArray[np.float32]) -> Image:
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    return Image(torch.from_numpy(np.ascontiguousarray(pixels[..., :3].transpose(2, 0, 1))))


def read_mask(
    path: str | Path,
    size: tuple[int, int],
    labels: MaskLabels = MaskLabels(),
    may_be_empty: bool = False,
) -> Mask:
    """Read the mask of an image as uint8, shape ``(height, width)``.

    It is 1 on the lesion and, where labels say so, 2 on what is not known; see
    ``anomalib_medclip.readers.lesion``.

    Args:
        path: The mask file.
        size: ``(height, width)`` of its image, as ``read_image`` gives it.
        labels: What its numbers mean, where they are not 0 and one other.
        may_be_empty: Whether the image is normal.

    Raises:
        ImageReadError: See ``read_lesion``.
        MaskError: See ``read_lesion``; or the mask is of another size than the image, or marks no
            lesion at all, though the image is abnormal.
    """
    return mask_of(read_outline(path, labels), path, size, may_be_empty)


def mask_of(
    outline: Outline, path: str | Path, size: tuple[int, int], may_be_empty: bool = False
) -> Mask:
    """As ``read_mask``, of an outline that has been read."""
    check_lesion(path, outline.lesion, size, may_be_empty)
    if outline.lesion.mean() > MOST:
        _warn_of_most(path)
    return Mask(torch.from_numpy(outline.marks))


def check_lesion(
    path: str | Path, lesion: NDArray[np.bool_], size: tuple[int, int], may_be_empty: bool = False
) -> None:
    """Refuse a mask that does not fit its image.

    Args:
        path: What it is called.
        lesion: What it marks.
        size: ``(height, width)`` of the image.
        may_be_empty: Whether the image is normal.

    Raises:
        MaskError: It is of another size, or marks nothing.
    """
    if lesion.shape != tuple(size):
        msg = (
            f"mask {path} is {lesion.shape[0]} x {lesion.shape[1]} pixels but its image is "
            f"{size[0]} x {size[1]}; make them the same size"
        )
        raise MaskError(msg)
    if not (may_be_empty or lesion.any()):
        msg = f"mask {path} marks no lesion; remove the image or label it normal"
        raise MaskError(msg)


@cache
def _warn_of_most(path: str | Path) -> None:  # once a file, however often it is read
    logger.warning("mask %s marks most of its image as lesion; see that it is not inverted", path)


def read_lesion(path: str | Path, labels: MaskLabels = MaskLabels()) -> NDArray[np.bool_]:
    """Where a mask of any size marks a lesion, which may be nowhere; shape ``(height, width)``.

    A mask holds 0 and one other number, or soft edges, which are cut at half of its own peak; or it
    is a map of labels, which are told.

    Raises:
        ImageReadError: The file is missing or cannot be decoded, or its numbers are not whole.
        MaskError: What its numbers, colours or transparency mean is not said.
    """
    return read_outline(path, labels).lesion


def read_outline(path: str | Path, labels: MaskLabels = MaskLabels()) -> Outline:
    """As ``read_lesion``, with what was found out about the mask."""
    return outline_of(_stored(path), path, labels)


def read_label_map(path: str | Path) -> NDArray[np.integer]:
    """The numbers of a map of labels, ``(height, width)``.

    Raises:
        ImageReadError: See ``read_lesion``.
        MaskError: It is in colour, or its compression has changed its numbers.
    """
    return labels_of(_stored(path), path)


def _stored(path: str | Path) -> Stored:
    with Unpacked(Path(path)) as file:
        if not shows_flat(file):
            return stored_in(file)
        numbers = flat_picture(file)
    whole = np.isfinite(numbers).all() and (numbers == np.rint(numbers)).all()
    if whole and numbers.dtype.kind == "f":  # by the slope of its header
        numbers = numbers.astype(np.int32)
    return Stored(numbers, 8 * numbers.dtype.itemsize)


def lesion_numbers(lesion: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Number of the lesion at each pixel, or 0; parts that touch, at a corner even, are one."""
    import cv2  # only for who counts lesions; the import takes a while

    numbers: NDArray[np.int32]
    _, numbers = cv2.connectedComponents(lesion.astype(np.uint8), connectivity=8)  # type: ignore[assignment]
    return numbers


def lesion_parts(lesion: NDArray[np.bool_]) -> Iterator[NDArray[np.bool_]]:
    """Each lesion of a mask by itself, see ``lesion_numbers``."""
    numbers = lesion_numbers(lesion)
    for number in range(1, int(numbers.max()) + 1):
        yield numbers == number
