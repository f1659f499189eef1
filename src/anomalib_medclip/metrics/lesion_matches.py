"""Lesions of masks and detections of maps, and which of them overlap."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from anomalib_medclip.metrics.images import FloatArray
from anomalib_medclip.readers.picture import lesion_numbers

Mask = npt.NDArray[np.bool_]
"""``[slice, row, column]``; an image by itself is one slice."""

LIMIT = 0.3
"""Share of lesion-free pixels above a threshold beyond which it counts for nothing, as of AUPRO: a
detection of most of an image finds whatever there is."""

_MOST = 96
"""Thresholds of a curve; where scores are fewer, each is one."""

_HIGHEST = 32
"""How many of them are highest lesion-free scores of stacks, where detections are few."""

_TOUCHING = np.ones((3, 3, 3))
"""The 26 neighbours in a volume."""

_ROUNDING = 1e-9


class Lesions(NamedTuple):
    """The lesions of a mask.

    Attributes:
        pixels: Places of all their pixels in the flattened mask.
        numbers: Lesion of each of these pixels, from 0.
        sizes: Pixels of each lesion.
    """

    pixels: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]

    @classmethod
    def of(cls, mask: Mask) -> "Lesions":
        """What is connected in a mask."""
        pixels = np.flatnonzero(mask)
        numbers = _regions(mask)[0].ravel()[pixels].astype(np.int64) - 1
        return cls(pixels, numbers, np.bincount(numbers))


class Matches(NamedTuple):
    """How many lesions are found, and how many detections find none."""

    found: int
    false: int


def matches(detected: Mask, lesions: Lesions, overlap: float = 0.0) -> Matches:
    """What the detections of a map above a threshold are.

    Args:
        detected: Pixels above it.
        lesions: Those of the mask of the same shape.
        overlap: Share of a lesion that a detection has to cover to find it; 0 for a pixel.
    """
    numbers, count = _regions(detected)
    there = numbers.ravel()[lesions.pixels].astype(np.int64)
    on = there > 0
    pairs, common = np.unique(
        there[on] * len(lesions.sizes) + lesions.numbers[on], return_counts=True
    )
    detection, lesion = np.divmod(pairs, max(1, len(lesions.sizes)))
    enough = common >= overlap * lesions.sizes[lesion] - _ROUNDING
    return Matches(len(np.unique(lesion[enough])), count - len(np.unique(detection[enough])))


def _regions(mask: Mask) -> tuple[npt.NDArray[np.int32], int]:
    """Number of what is connected at each pixel, or 0, and how many there are."""
    if len(mask) > 1:
        numbers, count = ndimage.label(mask, _TOUCHING)
        return numbers, count
    of_image = lesion_numbers(mask[0])  # several times as fast
    return of_image[None], int(of_image.max())


def curve_thresholds(free: FloatArray, highest: FloatArray) -> FloatArray:
    """Thresholds at which a curve is drawn: pixels above each are fewer than ``LIMIT``.

    Args:
        free: Lesion-free scores, or a sample of them.
        highest: The highest lesion-free score of each stack.

    Returns:
        Scores, ascending, each to be exceeded: all, or, where there are more than 96 different
        ones, some in steps of equal ratios of the pixels above them.
    """
    ascending = np.sort(free)
    levels = np.unique(ascending)
    if len(levels) > _MOST:
        above = np.geomspace(1, LIMIT * len(free), _MOST - _HIGHEST).astype(np.int64)
        places = np.linspace(0, len(highest) - 1, _HIGHEST).astype(np.int64)
        levels = np.unique(np.concatenate([ascending[-above], np.sort(highest)[places]]))
    exceeding = len(free) - np.searchsorted(ascending, levels, side="right")
    return levels[exceeding <= LIMIT * len(free)]
