"""Where a slice lies: its number in a viewer, its size in millimetres, and which side is which."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomalib_medclip.data.slicing import Sliced
from anomalib_medclip.pictures.view import Extent
from anomalib_medclip.readers.flat import ENDS

_SAME_PLACE = 0.01  # of the distance of slices


class SlicePlace(NamedTuple):
    """What a picture of a slice says of its place.

    Attributes:
        words: Its number along the cut, from 0, and that which viewers show.
        extent: Of the whole slice.
    """

    words: str
    extent: Extent


def place_of(sliced: Sliced, number: int) -> SlicePlace:
    """Where a slice of a volume is."""
    shown = number_in_viewers(sliced, number)
    words = f"slice {number}" if shown is None else f"slice {number} ({shown} in a viewer)"
    return SlicePlace(words, extent_of(sliced))


def extent_of(sliced: Sliced) -> Extent:
    """Size of the slices and their sides, where the file says them; of pictures, in pixels.

    A NIfTI file whose header gives no orientation has a size, and no sides.
    """
    rows, columns = sliced.images.shape[1:]
    if not sliced.headers:
        return Extent(rows * sliced.aspect, columns)
    affine = sliced.picture_affine
    down, across = (float(np.linalg.norm(affine[:3, axis])) for axis in (0, 1))
    axis = int(np.abs(affine[:3, 1]).argmax())
    ends = ENDS[axis] if affine[axis, 1] > 0 else ENDS[axis][::-1]
    return Extent(rows * down, columns * across, True, ends if _is_oriented(sliced) else None)


def number_in_viewers(sliced: Sliced, number: int) -> int | None:
    """The number that viewers show of a slice, from 1: of DICOM the instance's, where it has one.

    None, if it was cut across several slices of the file, or lies beyond its ends.
    """
    if not sliced.headers:
        return None
    if _is_nifti(sliced):
        across = _to_file(sliced)
        axis = int(np.abs(across[:3, 2]).argmax())
        place = _whole(across[axis], number)
        return None if place is None or place < 0 else place + 1
    place = in_the_series(sliced, number)
    if place is None:
        return None
    return int(getattr(sliced.headers[place], "InstanceNumber", None) or place + 1)


def in_the_series(sliced: Sliced, number: int) -> int | None:
    """Which slice of the series a slice of the cut is.

    None, if it was cut across several, or lies beyond its ends: a resampled volume may reach there.
    """
    place = _whole(_to_file(sliced)[0], number)
    return None if place is None or not 0 <= place < len(sliced.headers) else place


def _to_file(sliced: Sliced) -> NDArray[np.float64]:
    """From ``(row, column, slice)`` of the cut to voxel indices of the file."""
    across: NDArray[np.float64] = np.linalg.inv(sliced.affine) @ sliced.picture_affine
    return across


def _whole(along: NDArray[np.float64], number: int) -> int | None:
    """The index of a slice along an axis of the file, where that is one slice of it."""
    row, column, step, start = along
    place = step * number + start
    is_one = max(abs(row), abs(column), abs(place - round(place))) < _SAME_PLACE
    return round(place) if is_one else None


def _is_nifti(sliced: Sliced) -> bool:
    return hasattr(sliced.headers[0], "get_sform")


def _is_oriented(sliced: Sliced) -> bool:
    """Whether the file says which side is which; DICOM does, or is refused."""
    header = sliced.headers[0]
    return not _is_nifti(sliced) or any(int(header[f"{kind}form_code"]) for kind in "qs")
