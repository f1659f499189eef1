"""Figures of images, volumes and patients, with counts and intervals, or the word "too few"."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from anomalib_medclip.data.batch import CLASS_NAMES
from anomalib_medclip.decisions.aggregation import Aggregation, FloatArray, Unit, units
from anomalib_medclip.decisions.decisions import Decisions, Verdict
from anomalib_medclip.decisions.reference import Level
from anomalib_medclip.errors import MetricError
from anomalib_medclip.evaluation.figures import Figures
from anomalib_medclip.evaluation.grounds import Grounds
from anomalib_medclip.metrics.clustered import (
    FEWEST_PATIENTS,
    FigureKind,
    Sample,
    clustered_interval,
)
from anomalib_medclip.metrics.influence import (
    Influence,
    of_auroc,
    of_average_precision,
    of_f1,
    of_sensitivity,
    of_specificity,
)

NO_THRESHOLD = "no threshold is known"
"""Why there is no figure at one."""


TOO_FEW = "too few patients"
"""The first words where a figure or its interval cannot be had."""


class UnitFigure(NamedTuple):
    """A figure of images, volumes or patients.

    Attributes:
        kind: What decides how it nears 0 and 1.
        influence: How patients move it.
        classes: Those of which it needs enough patients.
        at_threshold: Whether it is of what is called abnormal, and not of scores.
    """

    kind: FigureKind
    influence: Callable[..., Influence]
    classes: tuple[int, ...] = (0, 1)
    at_threshold: bool = False


UNIT_FIGURES: Mapping[str, UnitFigure] = {
    "AUROC": UnitFigure("auroc", of_auroc),
    "AP": UnitFigure("auroc", of_average_precision),
    "Sensitivity": UnitFigure("sensitivity", of_sensitivity, (1,), at_threshold=True),
    "Specificity": UnitFigure("specificity", of_specificity, (0,), at_threshold=True),
    "F1": UnitFigure("f1", of_f1, at_threshold=True),
}
"""By name, the same at each level; a level's own name comes before it, as in ``patient_AUROC``."""


@dataclass(frozen=True, kw_only=True)
class UnitScores:
    """Of each image, volume or patient tested, in one order.

    Attributes:
        patient: Whose it is, by a pseudonym.
        label: 0 normal, 1 abnormal.
        score: What ranks it.
        called: 1 where it is called abnormal; ``None`` without a threshold.
        threshold: Above which it is, around one half as all scores but those of images are;
            ``None`` where nobody knows.
        words: How often the threshold is wrong, or why there is none.
        grounds: On what is decided; ``None`` in records of former versions.
    """

    patient: tuple[str, ...]
    label: tuple[int, ...]
    score: tuple[float, ...]
    called: tuple[int, ...] | None = None
    threshold: float | None = None
    words: str = ""
    grounds: Grounds | None = None

    def influence(self, name: str) -> Influence:
        """How patients move a figure of ``UNIT_FIGURES``.

        Raises:
            MetricError: A class is missing or of one patient alone, or there is no threshold.
        """
        figure = UNIT_FIGURES[name]
        values = self.called if figure.at_threshold else self.score
        if values is None:
            raise MetricError(NO_THRESHOLD)
        return figure.influence(values, self.label, self.patient)

    @property
    def patients(self) -> tuple[int, int]:
        """How many patients have normal units, and how many have abnormal ones."""
        pairs = set(zip(self.patient, self.label, strict=True))
        return sum(label == 0 for _, label in pairs), sum(label == 1 for _, label in pairs)

    @property
    def counts(self) -> tuple[int, int]:
        """How many units are normal, and how many abnormal."""
        return self.label.count(0), self.label.count(1)


