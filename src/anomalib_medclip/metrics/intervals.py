"""Textbook intervals: of the mean of independent values, by bootstrap, and DeLong's test.

Each takes one thing for a sample. Where patients and draws of the support both are, as in a
comparison, they are too narrow: see ``clustered``. Slices of a patient are alike, so what is
resampled is the patient, with all of his images.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from anomalib_medclip.errors import MetricError
from anomalib_medclip.metrics.images import FloatArray, ScoredImages, Statistic

_FEWEST = 5
"""Images of each class below which DeLong's test is refused."""

NO_VARIANCE = 1e-24
"""Variances below are rounding."""


class Interval(NamedTuple):
    """An estimate and the borders of its interval."""

    estimate: float
    low: float
    high: float


class PairedDifference(NamedTuple):
    """A difference, first method less second, its interval, and a two-sided p-value."""

    difference: float
    low: float
    high: float
    p_value: float


def mean_interval(values: Sequence[float] | FloatArray, confidence: float = 0.95) -> Interval:
    """Mean of independent values, with Student's t interval.

    Figures of several draws on the same test images are not independent: those images are a sample,
    too. Use ``clustered_interval`` for them.

    Raises:
        MetricError: Fewer than two values, or one that is not finite.

    Example:
        >>> mean_interval([1.0, 2.0, 3.0])
        Interval(estimate=2.0, low=-0.484..., high=4.484...)
    """
    sample = np.asarray(values, dtype=np.float64)
    _check_confidence(confidence)
    if sample.ndim != 1 or len(sample) < 2 or not np.isfinite(sample).all():
        msg = f"no interval from {sample.tolist()}; give two or more finite values, one a draw"
        raise MetricError(msg)
    mean = float(sample.mean())
    quantile = float(stats.t.ppf((1 + confidence) / 2, len(sample) - 1))
    half = quantile * float(sample.std(ddof=1)) / math.sqrt(len(sample))
    return Interval(mean, mean - half, mean + half)


def weighted_auroc(
    scores: FloatArray, abnormal: npt.NDArray[np.bool_], weights: FloatArray
) -> FloatArray:
    """AUROC of every draw; an image of weight two counts as two images."""
    first, order = _ties(scores)
    drawn = weights.T[order]
    ill = _sum_ties(drawn * abnormal[order, None], first)
    well = _sum_ties(drawn * ~abnormal[order, None], first)
    below = np.cumsum(well, axis=0) - well / 2
    wins: FloatArray = np.einsum("id,id->d", ill, below)
    return wins / (ill.sum(axis=0) * well.sum(axis=0))


def weighted_average_precision(
    scores: FloatArray, abnormal: npt.NDArray[np.bool_], weights: FloatArray
) -> FloatArray:
    """Average precision of every draw, in steps; see ``weighted_auroc``."""
    first, order = _ties(-scores)
    drawn = weights.T[order]
    ill = _sum_ties(drawn * abnormal[order, None], first)
    every = np.cumsum(_sum_ties(drawn, first), axis=0)
    found = np.cumsum(ill, axis=0)
    precision = np.divide(found, every, out=np.zeros_like(found), where=every > 0)
    total: FloatArray = np.einsum("id,id->d", ill, precision)
    return total / found[-1]


