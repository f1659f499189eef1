"""A volume of voxels, and where it lies in the patient: from NIfTI, DICOM, or a stack of pictures.

What cannot be read to the last byte, or does not say what it is, is refused.
"""

import gzip
import logging
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from anomalib_medclip.dicom import dicom_files, read_series, series_of
from anomalib_medclip.errors import ImageReadError, MaskError, VolumeError
from anomalib_medclip.imaging import IMAGE_SUFFIXES, read_image, read_mask
from anomalib_medclip.intensity import IntensityPolicy, place

logger = logging.getLogger(__name__)

NIFTI_SUFFIXES = (".nii", ".nii.gz")
"""File name endings of NIfTI volumes, in lower case."""

AS_SEEN = np.array([[0.0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
"""The affine of pictures that say nothing of the patient: rows go down an axial slice as it is
usually shown, columns to the right of it, slices up."""

_MOST_VOXELS = 2**31
_MOST_COMPRESSED = 1032  # bytes that one byte of a gzip file can at most become
_SAME_PLACE = 0.01  # of a voxel, at the farthest corner


class Volume(NamedTuple):
    """Voxels and their place.

    Attributes:
        voxels: Values in [0, 1], or labels, of shape ``(i, j, k)`` as in the file.
        affine: From voxel indices to millimetres, towards right, anterior and superior.
    """

    voxels: NDArray[Any]
    affine: NDArray[np.float64]


def is_nifti(path: Path) -> bool:
    """Whether a file has the ending of a NIfTI volume."""
    return path.name.lower().endswith(NIFTI_SUFFIXES)


def read_volume(
    path: str | Path | Sequence[Path], intensity: IntensityPolicy = None, uneven: bool = False
) -> Volume:
    """Read a volume as float32 in [0, 1].

    Args:
        path: A NIfTI file, a folder with one DICOM series, the files of one series, or a folder of
            grey pictures, which are its slices in the order of the numbers in their names.
        intensity: How the numbers reach [0, 1]. Only 8-bit pictures need no policy.
        uneven: See ``anomalib_medclip.dicom.read_series``.

    Raises:
        ImageReadError: A file is missing, cut off or cannot be decoded.
        IntensityError: The policy does not fit, or numbers are not finite.
        VolumeError: It is not what it says.
    """
    if not isinstance(path, str | Path):
        return Volume(*read_series(path, intensity, uneven))
    path = Path(path)
    if path.is_dir():
        return _read_folder(path, intensity, uneven)
    if is_nifti(path):
        image = read_nifti(path)
        return Volume(place(_numbers(image, path), intensity, path), image.affine)
    if not path.exists():
        msg = f"{path} does not exist; correct the path"
    else:
        msg = f"{path} is no volume: neither a NIfTI file nor a folder of slices"
    raise ImageReadError(msg)


def read_labels(path: str | Path) -> Volume:
    """Read a volume of labels, such as lesion or organ masks, as whole numbers.

    Args:
        path: A NIfTI file, or a folder of masks as pictures, 1 on the lesion; DICOM is not read.

    Raises:
        ImageReadError: A file is missing, cut off or cannot be decoded.
        MaskError: Numbers that are not whole.
    """
    path = Path(path)
    if path.is_dir():
        return _stack_masks(path)
    image = read_nifti(path)
    values = _numbers(image, path)
    if not np.isfinite(values).all() or (values != np.rint(values)).any():
        msg = f"{path} holds numbers that are not whole, and so no labels; threshold it first"
        raise MaskError(msg)
    return Volume(values.astype(np.int32), image.affine)


def read_nifti(path: Path) -> Any:  # noqa: ANN401 - a nibabel image
    """Open a NIfTI file whose every byte is accounted for.

    nibabel alone reads what it needs: damage behind that, and a checksum that does not fit, would
    go unseen.

    Raises:
        ImageReadError: The file is missing, cut off, longer than it says, or cannot be decoded.
        VolumeError: It is no volume of real numbers, or does not know where it lies.
    """
    try:
        raw = path.read_bytes()
        kind = nib.Nifti2Image if _is_second(path, raw) else nib.Nifti1Image
        header = kind.header_class.from_fileobj(_opened(path, raw))
        _check_header(path, header, len(raw))
        raw = gzip.decompress(raw) if _is_packed(path) else raw
        image: Any = kind.from_bytes(raw)
    except VolumeError:
        raise
    except _UNREADABLE as error:
        reason = str(error) or type(error).__name__
        msg = f"cannot read {path} as NIfTI: {reason}; replace it or take it out of the data"
        raise ImageReadError(msg) from error
    _check_length(path, image, len(raw))
    _check_place(path, image)
    return image


def same_grid(one: NDArray[np.float64], other: NDArray[np.float64], shape: tuple[int, ...]) -> bool:
    """Whether two affines put every voxel to the same place, to a hundredth of a voxel."""
    corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    corners = corners * [*(np.array(shape) - 1), 1]
    apart = np.linalg.norm((corners @ (one - other).T)[:, :3], axis=1)
    return bool(apart.max() <= _SAME_PLACE * np.linalg.norm(one[:3, :3], axis=0).min())


_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    OverflowError,
    MemoryError,
    zlib.error,
    nib.spatialimages.HeaderDataError,
    nib.filebasedimages.ImageFileError,
    nib.wrapstruct.WrapStructError,
)


def _is_packed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _opened(path: Path, raw: bytes) -> Any:  # noqa: ANN401 - a file
    from io import BytesIO

    return gzip.GzipFile(fileobj=BytesIO(raw)) if _is_packed(path) else BytesIO(raw)


def _is_second(path: Path, raw: bytes) -> bool:
    """Whether the header is that of NIfTI-2, by its length."""
    length = _opened(path, raw).read(4)
    if not length:
        msg = "the file is empty"
        raise EOFError(msg)
    sizes = {int.from_bytes(length, order) for order in ("little", "big")}
    if not sizes & {348, 540}:
        msg = "it does not begin as a NIfTI file does"
        raise ValueError(msg)
    return 540 in sizes


def _check_header(path: Path, header: Any, size: int) -> None:  # noqa: ANN401
    """Refuse what the header cannot mean, before memory is asked for."""
    shape = tuple(int(n) for n in header.get_data_shape())
    dtype = header.get_data_dtype()
    if any(n < 1 for n in shape) or np.prod(shape, dtype=object) > _MOST_VOXELS:
        msg = f"{path} says its shape is {shape}; repair or crop it"
        raise VolumeError(msg)
    if len(shape) < 3 or any(n > 1 for n in shape[3:]):
        msg = f"{path} is of shape {shape}, not of three dimensions; take one volume out of it"
        raise VolumeError(msg)
    if dtype.kind not in "iuf" or header["bitpix"] != dtype.itemsize * 8:
        msg = f"{path} holds {dtype} numbers of {header['bitpix']} bits; store it as real numbers"
        raise VolumeError(msg)
    needed = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if needed > size * (_MOST_COMPRESSED if _is_packed(path) else 1):
        msg = f"{path} says it holds {needed} bytes of voxels, more than can be in it; replace it"
        raise VolumeError(msg)


def _check_length(path: Path, image: Any, length: int) -> None:  # noqa: ANN401
    header = image.header
    wanted = int(image.dataobj.offset) + int(np.prod(image.shape)) * image.get_data_dtype().itemsize
    if length != wanted:
        msg = (
            f"{path} holds {length} bytes, but its header, which says it is of shape {image.shape} "
            f"and {header.get_data_dtype()}, wants {wanted}; replace it"
        )
        raise ImageReadError(msg)


def _check_place(path: Path, image: Any) -> None:  # noqa: ANN401
    """Refuse an affine that is none, and two that point to different sides of the patient."""
    header, affine = image.header, image.affine
    zooms = np.array(header.get_zooms()[:3], dtype=np.float64)
    if not np.isfinite(affine).all() or not np.isfinite(zooms).all() or (zooms <= 0).any():
        msg = f"{path} states no place that is finite: spacing {zooms}, affine {affine.tolist()}"
        raise VolumeError(msg + "; repair its header")
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if (sizes <= 0).any() or abs(np.linalg.det(affine[:3, :3] / sizes)) < 0.1:
        msg = f"{path} states an affine with flat axes: {affine.tolist()}; repair its header"
        raise VolumeError(msg)
    if not np.allclose(sizes, zooms, rtol=1e-2):
        msg = f"{path} states a spacing of {zooms} mm, but its affine one of {sizes}; repair it"
        raise VolumeError(msg)
    codes = [int(header[f"{name}_code"]) for name in ("sform", "qform")]
    if not any(codes):
        logger.warning("%s does not say how it lies in the patient", path)
    if all(codes):
        said = ["".join(nib.aff2axcodes(a)) for a in (header.get_sform(), header.get_qform())]
        if said[0] != said[1]:
            msg = f"{path} says its axes are {said[0]} (sform) and {said[1]} (qform); repair one"
            raise VolumeError(msg)


def _numbers(image: Any, path: Path) -> NDArray[Any]:  # noqa: ANN401
    """The numbers, rescaled as the header says, without empty dimensions."""
    slope, inter = image.dataobj.slope, image.dataobj.inter
    if not np.isfinite([slope, inter]).all() or slope == 0:
        msg = f"{path} states a slope of {slope} and an intercept of {inter}; repair its header"
        raise VolumeError(msg)
    values: NDArray[Any] = np.asanyarray(image.dataobj)
    return values.reshape(values.shape[:3])


def _read_folder(folder: Path, intensity: IntensityPolicy, uneven: bool) -> Volume:
    if files := dicom_files(folder):
        series = series_of(files)
        if len(series) > 1:
            msg = f"{folder} holds files of {len(series)} DICOM series; give each series a folder"
            raise VolumeError(msg)
        return Volume(*read_series(files, intensity, uneven))
    pictures = _pictures(folder)
    slices = [read_image(path, intensity).numpy() for path in pictures]
    for path, one in zip(pictures, slices, strict=True):
        if one.shape != slices[0].shape:
            msg = f"{path} is of shape {one.shape[1:]} but {pictures[0]} of {slices[0].shape[1:]}"
            raise VolumeError(msg + "; slices of a volume are of one size")
        if (one != one[:1]).any():
            msg = f"{path} is in colour, of which no volume is made; convert it to grey"
            raise VolumeError(msg)
    return Volume(np.stack([one[0] for one in slices], axis=-1), AS_SEEN)


def _stack_masks(folder: Path) -> Volume:
    """Masks as pictures; one may be empty, as healthy slices' are."""
    slices = []
    for path in _pictures(folder):
        size = tuple(read_image(path, (0.0, 1.0)).shape[-2:])
        try:
            slices.append(read_mask(path, (size[0], size[1])).numpy())
        except MaskError:  # not for its size, which is its own: it is empty
            slices.append(np.zeros(size, dtype=np.uint8))
    return Volume(np.stack(slices, axis=-1).astype(np.int32), AS_SEEN)


def _pictures(folder: Path) -> list[Path]:
    """Pictures of a folder, in the order of the numbers in their names."""
    import re

    def numbered(path: Path) -> tuple[list[int], str]:
        return [int(n) for n in re.findall(r"\d+", path.stem)], path.name

    files = (p for p in folder.iterdir() if not p.name.startswith("."))
    found = sorted((p for p in files if p.suffix.lower() in IMAGE_SUFFIXES), key=numbered)
    if not found:
        msg = f"{folder} holds neither DICOM files nor pictures; correct the path"
        raise ImageReadError(msg)
    return found
