"""AUROC, average precision, F1, specificity and region overlap, from counts at each score.

A pixel is called abnormal where its score is at or above a threshold. Every figure is exact, with
ties as scikit-learn treats them, and takes the counts in pieces, so that their number is no matter.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from anomalib_medclip.metrics.tallies import Tally


class AtThreshold(NamedTuple):
    """A figure and the lowest score that is then called abnormal."""

    value: float
    threshold: float


def auroc(tallies: Iterable[Tally], normal: int, abnormal: int) -> float:
    """Chance that an abnormal pixel has a higher score than a normal one; a tie is half of it.

    Args:
        tallies: Counts from ``ScoreStore.tallies``.
        normal: Normal pixels in all, one or more; so is ``abnormal``.
        abnormal: Abnormal pixels in all.
    """
    # Whole numbers, so that the sum is exact: Mann and Whitney's U, doubled.
    wins = sum(int(np.dot(t.abnormal, 2 * t.below + t.equal)) for t in tallies)
    return wins / (2 * normal * abnormal)


def average_precision(tallies: Iterable[Tally], normal: int, abnormal: int) -> float:
    """Mean of the precision over abnormal pixels, in steps, as scikit-learn's; see ``auroc``."""
    total = 0.0
    for tally, found, alarms in _at_or_above(tallies, normal, abnormal):
        total += float(np.sum(tally.abnormal * (found / (found + alarms))))
    return total / abnormal


def f1_max(tallies: Iterable[Tally], normal: int, abnormal: int) -> AtThreshold:
    """Highest F1 of any threshold; of equals, the highest threshold. For numbers see ``auroc``."""
    best = AtThreshold(-1.0, float("nan"))
    for tally, found, alarms in _at_or_above(tallies, normal, abnormal):
        if len(found):
            f1 = 2 * found / (abnormal + found + alarms)
            at = len(f1) - 1 - int(np.argmax(f1[::-1]))
            if f1[at] >= best.value:
                best = AtThreshold(float(f1[at]), float(tally.scores[at]))
    return best


def specificity_at_sensitivity(
    tallies: Iterable[Tally], normal: int, abnormal: int, sensitivity: float
) -> AtThreshold:
    """Highest specificity of the thresholds with at least that sensitivity; see ``auroc``."""
    best = AtThreshold(0.0, float("nan"))
    for tally, found, _ in _at_or_above(tallies, normal, abnormal):
        enough = np.flatnonzero(found / abnormal >= sensitivity)
        if len(enough):  # specificity rises with the threshold, sensitivity falls
            at = int(enough[-1])
            best = AtThreshold(float(tally.below[at]) / normal, float(tally.scores[at]))
    return best


class Curve(NamedTuple):
    """ROC and precision-recall curves at the same thresholds, from the highest to the lowest."""

    false_positive_rate: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]
    precision: npt.NDArray[np.float64]


def curve(tallies: Iterable[Tally], normal: int, abnormal: int, steps: int) -> Curve:
    """Exact points of both curves, thinned to the first of each of ``steps`` steps of either rate.

    The first is that of no alarm, whose precision is said to be 1, the last that of alarms only.
    For numbers see ``auroc``.
    """
    everything = np.array([[1.0], [1.0], [abnormal / (normal + abnormal)]])
    nothing = np.array([[0.0], [0.0], [1.0]])
    points = [rates for _, rates in _thinned(tallies, normal, abnormal, steps)]
    return Curve(*np.concatenate([everything, *points, nothing], axis=1)[:, ::-1])


def thresholds(
    tallies: Iterable[Tally], normal: int, abnormal: int, steps: int
) -> npt.NDArray[np.float32]:
    """Scores at the points of ``curve``, ascending: between two lies a step of either rate."""
    none = np.empty(0, dtype=np.float32)
    return np.concatenate([none, *(at for at, _ in _thinned(tallies, normal, abnormal, steps))])


def region_overlap(tallies: Iterable[Tally], normal: int, limit: float) -> float:
    """Area under overlap with regions against false alarms, up to a rate of those, over that rate.

    The curve is linear where scores tie, as in MVTec AD's evaluation. The tallies' weights are
    1 / (pixels of the region x regions), so that they sum to one.

    Args:
        tallies: Weighted counts.
        normal: Normal pixels in all, one or more.
        limit: Highest rate of false alarms, in (0, 1].
    """
    area = 0.0
    for tally in tallies:
        # Each score lifts the curve by its weight, along a ramp from one rate to the next.
        start = (normal - tally.below - tally.equal) / normal
        end = (normal - tally.below) / normal
        ramp = np.clip(limit, start, end) - start
        height = np.divide(ramp, end - start, out=np.ones_like(ramp), where=tally.equal > 0)
        after = height * np.clip(limit - end, 0, None)
        area += float(np.sum(tally.abnormal * (height * ramp / 2 + after) * (start <= limit)))
    return area / limit


def _at_or_above(
    tallies: Iterable[Tally], normal: int, abnormal: int
) -> Iterator[tuple[Tally, npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Add to each tally how many abnormal and normal pixels its scores, as thresholds, find."""
    lower = 0
    for tally in tallies:
        through = np.cumsum(tally.abnormal)
        yield tally, abnormal - lower - through + tally.abnormal, normal - tally.below
        lower += int(through[-1]) if len(through) else 0


def _thinned(
    tallies: Iterable[Tally], normal: int, abnormal: int, steps: int
) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]]:
    """Scores, and ``[false positive rate, recall, precision]`` there, of the first of each step."""
    last = np.ones((2, 1))
    for tally, found, alarms in _at_or_above(tallies, normal, abnormal):
        rates = np.stack([alarms / normal, found / abnormal, found / np.maximum(found + alarms, 1)])
        at = np.floor(np.concatenate([last, rates[:2]], axis=1) * steps)
        new = np.any(np.diff(at, axis=1) != 0, axis=0)
        if new.any():
            yield tally.scores[new], rates[:, new]
            last = rates[:2, new][:, -1:]
