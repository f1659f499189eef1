"""Masks with soft edges, of any format: whether they have edges alone, or areas of grey, too."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

FEW = 8
"""Numbers beside 0 that a map of labels may have; the edges of a soft mask have more."""

FAINT = 0.2
"""What is nearly black, as a part of the peak."""

_BRIGHT = 0.75
"""What is bright, as a part of the peak."""

_RINGING = 0.1
"""How bright, as a part of the peak, compression may make what is black near an edge."""

_FLAT = (1 / 32, 1 / 12)
"""How little an area changes from pixel to pixel, as a part of the peak; more where its compression
has changed it."""

_SOME = 0.02
"""Of what is not black, the part that such areas may be by chance."""


def has_areas_between(numbers: NDArray[Any], lossy: bool) -> bool:
    """Whether a soft mask has more than edges between black and its peak.

    Args:
        numbers: From 0 on, ``(row, column)``.
        lossy: Whether its compression has changed them.
    """
    grey = _as_parts(numbers)
    between = is_flat(grey, lossy) & (grey > FAINT) & (grey < _BRIGHT)
    return _are_areas(between, grey)


def has_areas_apart(numbers: NDArray[Any], lossy: bool) -> bool:
    """Whether a cut at half of the peak would leave nothing of areas that touch no brighter one.

    Args:
        numbers: From 0 on, ``(row, column)``.
        lossy: Whether its compression has changed them.
    """
    grey = _as_parts(numbers)
    peaks = _apart(grey > _RINGING, grey > 0.5) & (grey > FAINT)
    if np.count_nonzero(peaks) > FEW:
        return True
    dark, counts = np.unique(numbers[grey <= FAINT], return_counts=True)
    black = dark[counts.argmax()] if lossy and len(dark) else 0  # which compression brightens
    even = _range_around(grey) == 0
    return _are_areas(_apart(numbers > black, grey > 0.5) & even, grey)


def is_soft(numbers: NDArray[Any]) -> bool:
    """Whether a mask that could be a map of labels is none: mostly bright, with edges alone.

    Args:
        numbers: ``(row, column)``, as they were before any compression.
    """
    if len(np.unique(numbers)) <= FEW + 1 or numbers.min() < 0:
        return False
    grey = _as_parts(numbers)
    bright = np.count_nonzero(grey >= _BRIGHT) > 0.4 * np.count_nonzero(grey > FAINT)
    return bool(bright) and not has_areas_between(numbers, lossy=False)


def is_flat(grey: NDArray[np.float32], lossy: bool) -> NDArray[np.bool_]:
    """Where a picture, whose peak is 1, hardly changes from pixel to pixel in any channel."""
    flat: NDArray[np.bool_] = _range_around(grey) <= _FLAT[lossy]
    return flat if flat.ndim == 2 else np.all(flat, axis=2)


def _as_parts(numbers: NDArray[Any]) -> NDArray[np.float32]:
    return (numbers / numbers.max()).astype(np.float32)


def _are_areas(pixels: NDArray[np.bool_], grey: NDArray[np.float32]) -> bool:
    return bool(np.count_nonzero(pixels) > FEW + _SOME * np.count_nonzero(grey > FAINT))


def _range_around(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """By how much a pixel and its eight neighbours differ at most."""
    import cv2  # only for the rare soft mask; the import takes a while

    around = np.ones((3, 3), np.uint8)
    return np.asarray(cv2.dilate(grey, around) - cv2.erode(grey, around), np.float32)


def _apart(pixels: NDArray[np.bool_], bright: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Those of the pixels that touch no bright one, not even through others."""
    import cv2

    _, parts = cv2.connectedComponents(pixels.astype(np.uint8), connectivity=8)
    return pixels & ~np.isin(parts, np.unique(parts[bright]))