class Found(NamedTuple):
    """A figure with its 95 % interval over patients.

    Attributes:
        value: In [0, 1]; ``None`` where too few patients are known to say.
        low: Where the interval begins; ``None`` where nothing supports one.
        high: Where it ends.
        words: Why there is no value or no interval; else empty.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    words: str = ""


class ImageAnswers(NamedTuple):
    """What a test says of each image, in one order.

    Attributes:
        paths: Where they are, or what stands for it.
        patients: Whose they are, by a pseudonym; an image of unknown patient is its own.
        volumes: What they are slices of; empty for none.
        labels: 0 normal, 1 abnormal.
        scores: As a post-processor gave them.
        raw_scores: As the model gave them.
        halved: Around one half, in float64; volumes and patients are scored by these.
        called: Whether each is called abnormal; ``None`` without a threshold.
        areas: Share of each that is above the threshold of pixels; ``None`` without one.
        unknown: How many are of unknown patients.
        of_ill: Whether the volume of each has a lesion, be it in none of these images: such
            patients and volumes are no normal ones.
    """

    paths: Sequence[str]
    patients: Sequence[str]
    volumes: Sequence[str]
    labels: Sequence[int]
    scores: Sequence[float]
    raw_scores: Sequence[float]
    halved: FloatArray
    called: Sequence[int] | None
    areas: Sequence[float] | None
    unknown: int
    of_ill: Sequence[bool] = ()


def levels_of(images: ImageAnswers, decisions: Decisions | None) -> dict[Level, UnitScores]:
    """Scores of a test at each level that it has: images, volumes if there are any, patients.

    Args:
        images: What the test says of each.
        decisions: What the model knows of how to decide; without any, the default aggregation, and
            no threshold of volumes and patients.
    """
    known = Decisions() if decisions is None else decisions
    found: dict[Level, UnitScores] = {"image": _of_images(images, known)}
    if any(images.volumes):
        found["volume"] = _of_units(images, images.volumes, known, "volume")
    found["patient"] = _of_units(images, images.patients, known, "patient")
    return found


def _of_images(images: ImageAnswers, known: Decisions) -> UnitScores:
    """Images, called abnormal by their post-processor, or by another rule than the largest F1."""
    verdict, called = known.verdict("image", [0.0], [0.0]), images.called
    threshold = verdict.threshold and verdict.threshold.value
    if known.rule.aim == "f1":
        threshold = None if called is None else threshold
        words = verdict.threshold.words if verdict.threshold else ""
        words = NO_THRESHOLD if called is None else words
    else:
        called = None if threshold is None else (images.halved > threshold).tolist()
        words = _words(verdict)
    return UnitScores(
        patient=tuple(images.patients),
        label=tuple(map(int, images.labels)),
        score=tuple(map(float, images.raw_scores)),
        called=None if called is None else tuple(map(int, called)),
        threshold=threshold,
        words=words,
        grounds=Grounds.of(known, verdict),
    )


def _of_units(
    images: ImageAnswers, names: Sequence[str], known: Decisions, level: Level
) -> UnitScores:
    areas = images.areas if known.aggregation.kind == "area" else None
    answers = images.labels, images.halved, areas, images.of_ill
    found = list(units(names, images.patients, *answers))
    scores = _scores_of(found, known.aggregation)
    # A threshold depends on how many images a unit has, and not on which.
    most = np.zeros(max((len(one.scores) for one in found), default=1))
    verdict = known.verdict(level, most, most)
    threshold = verdict.threshold
    return UnitScores(
        patient=tuple(one.owner for one in found),
        label=tuple(int(one.abnormal) for one in found),
        score=scores,
        called=threshold and tuple(int(score > threshold.value) for score in scores),
        threshold=threshold and threshold.value,
        words=_words(verdict),
        grounds=Grounds.of(known, verdict),
    )


def _words(verdict: Verdict) -> str:
    """How often a threshold is wrong, or why there is none."""
    if verdict.threshold:
        return verdict.threshold.words
    why = verdict.no_label
    return why if why.startswith((TOO_FEW, NO_THRESHOLD)) else f"{NO_THRESHOLD}: {why}"


def _scores_of(found: Sequence[Unit], aggregation: Aggregation) -> tuple[float, ...]:
    """Score of each unit.

    Raises:
        MetricError: It is by area, and there is no threshold of pixels.
    """
    if aggregation.kind == "area" and any(one.areas is None for one in found):
        msg = "volumes and patients are scored by the area above the threshold of pixels, and this "
        msg += "model gives none; train it with masks, or validate it anew"
        raise MetricError(msg)
    return tuple(aggregation.of(one.scores, one.areas) for one in found)


def figures_of(level: Level, scored: UnitScores, known: Figures) -> dict[str, Found]:
    """Figures of a level by their whole name, each with its interval over patients.

    Below ``FEWEST_PATIENTS`` of a class that a figure is of, volumes and patients have no figure,
    and images no interval and no figure of 0 or 1, which would be read as certain.

    Args:
        level: Which.
        scored: Its units.
        known: Figures that were found before, of the same units, by name.
    """
    return {
        f"{level}_{name}": _figure(level, name, scored, known.get(f"{level}_{name}"))
        for name in UNIT_FIGURES
    }


def _figure(level: Level, name: str, scored: UnitScores, known: float | None) -> Found:
    figure, patients = UNIT_FIGURES[name], scored.patients
    words = _too_few(patients, figure.classes)
    if 0 in patients or (words and level != "image"):
        return Found(None, words=words or _too_few(patients, (0, 1)))
    if figure.at_threshold and scored.called is None:
        return Found(None, words=scored.words)
    influence = _influence(scored, name)
    if influence is None:
        return of_few(known, words or _too_few(patients, (0, 1)))
    value = influence.value if known is None else known
    if words:
        return of_few(value, words)
    try:
        of = clustered_interval(Sample.of([influence._replace(value=value)]), figure.kind)
    except MetricError:  # the other class is of one patient
        return of_few(value, _too_few(patients, (0, 1)))
    return Found(value, of.low, of.high)


def of_few(value: float | None, words: str, certain: Sequence[float] = (0, 1)) -> Found:
    """A figure of too few patients: without an interval, and none where it would seem certain.

    >>> of_few(0.9, "too few patients").value, of_few(1.0, "too few patients").value
    (0.9, None)
    """
    return Found(None if value in certain else value, words=words)


def _influence(scored: UnitScores, name: str) -> Influence | None:
    try:
        return scored.influence(name)
    except MetricError:  # a class is of one patient, whom average precision cannot leave out
        return None


def _too_few(patients: tuple[int, int], classes: tuple[int, ...]) -> str:
    """What is said where patients of these classes are too few; empty where they are not.

    >>> _too_few((2, 9), (0, 1))
    'too few patients: 2 normal and 9 abnormal, and 5 of each are needed'
    """
    if min(patients[one] for one in classes) >= FEWEST_PATIENTS:
        return ""
    have = " and ".join(f"{patients[one]} {CLASS_NAMES[one]}" for one in classes)
    needed = f"{FEWEST_PATIENTS} of each" if len(classes) > 1 else f"{FEWEST_PATIENTS}"
    return f"{TOO_FEW}: {have}, and {needed} are needed"
