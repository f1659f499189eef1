"""What is found in each patient of a test: at a threshold, and at every one of a curve."""

from collections import defaultdict
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from anomalib_medclip.metrics.images import FloatArray
from anomalib_medclip.metrics.lesion_matches import Lesions, curve_thresholds, matches
from anomalib_medclip.metrics.map_stacks import MapStacks, Stack

RATES = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)
"""False positives per patient at which LUNA16 takes the sensitivity."""

_SAMPLE = 1 << 21
"""Pixels, about, among which the thresholds of the curve are chosen."""

_ROUNDING = 1e-9


class Share(NamedTuple):
    """A share of all patients, and what it is without each; NaN where it is of nothing."""

    value: float
    without: FloatArray

    @classmethod
    def of(cls, over: FloatArray, under: FloatArray) -> "Share":
        """The ratio of two sums over patients."""
        return cls(float(_ratio(over.sum(), under.sum())), _ratio(_others(over), _others(under)))


class _Ranked(NamedTuple):
    """What the curve needs of a stack: how many of its thresholds each pixel exceeds."""

    patient: int
    exceeded: npt.NDArray[np.uint8]
    lesions: Lesions


class LesionCounts:
    """Lesions and detections of all stacks, counted patient by patient.

    Args:
        stacks: The maps and masks.
        overlap: Share of a lesion that one detection has to cover to find it; 0 for a pixel.
        threshold: A pixel with a higher score is called abnormal; infinity where none is known.

    Attributes:
        patients: Who was tested, in order; arrays are of them.
        lesions: How many lesions each has.
        volumes: How many volumes.
        found: How many of his lesions are found at the threshold.
        false: How many detections find none there.
    """

    def __init__(self, stacks: MapStacks, overlap: float, threshold: float) -> None:
        self.patients = stacks.owners
        self._places = {name: at for at, name in enumerate(self.patients)}
        self._overlap, self._threshold = overlap, threshold
        self.lesions, self.volumes, self.found, self.false = np.zeros((4, len(self.patients)))
        self._pixels: dict[tuple[str, str], FloatArray] = defaultdict(lambda: np.zeros(3))
        self._levels, self._has_free = _levels(stacks)
        self._stacks = [self._count(stack) for stack in stacks]
        for owner, _ in self._pixels:
            self.volumes[self._places[owner]] += 1

    def _count(self, stack: Stack) -> _Ranked:
        """Count at the threshold."""
        at, lesions = self._places[stack.owner], Lesions.of(stack.lesion)
        called = stack.scores > self._threshold
        common = np.count_nonzero(called & stack.lesion)
        pixels = np.array([common, np.count_nonzero(called), len(lesions.pixels)], np.float64)
        self._pixels[stack.owner, stack.volume] += pixels
        found, false = matches(called, lesions, self._overlap)
        self.lesions[at] += len(lesions.sizes)
        self.found[at] += found
        self.false[at] += false
        return _Ranked(at, np.searchsorted(self._levels, stack.scores).astype(np.uint8), lesions)

    def curve(self) -> dict[float, Share]:
        """Lesions found, by false positives per patient.

        Thresholds fall until, whoever is left out, there are more than the highest rate allows.
        """
        found, false = np.zeros((2, len(self._levels), len(self.patients)))
        for step, level in enumerate(reversed(range(len(self._levels)))):
            for patient, exceeded, lesions in self._stacks:
                one = matches(exceeded > level, lesions, self._overlap)
                found[step, patient] += one.found
                false[step, patient] += one.false
            if (_others(false[step]) > RATES[-1] * len(self.patients)).all():
                found, false = found[: step + 1], false[: step + 1]
                break
        return {rate: self._found_at(found, false, rate) for rate in RATES}

    def _found_at(self, found: FloatArray, false: FloatArray, rate: float) -> Share:
        """Share of lesions found, of ``[threshold, patient]``, while false ones are few enough."""
        count = len(self.patients)
        whole = _best(found.sum(axis=1), false.sum(axis=1), rate * count)
        without = _best(_others(found), _others(false), rate * (count - 1))
        there = self.lesions * self._has_free  # without, there is no false positive to be had
        return Share(float(_ratio(whole, there.sum())), _ratio(without, _others(there)))

    def dice_by_volume(self) -> dict[tuple[str, str], float]:
        """Of each volume with a lesion, by patient and volume."""
        return {
            name: float(2 * common / (called + lesion))
            for name, (common, called, lesion) in sorted(self._pixels.items())
            if lesion > 0
        }

    def dice(self) -> tuple[Share, Share, Share]:
        """Of all pixels, as the mean over volumes with a lesion, and over patients with one."""
        pixels = np.zeros((len(self.patients), 3))
        for (owner, _), of_volume in self._pixels.items():
            pixels[self._places[owner]] += of_volume
        common, called, lesion = pixels.T
        volumes, sums = np.zeros((2, len(self.patients)))
        for (owner, _), value in self.dice_by_volume().items():
            volumes[self._places[owner]] += 1
            sums[self._places[owner]] += value
        means = np.where(volumes > 0, _ratio(sums, volumes), 0)
        return (
            Share.of(2 * common, called + lesion),
            Share.of(sums, volumes),
            Share.of(means, np.sign(volumes)),
        )


def _levels(stacks: MapStacks) -> tuple[FloatArray, bool]:
    """Thresholds of the curve, ascending, and whether any pixel is lesion-free."""
    step = -(-stacks.pixels // _SAMPLE)
    some, highest = [], []
    for stack in stacks:
        free = stack.scores[np.isfinite(stack.scores) & ~stack.lesion]
        if len(free):
            some.append(free[::step])
            highest.append(free.max())
    sample = np.concatenate([*some, np.empty(0)])
    return curve_thresholds(sample, np.array(highest)), len(sample) > 0


def _best(found: FloatArray, false: FloatArray, most: float) -> FloatArray:
    """The most that is found before the first threshold with more false positives than ``most``."""
    allowed = np.logical_and.accumulate(false <= most + _ROUNDING, axis=0)
    best: FloatArray = np.max(np.where(allowed, found, 0.0), axis=0, initial=0.0)
    return best


def _others(values: FloatArray) -> FloatArray:
    """Sums over patients, the last axis, without each."""
    sums: FloatArray = values.sum(axis=-1, keepdims=True) - values
    return sums


def _ratio(over: npt.ArrayLike, under: npt.ArrayLike) -> FloatArray:
    """NaN where it is of nothing."""
    above, below = np.broadcast_arrays(np.asarray(over, np.float64), under)
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)
