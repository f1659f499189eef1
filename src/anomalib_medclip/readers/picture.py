"""One picture file to a tensor: read it, and place its intensities in [0, 1]; and masks.

Training, testing and prediction all read here, so they cannot differ.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageFile, UnidentifiedImageError
from torchvision.tv_tensors import Image, Mask

from anomalib_medclip.errors import ImageReadError, MaskError
from anomalib_medclip.files import fault_of
from anomalib_medclip.readers.dicom import is_dicom, read_picture
from anomalib_medclip.readers.file_kind import kind_of
from anomalib_medclip.readers.intensity import IntensityPolicy, apply_intensity
from anomalib_medclip.readers.size_limit import check_pixels

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".dcm", ".dicom")
"""File name endings, in lower case, that count as images in a folder."""


def read_image(path: str | Path, intensity: IntensityPolicy = None) -> Image:
    """Read an image file as three channels of float32 in [0, 1], shape ``(3, height, width)``.

    Args:
        path: A PNG, JPEG, BMP, TIFF or DICOM file, grey or colour; an alpha channel is dropped.
        intensity: What to do with more than 8 bits a channel.

    Raises:
        ImageReadError: The file is missing, too large, or cannot be decoded.
        IntensityError: More than 8 bits without a policy, or numbers that are not finite.
        VolumeError: A DICOM file of several frames.
    """
    if is_dicom(Path(path)):
        return _three_channels(read_picture(Path(path), intensity))
    with _open(path) as picture:
        if not _is_deep(picture):
            pixels = np.asarray(_decode(path, lambda: picture.convert("RGB")), dtype=np.float32)
            return Image(torch.from_numpy(pixels).permute(2, 0, 1).div(255).contiguous())
        size = picture.size
    return _three_channels(apply_intensity(_read_deep(path, size), intensity, path))


def _three_channels(pixels: NDArray[np.float32]) -> Image:
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    return Image(torch.from_numpy(np.ascontiguousarray(pixels[..., :3].transpose(2, 0, 1))))


def read_mask(path: str | Path, size: tuple[int, int]) -> Mask:
    """Read the mask of an abnormal image as uint8, 1 on the lesion, shape ``(height, width)``.

    Args:
        path: The mask file of an abnormal image.
        size: ``(height, width)`` of its image.

    Raises:
        ImageReadError: The file is missing or cannot be decoded.
        MaskError: The mask is of another size than the image, or marks no lesion at all.
    """
    lesion = read_lesion(path)
    if lesion.shape != tuple(size):
        msg = (
            f"mask {path} is {lesion.shape[0]} x {lesion.shape[1]} pixels but its image is "
            f"{size[0]} x {size[1]}; make them the same size"
        )
        raise MaskError(msg)
    if not lesion.any():
        msg = f"mask {path} marks no lesion; remove the image or label it normal"
        raise MaskError(msg)
    return Mask(torch.from_numpy(lesion.astype(np.uint8)))


def read_lesion(path: str | Path) -> NDArray[np.bool_]:
    """Where a mask of any size marks a lesion, which may be nowhere; shape ``(height, width)``.

    Grey masks with 255 for the lesion are cut at half, so that soft JPEG edges do not grow;
    masks of small numbers (0/1, or label maps) count every number but 0 as lesion.

    Raises:
        ImageReadError: The file is missing or cannot be decoded, or its numbers are not whole.
    """
    values = mask_values(path)
    cut = values.dtype == np.uint8 and values.max() > 127
    lesion: NDArray[np.bool_] = values > 127 if cut else values != 0
    return lesion


def mask_values(path: str | Path) -> NDArray[Any]:
    """The numbers of a mask file, shape ``(height, width)``; of colours the brightest channel.

    Raises:
        ImageReadError: The file is missing or cannot be decoded, or its numbers are not whole.
    """
    with _open(path) as picture:
        if picture.mode in _LABEL_MODES:
            values = np.asarray(_decode(path, picture.copy))
        elif _is_deep(picture):
            msg = f"cannot read image {path}: a mask of 16-bit colours; store it as labels or grey"
            raise ImageReadError(msg)
        else:  # the brightest channel: a dark colour is a lesion, too
            values = np.asarray(_decode(path, lambda: picture.convert("RGB"))).max(axis=2)
    if (values != np.rint(values)).any():
        msg = f"cannot read image {path}: a mask of numbers that are not whole; threshold it first"
        raise ImageReadError(msg)
    return values


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


_LABEL_MODES = ("P", "I", "F", "I;16", "I;16B", "I;16L")
_DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L")


@contextmanager
def _open(path: str | Path) -> Iterator[Pillow.Image]:
    """A picture whose header is read, and whose size is not too large for the rest."""
    if fault := fault_of(path):
        msg = f"cannot read image {path}: it {fault.said}; {fault.remedy}"
        raise ImageReadError(msg)
    kind = kind_of(Path(path))
    if kind and kind.family in ("foreign", "volume"):
        said = kind.remedy or "give volumes to anomalib_medclip.data.Volumes or to score"
        msg = f"cannot read image {path}: it is {kind.name}; {said}"
        raise ImageReadError(msg)
    with Path(path).open("rb") as file:
        picture = _decode(path, partial(_header_of, file))
        check_pixels(path, *picture.size)
        _check_whole(path, picture)
        yield picture


def _header_of(file: BinaryIO) -> Pillow.Image:
    """What ``PIL.Image.open`` does, without its own limit, which would talk of attacks."""
    start = file.read(16)
    for load_formats in (Pillow.preinit, Pillow.init):  # the usual ones, then all
        load_formats()
        for make, accept in [Pillow.OPEN[name] for name in Pillow.ID]:
            accepted = accept is None or accept(start)
            if accepted and not isinstance(accepted, str):  # which says what is not installed
                file.seek(0)
                with suppress(SyntaxError, IndexError, TypeError, struct.error):  # another format
                    return make(file, "")
    msg = "it is of no format that is known"
    raise UnidentifiedImageError(msg)


def _decode(path: str | Path, read: Any) -> Any:  # noqa: ANN401 - any reader, and what it reads
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        msg = f"cannot read image {path}: Pillow is set to fill up damaged files; reset it"
        raise ImageReadError(msg)
    try:
        picture = read()
    except Exception as error:  # damaged files reach every corner of the decoders
        msg = f"cannot read image {path}: {error}; replace the file or take it out of the data"
        raise ImageReadError(msg) from error
    return picture


_BITS, _COMPRESSION, _STRIP_BYTES, _TILE_BYTES = 258, 259, 279, 325  # tags of TIFF
_END_OF_PNG = b"IEND\xaeB`\x82"


def _check_whole(path: str | Path, picture: Pillow.Image) -> None:
    """Refuse damage that decoders pass over."""
    check = {"PNG": _check_png, "TIFF": _check_tiff}.get(picture.format or "")
    if check is not None:
        _decode(path, partial(check, path, picture))


def _check_png(path: str | Path, picture: Pillow.Image) -> Pillow.Image:
    """Every chunk has a checksum; Pillow leaves some unread."""
    with Path(path).open("rb") as again:
        _header_of(again).verify()
    if _END_OF_PNG not in Path(path).read_bytes():
        msg = "it is cut off in its last chunk"
        raise ValueError(msg)
    return picture


def _check_tiff(path: str | Path, picture: Any) -> Pillow.Image:  # noqa: ANN401 - Pillow's TIFF
    """Of several pages only one would be read; uncompressed pixels have as many bytes as wanted."""
    del path
    tags = picture.tag_v2
    if picture.n_frames > 1:
        msg = f"it has {picture.n_frames} pages, which are not read; store each as a file"
        raise ValueError(msg)
    if tags.get(_COMPRESSION, 1) == 1 and _TILE_BYTES not in tags:
        wanted = (picture.width * sum(tags.get(_BITS, (1,))) + 7) // 8 * picture.height
        if sum(tags[_STRIP_BYTES]) != wanted:
            msg = f"it has {sum(tags[_STRIP_BYTES])} bytes of pixels, but its size wants {wanted}"
            raise ValueError(msg)
    return picture


def _is_deep(picture: Pillow.Image) -> bool:
    """Whether a channel has more than 8 bits; Pillow would cut 16-bit colour without a word."""
    # Of Pillow's images only those have tiles that it has opened from a file and not yet decoded.
    return picture.mode in _DEEP_MODES or any(
        ";16" in str(part) for tile in getattr(picture, "tile", []) for part in tile
    )


def _read_deep(path: str | Path, size: tuple[int, int]) -> NDArray[Any]:
    import cv2  # only for the rare deep image; the import takes a while

    pixels: Any = _decode(path, lambda: cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
    if pixels is None or pixels.shape[1::-1] != size:
        msg = f"cannot read image {path}: unknown format of more than 8 bits; store it as PNG"
        raise ImageReadError(msg)
    if pixels.ndim == 2:
        return pixels
    return pixels[..., 2::-1] if pixels.shape[2] >= 3 else pixels[..., 0]
