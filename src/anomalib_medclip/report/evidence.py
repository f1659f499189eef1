"""What the records say of how sure a figure is: its draws, and how each patient moves it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from anomalib_medclip.components.threshold import FAIR_RATE, LEARNT_FROM, learnt_from
from anomalib_medclip.decisions.reference import LEVELS
from anomalib_medclip.errors import MetricError
from anomalib_medclip.evaluation.levels import UNIT_FIGURES, UnitScores
from anomalib_medclip.metrics.clustered import (
    FEWEST_DRAWS,
    FEWEST_PATIENTS,
    FigureKind,
    Sample,
    clustered_interval,
)
from anomalib_medclip.metrics.influence import Influence, averaged
from anomalib_medclip.metrics.intervals import Interval
from anomalib_medclip.report.rows import Estimate
from anomalib_medclip.report.runs import CellRun


class Evidence(NamedTuple):
    """An honest figure in all draws with all patients, and the interval that these give it."""

    sample: Sample
    interval: Interval


Samples = Mapping[str, Evidence]
"""Of a row, by metric: the honest figures that have an interval."""


def samples_of(runs: Sequence[CellRun], metrics: Sequence[str]) -> dict[str, Evidence]:
    """Draws and influences of the honest figures of a row, the seeds of a draw averaged.

    A figure is absent where an interval cannot be had: where it is undefined, where the records
    hold nothing of patients, or where a class is of one patient alone.
    """
    found = {metric: _evidence(runs, metric) for metric in metrics}
    return {metric: evidence for metric, evidence in found.items() if evidence is not None}


def estimate(values: Sequence[float], evidence: Evidence | None) -> Estimate:
    """Mean over draws, with its interval where there is one."""
    mean = sum(values) / len(values)
    if evidence is None:
        return Estimate(mean, None, None, tuple(values))
    source = "patients and draws" if len(values) > 1 else "patients"
    interval, patients = evidence.interval, len(evidence.sample.patients)
    return Estimate(mean, interval.low, interval.high, tuple(values), source, patients)


def caveats(runs: Sequence[CellRun], samples: Samples, zero_shot: bool) -> list[str]:
    """What has to be said with the intervals of a row, in sentences."""
    if not runs:
        return []
    return [
        sentence
        for sentence, holds in (
            ("No interval: the records hold nothing of how patients move the figures.",
             not any(run.test.patients for run in runs)),
            ("No interval of image AUROC: a class is of one patient, or seeds differ in images.",
             all(run.test.patients for run in runs) and "image_AUROC" not in samples),
            *_of_draws(runs, zero_shot),
            (f"Fewer than {FEWEST_PATIENTS} patients of a class: too few to compare.",
             any(one.sample.fewest_patients < FEWEST_PATIENTS for one in samples.values())),
            ("Too few patients of a class were tested for figures of patients or volumes.",
             any(run.test.levels and run.test.honest.get("patient_AUROC") is None for run in runs)),
            ("No patient identity of some images or all: these were taken for independent.",
             any(run.test.patients and run.test.patients.unknown for run in runs)),
            ("No finite threshold: sensitivity, specificity and F1 at it are absent.",
             any(run.test.images.called is None for run in runs)),
            *_of_thresholds(runs),
        )
        if holds
    ]  # fmt: skip


def _of_thresholds(runs: Sequence[CellRun]) -> list[tuple[str, bool]]:
    """Where thresholds are from, where they are off, or do badly where they were chosen."""
    sources = dict.fromkeys(map(_threshold_from, runs))
    rates = [rate for run in runs for rate in (run.facts.threshold_rates or {}).values()]
    return [
        *((f"Threshold from {text}.", text.startswith(LEARNT_FROM)) for text in sources),
        ("The threshold's own sensitivity or specificity, on the images it was chosen on, is below "
         "one half.", any(rate is not None and rate < FAIR_RATE for rate in rates)),
    ]  # fmt: skip


def _threshold_from(run: CellRun) -> str:
    """As the record says; one of 0.1.0 says ``support`` of what models had learnt from."""
    said = run.facts.threshold_from
    if said == "support" and run.record.cell.kind != "trivial":
        return learnt_from(bool(run.facts.learns_abnormal))
    return said


def _of_draws(runs: Sequence[CellRun], zero_shot: bool) -> list[tuple[str, bool]]:
    draws = len({run.draw for run in runs})
    drawn = not zero_shot and runs[0].record.cell.normals != "train"
    return [
        ("One draw: for this one support only, nothing is known of others.", draws == 1 and drawn),
        ("Few draws: too sure if supports differ.", 1 < draws < FEWEST_DRAWS),
    ]


def count_patients(runs: Sequence[CellRun]) -> int:
    """Patients tested, in the draw with the fewest; 0 where the records do not say."""
    known = (run.test.patients for run in runs)
    return min((len(one.known_as) if one else 0 for one in known), default=0)


def _evidence(runs: Sequence[CellRun], metric: str) -> Evidence | None:
    by_draw: dict[int, list[Influence]] = {}
    for run in runs:
        value = run.test.honest.get(metric)
        if value is not None:
            try:
                found = _influence(run, metric)
            except MetricError:
                return None
            if found is None:
                return None
            by_draw.setdefault(run.draw, []).append(found._replace(value=value))
    try:
        sample = Sample.of([averaged(by_draw[draw]) for draw in sorted(by_draw)])
        return Evidence(sample, clustered_interval(sample, _kind(metric)))
    except MetricError:  # no draw has it, seeds differ in their images, patients are too few
        return None


def _influence(run: CellRun, metric: str) -> Influence | None:
    """How patients move a figure of one cell; nothing where the record does not say.

    Raises:
        MetricError: Patients are too few.
    """
    level, _, name = metric.rpartition("_")
    if level in LEVELS:
        if name not in UNIT_FIGURES:
            return None
        scored = _scored(run, level)
        return None if scored is None else scored.influence(name)
    kept = run.test.influence.get(metric)
    return kept.as_influence() if kept else None


def _scored(run: CellRun, level: str) -> UnitScores | None:
    """Scores of a level; nothing where the record does not say whose they are."""
    if level != "image":
        return run.test.levels.get(level)
    images, known = run.test.images, run.test.patients
    if known is None:
        return None
    return UnitScores(
        patient=tuple(known.known_as[number] for number in images.patient),
        label=images.label,
        score=images.ranked_by,
        called=images.called or None,
    )


def _kind(metric: str) -> FigureKind:
    level, _, name = metric.rpartition("_")
    return UNIT_FIGURES[name].kind if level in LEVELS else "other"