def bootstrap(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    patients: Sequence[Any],
    *,
    statistic: Statistic = weighted_auroc,
    draws: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Percentile interval of a figure of images, patients drawn with replacement.

    Args:
        scores: Of each image; or of each seed and image, ``(seed, image)``, whose figures are
            averaged.
        labels: 0 or 1, of each image.
        patients: Of each image, whose it is: names or numbers.
        statistic: ``weighted_auroc``, ``weighted_average_precision``, or one's own of
            that kind.
        draws: How often as many patients are drawn as there are. A draw without normal or without
            abnormal images has no figure and is drawn again.
        seed: The same seed draws the same patients, whatever the scores.
        confidence: Share of the draws inside the interval.

    Raises:
        MetricError: Lengths differ, a value is odd, a class is missing, or patients are too few.
    """
    table = ScoredImages.of(scores, labels, patients)
    _check_confidence(confidence)
    drawn = [table.figure(statistic, weights) for weights in table.weights(draws, seed)]
    found = float(table.figure(statistic, table.once)[0])
    low, high = _percentiles(np.concatenate(drawn), confidence)
    return Interval(found, low, high)


def compare_by_patient(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    labels: npt.ArrayLike,
    patients: Sequence[Any],
    *,
    statistic: Statistic = weighted_auroc,
    draws: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> PairedDifference:
    """Difference of two methods on the same images; both see the same drawn patients.

    The p-value is twice the share of draws on the other side of zero, each count plus one.
    Arguments and errors are those of ``bootstrap``; ``first`` and ``second`` are both scores.
    """
    one, two = (ScoredImages.of(scores, labels, patients) for scores in (first, second))
    _check_confidence(confidence)

    def difference(weights: FloatArray) -> FloatArray:
        return one.figure(statistic, weights) - two.figure(statistic, weights)

    drawn = np.concatenate([difference(weights) for weights in one.weights(draws, seed)])
    low, high = _percentiles(drawn, confidence)
    rarer = min(np.count_nonzero(drawn <= 0), np.count_nonzero(drawn >= 0))
    p_value = min(1.0, 2 * (int(rarer) + 1) / (draws + 1))
    return PairedDifference(float(difference(one.once)[0]), low, high, p_value)


def delong(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    labels: npt.ArrayLike,
    confidence: float = 0.95,
) -> PairedDifference:
    """Difference of two AUROCs on the same images, by DeLong, DeLong and Clarke-Pearson (1988).

    It takes images for independent: with several of a patient, use ``clustered.difference``. Where
    the variance is zero, as between a method that puts all images right and one that puts all of
    them wrong, it says nothing: p is then 1, and the interval all there is, -1 to 1.

    Raises:
        MetricError: Lengths differ, a value is odd, or a class has fewer than five images: the
            normal approximation of so few gives p near 0 where chance gives the same often.
    """
    images = np.arange(np.size(labels)).tolist()
    table = ScoredImages.of(np.stack(_same_length(first, second)), labels, images)
    _check_confidence(confidence)
    ill, well = table.scores[:, table.abnormal], table.scores[:, ~table.abnormal]
    if min(ill.shape[1], well.shape[1]) < _FEWEST:
        msg = (
            f"DeLong's test of {well.shape[1]} normal and {ill.shape[1]} abnormal images would be "
            f"too sure; add images, to {_FEWEST} of each class or more"
        )
        raise MetricError(msg)
    of_ill, of_well = placements(ill, well)
    areas = of_ill.mean(axis=1)
    gap = float(areas[0] - areas[1])
    variance = sum(np.var(p[0] - p[1], ddof=1) / p.shape[1] for p in (of_ill, of_well))
    if variance < NO_VARIANCE:
        return PairedDifference(gap, -1.0, 1.0, 1.0)
    deviation = math.sqrt(float(variance))
    half = float(stats.norm.ppf((1 + confidence) / 2)) * deviation
    p_value = 2 * float(stats.norm.sf(abs(gap) / deviation))
    return PairedDifference(gap, gap - half, gap + half, p_value)


def _ties(scores: FloatArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where each distinct score begins among the sorted, and the order that sorts them."""
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    first = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
    return first, order


def _sum_ties(values: FloatArray, first: npt.NDArray[np.int64]) -> FloatArray:
    """Sums ``[score, draw]`` over images of equal score, from ``[image, draw]`` in their order."""
    if len(first) == len(values):
        return values
    sums: FloatArray = np.add.reduceat(values, first, axis=0)
    return sums


def placements(ill: FloatArray, well: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Share of normal images below each abnormal one, and of abnormal ones above each normal."""
    return _below(ill, well), 1 - _below(well, ill)


def _below(scores: FloatArray, others: FloatArray) -> FloatArray:
    """Share of the others that lie below each score, row by row; an equal one counts half."""
    counts = [
        np.searchsorted(row, of, "left") + np.searchsorted(row, of, "right")
        for row, of in zip(np.sort(others, axis=1), scores, strict=True)
    ]
    return np.array(counts) / (2 * others.shape[1])


def _percentiles(drawn: FloatArray, confidence: float) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _same_length(first: npt.ArrayLike, second: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.ndim != 1 or one.shape != two.shape:
        msg = f"scores of shapes {one.shape} and {two.shape}; give both methods' for each image"
        raise MetricError(msg)
    return one, two


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        msg = f"confidence is {confidence}; give a number between 0 and 1, such as 0.95"
        raise MetricError(msg)
