"""Which slices of a DICOM series make a volume, in which order, and where it lies.

Order and place come from the geometry that each file states, never from names or numbers of slices.
"""

import logging
from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from anomalib_medclip.errors import VolumeError
from anomalib_medclip.readers.dicom_file import FaultyFileError
from anomalib_medclip.readers.dicom_frames import Slice, place_of, telling_of
from anomalib_medclip.readers.dicom_header import numbers_of
from anomalib_medclip.readers.tool_commands import by_dcm2niix

logger = logging.getLogger(__name__)

_GEOMETRY = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}
"""What every slice states, and in how many numbers."""

ALLOW_UNEVEN = "allow uneven slices, of data by uneven: true (--data.uneven true), else by --uneven"
"""What a message adds to its remedy."""

_SAME_PLACE = 1e-3  # millimetres, between two slices
_EVEN = 0.05  # of the distance of slices, off an even grid
_SIDEWAYS = 0.1  # of a pixel, off the line along the normal


def in_order(slices: Sequence[Slice], uneven: bool) -> tuple[list[int], float]:
    """Which slice is at which place along the normal, and how many millimetres places are apart.

    Args:
        slices: Those of one volume, in any order.
        uneven: Take missing, doubled or uneven slices as they come, each place once.

    Raises:
        VolumeError: The slices are tilted or, unless ``uneven``, missing, doubled or uneven; or one
            does not say where it lies.
    """
    for one, keyword in product(slices, _GEOMETRY):
        geometry_of(one, keyword)
    normal = _normal(slices[0])
    places = np.array([geometry_of(one, "ImagePositionPatient") for one in slices])
    along = places @ normal
    order = sorted(range(len(slices)), key=lambda i: (along[i], slices[i].path.name))
    _check_upright(slices, places[order], normal)
    if uneven:
        order = _each_place_once(slices, along, order)
    elif len(order) > 1:
        _check_even([slices[i] for i in order], along[order])
    if len(order) == 1:
        return order, _thickness(slices[0])
    gaps = np.diff(along[order])
    return order, float(np.median(gaps) if uneven else np.mean(gaps))


def affine_of(one: Slice, spacing: float) -> NDArray[np.float64]:
    """From ``(slice, row, column)`` of a stack to millimetres, right, anterior and superior.

    Args:
        one: The first slice; DICOM counts towards left, posterior and superior.
        spacing: Millimetres between slices.
    """
    across, down = geometry_of(one, "ImageOrientationPatient").reshape(2, 3)
    row_gap, column_gap = geometry_of(one, "PixelSpacing")
    affine = np.eye(4)
    affine[:3, 0] = np.cross(across, down) * spacing
    affine[:3, 1] = down * row_gap  # from row to row
    affine[:3, 2] = across * column_gap
    affine[:3, 3] = geometry_of(one, "ImagePositionPatient")
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def geometry_of(one: Slice, keyword: str) -> NDArray[np.float64]:
    """The numbers by which a slice says where it lies.

    Raises:
        VolumeError: It states none, or none that can be.
    """
    count = _GEOMETRY[keyword]
    try:
        numbers = np.array(numbers_of(one.header, keyword))
    except FaultyFileError as error:
        msg = f"{one.path}: {error}, not as {count} usable numbers; repair it"
        raise VolumeError(msg) from error
    if not len(numbers):
        msg = f"{one.path} states no {keyword}, so its place in the volume is unknown"
        raise VolumeError(msg + "; score it singly, or repair the series")
    if len(numbers) != count or (keyword == "PixelSpacing" and (numbers <= 0).any()):
        msg = f"{one.path} states {keyword} as {numbers.tolist()}, not as {count} usable numbers"
        raise VolumeError(msg + "; repair it")
    return numbers


def _normal(one: Slice) -> NDArray[np.float64]:
    across, down = geometry_of(one, "ImageOrientationPatient").reshape(2, 3)
    lengths = np.array([across @ across, down @ down])
    if np.abs(lengths - 1).max() > 1e-3 or abs(across @ down) > 1e-3:
        msg = f"{one.path} states axes that are not of length one at right angles"
        raise VolumeError(msg + "; repair the series")
    return np.cross(across, down)


def _check_upright(
    slices: Sequence[Slice], places: NDArray[np.float64], normal: NDArray[np.float64]
) -> None:
    """Refuse a stack that does not stand on its normal, along which places are sorted.

    dcm2niix straightens computed tomography of a tilted gantry.
    """
    steps = places - places[0]
    most = _SIDEWAYS * geometry_of(slices[0], "PixelSpacing").min()
    if np.linalg.norm(steps - np.outer(steps @ normal, normal), axis=1).max() <= most:
        return
    folder, header = place_of(slices), slices[0].header
    msg = f"the slices of {folder} are not stacked along their normal"
    whole = steps[-1] / (np.linalg.norm(steps[-1]) or 1)
    if np.linalg.norm(steps - np.outer(steps @ whole, whole), axis=1).max() > most:
        raise VolumeError(msg + ": one lies aside; take it out, or repair the series")
    degrees = np.degrees(np.arccos(min(1.0, abs(float(whole @ normal)))))
    msg += (
        f": they are tilted by {degrees:.3g} degrees, as by a gantry; straighten them by "
        f"{by_dcm2niix(header, '-f', 'straight', '-o', '.', folder)}, and read the file with "
        "_Tilt_ in its name, not straight.nii"
    )
    raise VolumeError(msg)


def _thickness(one: Slice) -> float:
    """That of a single slice; a millimetre, where it is not stated."""
    with telling_of(one.path):
        thickness = (numbers_of(one.header, "SliceThickness") or [0])[0] or 1.0
    if thickness <= 0:
        msg = f"{one.path} states a thickness of {thickness} mm; repair it"
        raise VolumeError(msg)
    return thickness


def _each_place_once(
    slices: Sequence[Slice], along: NDArray[np.float64], order: list[int]
) -> list[int]:
    kept = order[:1]
    for i in order[1:]:
        if along[i] - along[kept[-1]] >= _SAME_PLACE:
            kept.append(i)
    gaps = np.diff(along[kept])
    if len(gaps):
        logger.warning(
            "%s: %d doubled slices left out; gaps of %.2f to %.2f mm taken as even",
            place_of(slices), len(order) - len(kept), gaps.min(), gaps.max(),
        )  # fmt: skip
    return kept


def _check_even(slices: Sequence[Slice], along: NDArray[np.float64]) -> None:
    """Refuse a stack, sorted along its normal, whose slices are not on an even grid."""
    gaps = np.diff(along)
    doubled = np.flatnonzero(gaps < _SAME_PLACE)
    if len(doubled):
        first, second = (slices[doubled[0] + i].path for i in (0, 1))
        msg = f"{first} and {second} are at the same place; take one out, or {ALLOW_UNEVEN}"
        raise VolumeError(msg)
    off = np.abs(along - np.linspace(along[0], along[-1], len(along)))
    middle = float(np.median(gaps))
    if off.max() > _EVEN * middle:
        worst = int(np.abs(gaps - middle).argmax())
        msg = (
            f"{slices[worst].path} and {slices[worst + 1].path} are {gaps[worst]:.3f} mm apart, "
            f"other slices {middle:.3f}: slices are missing or uneven; complete the series, or "
            f"{ALLOW_UNEVEN}"
        )
        raise VolumeError(msg)
