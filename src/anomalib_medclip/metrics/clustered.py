"""Intervals and comparisons over patients and draws of the support, in a closed form.

Two things are samples: the patients tested, and the support images drawn. The variance of a figure
is clustered both ways (Cameron, Gelbach and Miller 2011), the same structure as readers x cases.
``docs/intervals.md`` has the simulation that it was tried in, and where it fails.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

from anomalib_medclip.errors import MetricError
from anomalib_medclip.metrics.images import FloatArray
from anomalib_medclip.metrics.influence import Influence, strata
from anomalib_medclip.metrics.intervals import NO_VARIANCE, Interval, PairedDifference

FigureKind = Literal["auroc", "sensitivity", "specificity", "f1", "other"]
"""What decides how a figure nears 0 and 1: ``auroc`` is for AUROC and AP of images, ``other`` for
figures of pixels."""

FEWEST_DRAWS = 4
"""Draws of the support below which no method is the best."""

FEWEST_PATIENTS = 5
"""Tested patients of either class below which no method is."""

BORDER = 0.97
"""Above it, and below one less it, the logit's interval is too narrow, and a score's is used."""

_EDGE = 1e-9


class Sample(NamedTuple):
    """A figure of every draw, and how each patient moves it there.

    Attributes:
        values: ``[draw]``, in [0, 1]; of a difference in [-1, 1].
        patients: All who were tested in any draw.
        parts: ``[draw, patient, class]``, as of ``Influence``; zero where he was not tested.
        images: ``[patient, class]``: the most he had of each in any draw.
        tested: ``[draw, class]``: patients with images of the class in each draw.
    """

    values: FloatArray
    patients: tuple[Any, ...]
    parts: FloatArray
    images: npt.NDArray[np.int64]
    tested: npt.NDArray[np.int64]

    @classmethod
    def of(cls, draws: Sequence[Influence]) -> "Sample":
        """Draws on the same or other test sets; a patient's name is the same in all.

        Raises:
            MetricError: There is no draw.
        """
        if not draws:
            msg = "no draw has the figure, so that nothing is known of it; give one or more"
            raise MetricError(msg)
        patients = tuple(sorted({name for draw in draws for name in draw.patients}))
        place = {name: at for at, name in enumerate(patients)}
        parts = np.zeros((len(draws), len(patients), 2))
        images = np.zeros((len(draws), len(patients), 2), dtype=np.int64)
        for number, draw in enumerate(draws):
            rows = [place[name] for name in draw.patients]
            parts[number, rows], images[number, rows] = draw.parts, draw.images
        values = np.array([draw.value for draw in draws])
        return cls(values, patients, parts, images.max(axis=0), np.count_nonzero(images, axis=1))

    @property
    def value(self) -> float:
        """Mean over draws."""
        return float(self.values.mean())

    @property
    def fewest_patients(self) -> int:
        """Patients of the rarer class, in the draw with the fewest."""
        return int(self.tested.min())


class Spread(NamedTuple):
    """Variance of the mean of a figure over patients and draws, and its degrees of freedom."""

    variance: float
    freedom: float


def spread(sample: Sample) -> Spread:
    """Variance by patients, and what draws add to it; freedom by Satterthwaite (1946).

    What draws vary by patient x draw is in the variance by patients already and is taken off that
    of draws. Of one draw nothing is known of others, and the variance is that by patients.

    Raises:
        MetricError: In a draw a class is of one patient, or no two patients are of the same kind.
    """
    if sample.fewest_patients < 2:
        msg = "one patient of a class says nothing of others; add patients of that class"
        raise MetricError(msg)
    present = sample.images > 0
    mean = sample.parts.mean(axis=0)
    by_patient, freedom = _by_patient(mean, present), _freedom_of_patients(mean, present)
    draws = len(sample.values)
    by_draw = 0.0
    if draws > 1:
        within = sum(_by_patient(parts - mean, present) for parts in sample.parts)
        noise = within / (draws * (draws - 1))
        by_draw = max(0.0, float(np.var(sample.values, ddof=1)) / draws - noise)
    whole = by_patient + by_draw
    if whole < NO_VARIANCE:
        return Spread(0.0, math.inf)
    terms = by_patient**2 / freedom + (by_draw**2 / (draws - 1) if by_draw else 0.0)
    return Spread(whole, whole**2 / terms)


def clustered_interval(
    sample: Sample, kind: FigureKind = "auroc", confidence: float = 0.95
) -> Interval:
    """Interval of a figure in [0, 1], meant over patients and draws.

    Student's t on the logit. Near 0 and 1, and where there is no variance at all, a score interval:
    the values that the figure is not too far from, by the variance it would have there. Of AUROC
    that is Newcombe's (2006, method 5), which AP borrows; of shares Wilson's (1927); both with the
    images divided by what their likeness within patients costs (Korn and Graubard 1998). Of F1 it
    is Wilson's of F1 / (2 - F1), which is a share (Hand, Christen and Kirielle 2021); of other
    figures Wilson's of patients. Shares and F1 always have it.

    Args:
        sample: Figures of draws.
        kind: Which figure.
        confidence: How often such intervals are to hold what they promise.

    Raises:
        MetricError: A class is of one patient, or the confidence is no share.
    """
    if not 0 < confidence < 1:
        msg = f"confidence is {confidence}; give a number between 0 and 1, such as 0.95"
        raise MetricError(msg)
    found, value = spread(sample), sample.value
    if kind == "f1":
        return _of_f1(sample, found, confidence)
    inside = 1 - BORDER < value < BORDER
    if kind in ("auroc", "other") and found.variance > 0 and inside:
        step = _quantile(found, confidence) * math.sqrt(found.variance) / (value * (1 - value))
        middle = math.log(value / (1 - value))
        return Interval(value, _expit(middle - step), _expit(middle + step))
    if value < 0.5:
        mirrored = _score_interval(1 - value, sample, found, kind, confidence)
        return Interval(value, 1 - mirrored.high, 1 - mirrored.low)
    return _score_interval(value, sample, found, kind, confidence)


def difference(first: Sample, second: Sample, confidence: float = 0.95) -> PairedDifference:
    """First method less second, on the same images and the same draws, with a two-sided p-value.

    Without any variance there is no test: p is then 1, and the interval all there is, -1 to 1.

    Raises:
        MetricError: Patients, images or draws differ, or ``spread`` has too few patients.
    """
    same = first.parts.shape == second.parts.shape and first.patients == second.patients
    if not same or not np.array_equal(first.images, second.images):
        msg = "two methods are compared on the same draws, patients and images; give no others"
        raise MetricError(msg)
    gaps = first._replace(values=first.values - second.values, parts=first.parts - second.parts)
    found = spread(gaps)
    if found.variance == 0:
        return PairedDifference(gaps.value, -1.0, 1.0, 1.0)
    deviation = math.sqrt(found.variance)
    half = _quantile(found, confidence) * deviation
    p_value = 2 * float(stats.t.sf(abs(gaps.value) / deviation, found.freedom))
    return PairedDifference(gaps.value, gaps.value - half, gaps.value + half, p_value)


def clear_best(rivals: Sequence[Sample], confidence: float = 0.95) -> int | None:
    """Place of the method with the highest mean if it beats every other one, else nothing.

    Each comparison is tested by itself: all of them must say so, which needs no correction. Whether
    there are enough draws and patients is asked of ``enough``.

    Raises:
        MetricError: As of ``difference``.
    """
    if len(rivals) < 2:
        return None
    best, *others = sorted(range(len(rivals)), key=lambda at: -rivals[at].value)
    compared = (difference(rivals[best], rivals[other]) for other in others)
    beaten = all(one.difference > 0 and one.p_value < 1 - confidence for one in compared)
    return best if beaten else None


def enough(sample: Sample, fewest_draws: int = FEWEST_DRAWS) -> bool:
    """Whether there are draws and patients of either class for a method to be the best."""
    return len(sample.values) >= fewest_draws and sample.fewest_patients >= FEWEST_PATIENTS


def _by_patient(parts: FloatArray, present: npt.NDArray[np.bool_]) -> float:
    """Variance of a sum over patients, of whom some have normal, some abnormal images."""
    normal, abnormal = parts.T
    counts = [*np.count_nonzero(present, axis=0).tolist(), len(parts)]
    sums = [normal @ normal, abnormal @ abnormal, 2 * (normal @ abnormal)]
    pairs = zip(counts, sums, strict=True)
    return max(0.0, sum(count / (count - 1) * float(value) for count, value in pairs))


def _freedom_of_patients(parts: FloatArray, present: npt.NDArray[np.bool_]) -> float:
    squares = parts.sum(axis=1) ** 2
    groups = [(squares[of].sum(), np.count_nonzero(of)) for of in strata(present)]
    known = [(total, count) for total, count in groups if count > 1]
    if not known:
        msg = "no two patients have images of the same classes; add patients"
        raise MetricError(msg)
    whole = sum(total for total, _ in known)
    terms = sum(total**2 / (count - 1) for total, count in known)
    return float(whole**2 / terms) if terms > 0 else 1.0


def _quantile(found: Spread, confidence: float) -> float:
    return float(stats.t.ppf((1 + confidence) / 2, found.freedom))


def _expit(value: float) -> float:
    return float(1 / (1 + math.exp(-value)))


def _score_interval(
    value: float, sample: Sample, found: Spread, kind: FigureKind, confidence: float
) -> Interval:
    """Score interval of a figure of one half or more."""
    images = sample.images.sum(axis=0).tolist()
    patients = np.count_nonzero(sample.images, axis=0).tolist()
    if kind == "auroc":
        own = partial(_newcombe, normal=images[0], abnormal=images[1])
        return _score(value, own, found, sum(images) / len(sample.patients), True, confidence)
    if kind == "other":
        own = partial(_binomial, count=min(patients))
        return _score(value, own, found, 1.0, False, confidence)
    of = int(kind == "sensitivity")
    own = partial(_binomial, count=images[of])
    return _score(value, own, found, images[of] / patients[of], True, confidence)


def _score(
    value: float,
    own: Callable[[float], float],
    found: Spread,
    alike: float,
    at_least: bool,
    confidence: float,
) -> Interval:
    """Values that the figure is not too far from, by the variance ``own`` of independent images.

    Args:
        value: The figure.
        own: Variance of the figure if that were its true value.
        found: Its variance and freedom.
        alike: What stands for the loss by likeness where there is no variance: images a patient.
        at_least: Whether likeness can only lose.
        confidence: Of the interval.
    """
    quantile = _quantile(found, confidence)
    if found.variance == 0 or own(value) <= 0:
        loss, quantile = alike, float(stats.norm.ppf((1 + confidence) / 2))
    else:
        loss = found.variance / own(value)
        loss = max(1.0, loss) if at_least else loss

    def beyond(true: float) -> float:
        return abs(value - true) - quantile * math.sqrt(loss * max(0.0, own(true)))

    inside = min(max(value, _EDGE), 1 - _EDGE)  # a figure of 1 is a border by itself, and no end
    low = optimize.brentq(beyond, 0.0, inside) if value > 0 else 0.0
    high = optimize.brentq(beyond, inside, 1.0) if value < 1 else 1.0
    return Interval(value, float(low), float(high))


def _newcombe(true: float, normal: int, abnormal: int) -> float:
    """Variance of an AUROC by Hanley and McNeil (1982), as Newcombe's method 5 has it."""
    more = (normal + abnormal) / 2 - 1
    rest = (1 - true) / (2 - true) + true / (1 + true)
    return true * (1 - true) * (1 + more * rest) / (normal * abnormal)


def _binomial(true: float, count: float) -> float:
    return true * (1 - true) / count


def _of_f1(sample: Sample, found: Spread, confidence: float) -> Interval:
    """By F1 / (2 - F1): of the images that are abnormal or called so, the share that is both."""
    value = sample.value
    share, slope = value / (2 - value), 2 / (2 - value) ** 2
    as_share = Spread(found.variance * slope**2, found.freedom)
    images, patients = int(sample.images[:, 1].sum()), np.count_nonzero(sample.images[:, 1])
    # Abnormal or called so are as many as were found over the share, and at most all were found.
    own = partial(_binomial, count=images / share if share > 0 else images)
    low, high = _score(share, own, as_share, images / patients, True, confidence)[1:]
    return Interval(value, 2 * low / (1 + low), 2 * high / (1 + high))
