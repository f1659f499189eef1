"""How the slices of a DICOM series make a volume: by their geometry, never by name."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomalib_medclip.errors import VolumeError

logger = logging.getLogger(__name__)


def check_alike(paths: Sequence[Path], datasets: Sequence[Any]) -> None:
    """Refuse files that do not make one volume.

    Args:
        paths: The files, for error messages.
        datasets: Their headers.

    Raises:
        VolumeError: Several series, other sizes or orientations, colour, or no place.
    """
    wanted = {
        "SeriesInstanceUID": "series",
        "FrameOfReferenceUID": "frame of reference",
        "Rows": "number of rows",
        "Columns": "number of columns",
        "PhotometricInterpretation": "kind of grey or colour",
    }
    for keyword, words in wanted.items():
        for path, dataset in zip(paths, datasets, strict=True):
            if dataset.get(keyword) != datasets[0].get(keyword):
                msg = f"{path} is of another {words} than {paths[0]}; give each series a folder"
                raise VolumeError(msg)
    if datasets[0].SamplesPerPixel > 1:
        msg = f"{paths[0]} is in colour, of which no volume is made; score the pictures singly"
        raise VolumeError(msg)
    _check_tilt(paths, datasets)


def _check_tilt(paths: Sequence[Path], datasets: Sequence[Any]) -> None:
    """Refuse slices whose place is unknown, or that are not parallel."""
    for path, dataset in zip(paths, datasets, strict=True):
        lacking = [
            keyword
            for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
            if not dataset.get(keyword)
        ]
        if lacking:
            msg = f"{path} states no {lacking[0]}, so its place in the volume is unknown"
            raise VolumeError(msg + "; score it singly, or repair the series")
        for keyword, words in (("PixelSpacing", "spacing"), ("ImageOrientationPatient", "tilt")):
            here, first = (_numbers(path, d, keyword) for d in (dataset, datasets[0]))
            if not np.allclose(here, first, rtol=0, atol=1e-4):
                msg = f"{path} is of another {words} than {paths[0]}; give each stack a folder"
                raise VolumeError(msg)


def _numbers(path: Path, dataset: Any, keyword: str) -> NDArray[np.float64]:  # noqa: ANN401
    size = {"PixelSpacing": 2, "ImagePositionPatient": 3, "ImageOrientationPatient": 6}[keyword]
    try:
        numbers = np.array([float(x) for x in dataset.get(keyword)])
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if numbers.shape != (size,) or not np.isfinite(numbers).all():
        msg = f"{path} states {keyword} as {dataset.get(keyword)}, not as {size} numbers; repair it"
        raise VolumeError(msg)
    return numbers


def in_order(
    paths: Sequence[Path], datasets: Sequence[Any], uneven: bool
) -> tuple[list[int], float]:
    """Which file is at which place along the normal, and how many mm the places are apart.

    Raises:
        VolumeError: Slices are missing, doubled, unevenly spaced or not stacked along their normal.
    """
    normal = np.cross(*_numbers(paths[0], datasets[0], "ImageOrientationPatient").reshape(2, 3))
    if abs(np.linalg.norm(normal) - 1) > 1e-3:
        msg = f"{paths[0]} states axes that are not at right angles; repair the series"
        raise VolumeError(msg)
    pairs = zip(paths, datasets, strict=True)
    places = np.array([_numbers(path, d, "ImagePositionPatient") for path, d in pairs])
    along = places @ normal
    order = sorted(range(len(paths)), key=lambda i: (along[i], paths[i].name))
    if len(order) == 1:
        return order, float(datasets[0].get("SliceThickness") or 1)
    gaps = np.diff(along[order])
    doubled = np.flatnonzero(gaps < 1e-3)
    if uneven:
        kept = [i for n, i in enumerate(order) if n - 1 not in doubled]
        gaps = np.diff(along[kept])
        logger.warning(
            "%s: %d doubled slices left out; gaps of %.2f to %.2f mm taken as even",
            paths[0].parent, len(doubled), gaps.min(initial=0), gaps.max(initial=0),
        )  # fmt: skip
        return kept, float(np.median(gaps)) if len(gaps) else 1.0
    if len(doubled):
        first, second = (paths[order[doubled[0] + n]] for n in (0, 1))
        msg = f"{first} and {second} are at the same place; take one out, or allow uneven slices"
        raise VolumeError(msg)
    middle = float(np.median(gaps))
    wide = np.flatnonzero(np.abs(gaps - middle) > 0.01 * middle)
    if len(wide):
        before, after = (paths[order[wide[0] + n]] for n in (0, 1))
        msg = (
            f"{before} and {after} are {gaps[wide[0]]:.3f} mm apart, other slices {middle:.3f}: "
            "slices are missing or uneven; complete the series, or allow uneven slices"
        )
        raise VolumeError(msg)
    shift = places[order[-1]] - places[order[0]]
    if np.linalg.norm(shift - normal * (shift @ normal)) > 0.01 * np.linalg.norm(shift):
        msg = f"the slices of {paths[0].parent} are not stacked along their normal (gantry tilt?)"
        raise VolumeError(msg + "; resample the series first")
    return order, (along[order[-1]] - along[order[0]]) / (len(order) - 1)


def affine_of(datasets: Sequence[Any], spacing: float) -> NDArray[np.float64]:
    """From ``(slice, row, column)`` to millimetres; DICOM counts towards left and posterior."""
    first = datasets[0]
    across, down = np.array(first.ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
    row_gap, column_gap = (float(x) for x in first.PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0] = np.cross(across, down) * spacing
    affine[:3, 1] = down * row_gap  # from row to row
    affine[:3, 2] = across * column_gap
    affine[:3, 3] = first.ImagePositionPatient
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
