"""Lesions that were hit or missed, and detections that find none: of one image, pixel by pixel."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from anomalib_medclip.readers.picture import lesion_numbers

BoolImage = Bool[np.ndarray, "row column"]


class LesionVerdicts(NamedTuple):
    """Lesions and detections by what became of them, as the lesion figures count them.

    What touches, at a corner even, is one; a lesion is hit if one pixel of it is called abnormal.

    Attributes:
        hit, missed: Pixels of the lesions of each kind.
        hitting, alarms: Pixels of the detections that hit a lesion, and of those that hit none.
        hits, misses, false_alarms: How many lesions, lesions and detections these are.
    """

    hit: BoolImage
    missed: BoolImage
    hitting: BoolImage
    alarms: BoolImage
    hits: int
    misses: int
    false_alarms: int

    @property
    def words(self) -> str:
        """What became of them, in words; empty where there are none.

        >>> nothing = np.zeros((1, 1), bool)
        >>> LesionVerdicts(nothing, nothing, nothing, nothing, 1, 1, 2).words
        '1 of 2 lesions hit, 2 false alarms'
        """
        lesions = self.hits + self.misses
        said = []
        if lesions:
            said.append(f"{self.hits} of {lesions} lesion{'s' * (lesions > 1)} hit")
        if self.false_alarms:
            said.append(f"{self.false_alarms} false alarm{'s' * (self.false_alarms > 1)}")
        return ", ".join(said)


def verdicts(truth: BoolImage, called: BoolImage) -> LesionVerdicts:
    """What became of each lesion of a mask, and of each detection.

    Args:
        truth: Where lesions are.
        called: Which pixels are called abnormal.
    """
    hit, hits, misses = _parts_on(truth, called)
    hitting, _, false_alarms = _parts_on(called, truth)
    return LesionVerdicts(hit, truth & ~hit, hitting, called & ~hitting, hits, misses, false_alarms)


def _parts_on(mask: BoolImage, other: BoolImage) -> tuple[BoolImage, int, int]:
    """Parts of a mask that share a pixel with another; how many these are, and how many not."""
    numbers = lesion_numbers(mask)
    shared = np.unique(numbers[mask & other])
    return np.isin(numbers, shared) & mask, len(shared), int(numbers.max()) - len(shared)
