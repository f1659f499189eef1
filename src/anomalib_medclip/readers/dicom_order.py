"""Which slices of a DICOM series make a volume, in which order, and where it lies.

Order and place come from the geometry that each file states, never from names or numbers of slices.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomalib_medclip.errors import VolumeError

logger = logging.getLogger(__name__)

_ALIKE = {
    "SeriesInstanceUID": "series",
    "SOPClassUID": "SOP class",
    "FrameOfReferenceUID": "frame of reference",
    "Rows": "number of rows",
    "Columns": "number of columns",
    "BitsStored": "number of bits",
    "PixelRepresentation": "sign",
    "PhotometricInterpretation": "kind of grey or colour",
}
"""What all slices of a volume share, and its words."""

_GEOMETRY = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}
"""What every slice states, and in how many numbers."""

_SAME_ANGLE = 1e-4  # of a direction cosine
_SAME_PLACE = 1e-3  # millimetres, between two slices
_EVEN = 0.05  # of the distance of slices, off an even grid
_SIDEWAYS = 0.1  # of a pixel, off the line along the normal


def check_alike(paths: Sequence[Path], datasets: Sequence[Any]) -> None:
    """Refuse files that do not make one volume.

    Raises:
        VolumeError: They differ in series, size, kind or orientation, or state no place.
    """
    for keyword, words in _ALIKE.items():
        for path, dataset in zip(paths, datasets, strict=True):
            if dataset.get(keyword) != datasets[0].get(keyword):
                msg = f"{path} is of another {words} than {paths[0]}; give each series a folder"
                raise VolumeError(msg)
    if datasets[0].SamplesPerPixel > 1 or datasets[0].PhotometricInterpretation == "PALETTE COLOR":
        msg = f"{paths[0]} is in colour, of which no volume is made; score the pictures singly"
        raise VolumeError(msg)
    for keyword, words in (("PixelSpacing", "spacing"), ("ImageOrientationPatient", "orientation")):
        first = _numbers(paths[0], datasets[0], keyword)
        for path, dataset in zip(paths, datasets, strict=True):
            here = _numbers(path, dataset, keyword)
            if not np.allclose(here, first, rtol=0, atol=_SAME_ANGLE):
                msg = f"{path} is of another {words} than {paths[0]}; give each stack a folder"
                raise VolumeError(msg)


def in_order(
    paths: Sequence[Path], datasets: Sequence[Any], uneven: bool
) -> tuple[list[int], float]:
    """Which file is at which place along the normal, and how many millimetres places are apart.

    Args:
        paths: Files of one volume, in any order.
        datasets: Their headers.
        uneven: Take missing, doubled or uneven slices as they come, each place once.

    Raises:
        VolumeError: The slices are tilted or, unless ``uneven``, missing, doubled or uneven.
    """
    normal = _normal(paths[0], datasets[0])
    pairs = zip(paths, datasets, strict=True)
    places = np.array([_numbers(path, d, "ImagePositionPatient") for path, d in pairs])
    along = places @ normal
    order = sorted(range(len(paths)), key=lambda i: (along[i], paths[i].name))
    sideways = places - places[order[0]] - np.outer(along - along[order[0]], normal)
    pixel = _numbers(paths[0], datasets[0], "PixelSpacing").min()
    if np.linalg.norm(sideways, axis=1).max() > _SIDEWAYS * pixel:
        msg = f"the slices of {paths[0].parent} are not stacked along their normal (gantry tilt?)"
        raise VolumeError(msg + "; resample the series first")
    if uneven:
        order = _each_place_once(paths, along, order)
    elif len(order) > 1:
        _check_even([paths[i] for i in order], along[order])
    if len(order) == 1:
        return order, _thickness(paths[0], datasets[0])
    gaps = np.diff(along[order])
    return order, float(np.median(gaps) if uneven else np.mean(gaps))


def affine_of(path: Path, dataset: Any, spacing: float) -> NDArray[np.float64]:  # noqa: ANN401
    """From ``(slice, row, column)`` of a stack to millimetres, right, anterior and superior.

    Args:
        path: The first slice.
        dataset: Its header; DICOM counts towards left, posterior and superior.
        spacing: Millimetres between slices.
    """
    across, down = _numbers(path, dataset, "ImageOrientationPatient").reshape(2, 3)
    row_gap, column_gap = _numbers(path, dataset, "PixelSpacing")
    affine = np.eye(4)
    affine[:3, 0] = np.cross(across, down) * spacing
    affine[:3, 1] = down * row_gap  # from row to row
    affine[:3, 2] = across * column_gap
    affine[:3, 3] = _numbers(path, dataset, "ImagePositionPatient")
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _numbers(path: Path, dataset: Any, keyword: str) -> NDArray[np.float64]:  # noqa: ANN401
    stated = dataset.get(keyword)
    if not stated:
        msg = f"{path} states no {keyword}, so its place in the volume is unknown"
        raise VolumeError(msg + "; score it singly, or repair the series")
    try:
        numbers = np.array([float(x) for x in stated])
    except (TypeError, ValueError):
        numbers = np.empty(0)
    usable = numbers.shape == (_GEOMETRY[keyword],) and np.isfinite(numbers).all()
    if not usable or (keyword == "PixelSpacing" and (numbers <= 0).any()):
        msg = f"{path} states {keyword} as {stated}, not as {_GEOMETRY[keyword]} usable numbers"
        raise VolumeError(msg + "; repair it")
    return numbers


def _normal(path: Path, dataset: Any) -> NDArray[np.float64]:  # noqa: ANN401
    across, down = _numbers(path, dataset, "ImageOrientationPatient").reshape(2, 3)
    lengths = np.array([across @ across, down @ down])
    if np.abs(lengths - 1).max() > 1e-3 or abs(across @ down) > 1e-3:
        msg = f"{path} states axes that are not of length one at right angles; repair the series"
        raise VolumeError(msg)
    return np.cross(across, down)


def _thickness(path: Path, dataset: Any) -> float:  # noqa: ANN401
    """That of a single slice; a millimetre, where it is not stated."""
    thickness = float(dataset.get("SliceThickness") or 1)
    if not (np.isfinite(thickness) and thickness > 0):
        msg = f"{path} states a thickness of {thickness} mm; repair it"
        raise VolumeError(msg)
    return thickness


def _each_place_once(
    paths: Sequence[Path], along: NDArray[np.float64], order: list[int]
) -> list[int]:
    kept = order[:1]
    for i in order[1:]:
        if along[i] - along[kept[-1]] >= _SAME_PLACE:
            kept.append(i)
    gaps = np.diff(along[kept])
    if len(gaps):
        logger.warning(
            "%s: %d doubled slices left out; gaps of %.2f to %.2f mm taken as even",
            paths[0].parent, len(order) - len(kept), gaps.min(), gaps.max(),
        )  # fmt: skip
    return kept


def _check_even(paths: Sequence[Path], along: NDArray[np.float64]) -> None:
    """Refuse a stack, sorted along its normal, whose slices are not on an even grid."""
    gaps = np.diff(along)
    doubled = np.flatnonzero(gaps < _SAME_PLACE)
    if len(doubled):
        first, second = paths[doubled[0]], paths[doubled[0] + 1]
        msg = f"{first} and {second} are at the same place; take one out, or allow uneven slices"
        raise VolumeError(msg)
    off = np.abs(along - np.linspace(along[0], along[-1], len(along)))
    middle = float(np.median(gaps))
    if off.max() > _EVEN * middle:
        worst = int(np.abs(gaps - middle).argmax())
        msg = (
            f"{paths[worst]} and {paths[worst + 1]} are {gaps[worst]:.3f} mm apart, other slices "
            f"{middle:.3f}: slices are missing or uneven; complete the series, or allow uneven "
            "slices"
        )
        raise VolumeError(msg)
