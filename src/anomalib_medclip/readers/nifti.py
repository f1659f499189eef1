"""NIfTI files, read strictly: every byte is accounted for, and the header says where they lie."""

import gzip
import logging
import re
import struct
import zlib
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomalib_medclip.errors import ImageReadError, MedclipError, VolumeError
from anomalib_medclip.files import open_file
from anomalib_medclip.readers.size_limit import check_voxels

logger = logging.getLogger(__name__)

NIFTI_SUFFIXES = (".nii", ".nii.gz")
"""File name endings of NIfTI volumes, in lower case."""

_MOST_COMPRESSED = 1032  # bytes that one byte of a gzip file can at most become
_LONGEST_HEADER = 2**26  # bytes, with all extensions

_MILLIMETRES = (0, 2)  # NIfTI's unit of lengths; 0 is unknown, and then millimetres are usual


def is_nifti(path: Path) -> bool:
    """Whether a file has the ending of a NIfTI volume."""
    return path.name.lower().endswith(NIFTI_SUFFIXES)


def read_nifti(path: Path) -> Any:  # noqa: ANN401 - a nibabel image
    """Open a NIfTI file whose every byte is accounted for.

    nibabel alone reads what it needs: damage behind that, and a checksum that does not fit, would
    go unseen.

    Raises:
        ImageReadError: The file is missing, too large, cut off, longer than it says, or cannot be
            decoded.
        VolumeError: It is no volume of real numbers, or does not know where it lies.
    """
    import nibabel as nib  # pydicom comes with it; a run without NIfTI files needs neither

    try:
        with open_file(path) as file:
            content = gzip.GzipFile(fileobj=file) if _is_packed(path) else file
            kind = nib.Nifti2Image if _is_second(content.read(4)) else nib.Nifti1Image
            content.seek(0)
            block = content.read(kind.header_class.sizeof_hdr)
            _check_sound(path, kind.header_class, block)
            header = kind.header_class(block)
            wanted = _check_header(path, header, path.stat().st_size)
            content.seek(0)
            # One byte more than wanted: to its end, so that the checksum counts, and no bomb goes
            # off.
            raw = content.read(wanted + 1)
        _check_length(path, header, len(raw), wanted)
        image: Any = kind.from_bytes(raw)
        _check_place(path, image)
    except MedclipError:
        raise
    except _unreadable() as error:
        reason = str(error) or type(error).__name__
        msg = f"cannot read {path} as NIfTI: {reason}; replace it or take it out of the data"
        raise ImageReadError(msg) from error
    return image


def _unreadable() -> tuple[type[Exception], ...]:
    """What reading raises where a file is no NIfTI file."""
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    of_format = HeaderDataError, ImageFileError, WrapStructError
    of_bytes = EOFError, ValueError, TypeError, KeyError, OverflowError, struct.error, zlib.error
    return OSError, MemoryError, *of_bytes, *of_format


def _is_packed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _is_second(length: bytes) -> bool:
    """Whether the header is that of NIfTI-2, by its length, which is the first that it says."""
    if not length:
        msg = "the file is empty"
        raise EOFError(msg)
    sizes = {int.from_bytes(length, order) for order in ("little", "big")}
    if not sizes & {348, 540}:
        msg = "it does not begin as a NIfTI file does"
        raise ValueError(msg)
    return 540 in sizes


def _check_sound(path: Path, kind: Any, raw: bytes) -> None:  # noqa: ANN401 - a header class
    """Refuse what nibabel would set right without a word, such as an unknown sform code."""
    harmless = "not divisible by 16|qfac"  # the latter counts for a qform only
    said = kind.diagnose_binaryblock(raw).splitlines()
    header = kind(raw, check=False)
    if header["qform_code"] != 0 and header["pixdim"][0] not in (-1, 0, 1):
        said.append(f"qfac is {header['pixdim'][0]}")
    if np.isinf(header["scl_slope"]):  # not a number stands for none
        said.append(f"the slope is {header['scl_slope']}")
    if (unit := int(header["xyzt_units"]) % 8) not in _MILLIMETRES:
        said.append(f"lengths are not in millimetres but in NIfTI's unit {unit}")
    wrong = [one for one in said if not re.search(harmless, one) or one.startswith("qfac is")]
    if wrong:
        msg = f"the header of {path} is unsound: {'; '.join(wrong)}; repair it"
        raise VolumeError(msg)


def _check_header(path: Path, header: Any, size: int) -> int:  # noqa: ANN401
    """Refuse what the header cannot mean before memory is asked for; the bytes there should be."""
    shape = tuple(int(n) for n in header.get_data_shape())
    dtype = header.get_data_dtype()
    if any(n < 1 for n in shape):
        msg = f"{path} says its shape is {shape}; repair or crop it"
        raise VolumeError(msg)
    if len(shape) < 3 or any(n > 1 for n in shape[3:]):
        msg = f"{path} is of shape {shape}, not of three dimensions; take one volume out of it"
        raise VolumeError(msg)
    if dtype.kind not in "iuf" or header["bitpix"] != dtype.itemsize * 8:
        msg = f"{path} holds {dtype} numbers of {header['bitpix']} bits; store it as real numbers"
        raise VolumeError(msg)
    needed = prod(shape) * dtype.itemsize
    if needed > size * (_MOST_COMPRESSED if _is_packed(path) else 1):
        msg = f"{path} says its shape is {shape}, which is more than can be in it; replace it"
        raise VolumeError(msg)
    check_voxels(path, *shape)
    offset = float(header["vox_offset"])
    if offset % 1 or not 0 < offset < _LONGEST_HEADER:
        msg = f"{path} says its voxels begin at byte {offset}; repair its header"
        raise VolumeError(msg)
    return int(offset) + needed


def _check_length(path: Path, header: Any, length: int, wanted: int) -> None:  # noqa: ANN401
    if length != wanted:
        msg = (
            f"{path} holds {length if length < wanted else 'more'} bytes, but its header, which "
            f"says it is of shape {header.get_data_shape()} and {header.get_data_dtype()}, wants "
            f"{wanted}; replace it"
        )
        raise ImageReadError(msg)


def _check_place(path: Path, image: Any) -> None:  # noqa: ANN401
    """Refuse an affine that is none, and two that point to different sides of the patient."""
    from nibabel.orientations import aff2axcodes

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
        said = ["".join(aff2axcodes(a)) for a in (header.get_sform(), header.get_qform())]
        if said[0] != said[1]:
            msg = f"{path} says its axes are {said[0]} (sform) and {said[1]} (qform); repair one"
            raise VolumeError(msg)


def numbers_of(image: Any, path: Path) -> NDArray[Any]:  # noqa: ANN401
    """The numbers of an image, rescaled as its header says, without empty dimensions.

    Raises:
        VolumeError: The rescaling is none.
    """
    slope, inter = image.dataobj.slope, image.dataobj.inter
    if not np.isfinite([slope, inter]).all() or slope == 0:
        msg = f"{path} states a slope of {slope} and an intercept of {inter}; repair its header"
        raise VolumeError(msg)
    with np.errstate(over="ignore"):  # what leaves its range is not finite, and refused as such
        values: NDArray[Any] = np.asanyarray(image.dataobj)
    return values.reshape(values.shape[:3])
