"""What the records say of how sure a figure is: its draws, and how each patient moves it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from anomalib_medclip.compare.store import AT_THRESHOLD, Record
from anomalib_medclip.components.threshold import FAIR_RATE, LEARNT_FROM, learnt_from
from anomalib_medclip.errors import MetricError
from anomalib_medclip.metrics.clustered import (
    FEWEST_DRAWS,
    FEWEST_PATIENTS,
    FigureKind,
    Sample,
    clustered_interval,
)
from anomalib_medclip.metrics.influence import (
    Influence,
    averaged,
    of_auroc,
    of_average_precision,
    of_f1,
    of_sensitivity,
    of_specificity,
)
from anomalib_medclip.report.rows import Estimate
from anomalib_medclip.report.runs import Run


class _Figure(NamedTuple):
    """A figure of images: what decides how it nears 0 and 1, and how patients move it."""

    kind: FigureKind
    influence: Callable[..., Influence]


_OF_IMAGES: Mapping[str, _Figure] = {
    "image_AUROC": _Figure("auroc", of_auroc),
    "image_AP": _Figure("auroc", of_average_precision),
    "image_Sensitivity": _Figure("sensitivity", of_sensitivity),
    "image_Specificity": _Figure("specificity", of_specificity),
    "image_F1": _Figure("f1", of_f1),
}

Samples = Mapping[str, Sample]
"""Of a row, by metric: the honest figures that have an interval."""


def samples_of(runs: Sequence[Run], metrics: Sequence[str]) -> dict[str, Sample]:
    """Draws and influences of the honest figures of a row, the seeds of a draw averaged.

    A figure is absent where an interval cannot be had: where it is undefined, where the records
    hold nothing of patients, or where a class is of one patient alone.
    """
    found = {metric: _sample(runs, metric) for metric in metrics}
    return {metric: sample for metric, sample in found.items() if sample is not None}


def estimate(metric: str, values: Sequence[float], sample: Sample | None) -> Estimate:
    """Mean over draws, with its interval where the sample gives one."""
    mean = sum(values) / len(values)
    if sample is None:
        return Estimate(mean, None, None, tuple(values))
    found = clustered_interval(sample, _kind(metric))
    source = "patients and draws" if len(values) > 1 else "patients"
    return Estimate(mean, found.low, found.high, tuple(values), source)


def caveats(runs: Sequence[Run], samples: Samples, zero_shot: bool) -> list[str]:
    """What has to be said with the intervals of a row, in sentences."""
    if not runs:
        return []
    return [
        sentence
        for sentence, holds in (
            ("No interval: the records hold nothing of how patients move the figures.",
             not any(_patients(run) for run in runs)),
            ("No interval of image AUROC: a class is of one patient, or seeds differ in images.",
             all(_patients(run) for run in runs) and "image_AUROC" not in samples),
            *_of_draws(runs, zero_shot),
            (f"Fewer than {FEWEST_PATIENTS} patients of a class: too few to compare.",
             any(one.fewest_patients < FEWEST_PATIENTS for one in samples.values())),
            ("No patient identity of some images or all: these were taken for independent.",
             any((_patients(run) or {}).get("unknown") for run in runs)),
            ("No finite threshold: sensitivity, specificity and F1 at it are absent.",
             any(run.test["images"].get("called", ()) is None for run in runs)),
            *_of_thresholds([run.record for run in runs]),
        )
        if holds
    ]  # fmt: skip


def _of_thresholds(records: Sequence[Record]) -> list[tuple[str, bool]]:
    """Where thresholds are from, where they are off, or do badly where they were chosen."""
    sources = dict.fromkeys(map(_threshold_from, records))
    rates = [r for record in records for r in record["facts"].get("threshold_rates", {}).values()]
    return [
        *((f"Threshold from {text}.", text.startswith(LEARNT_FROM)) for text in sources),
        ("The threshold's own sensitivity or specificity, on the images it was chosen on, is below "
         "one half.", any(rate is not None and rate < FAIR_RATE for rate in rates)),
    ]  # fmt: skip


def _threshold_from(record: Record) -> str:
    """As the record says; one of 0.1.0 says ``support`` of what models had learnt from."""
    said: str = record["facts"]["threshold_from"]
    if said == "support" and record["cell"]["kind"] != "trivial":
        return learnt_from(record["facts"]["learns_abnormal"])
    return said


def _of_draws(runs: Sequence[Run], zero_shot: bool) -> list[tuple[str, bool]]:
    draws = len({run.draw for run in runs})
    drawn = not zero_shot and runs[0].record["cell"]["normals"] != "train"
    return [
        ("One draw: for this one support only, nothing is known of others.", draws == 1 and drawn),
        ("Few draws: too sure if supports differ.", 1 < draws < FEWEST_DRAWS),
    ]


def count_patients(runs: Sequence[Run]) -> int:
    """Patients tested, in the draw with the fewest; 0 where the records do not say."""
    return min((len((_patients(run) or {}).get("known_as", ())) for run in runs), default=0)


def _patients(run: Run) -> dict[str, Any] | None:
    """Who the patients are, in a way that is the same in all draws."""
    found: dict[str, Any] | None = run.test.get("patients")
    return found


def _sample(runs: Sequence[Run], metric: str) -> Sample | None:
    by_draw: dict[int, list[Influence]] = {}
    for run in runs:
        value = run.test["honest"].get(metric)
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
        clustered_interval(sample, _kind(metric))
    except MetricError:  # no draw has it, seeds differ in their images, patients are too few
        return None
    return sample


def _influence(run: Run, metric: str) -> Influence | None:
    """How patients move a figure of one cell; nothing where the record does not say.

    Raises:
        MetricError: Patients are too few.
    """
    images, known = run.test["images"], _patients(run)
    if known is None:
        return None
    owners = [known["known_as"][number] for number in images["patient"]]
    if metric not in _OF_IMAGES:
        plain = run.test.get("influence", {}).get(metric)
        return Influence.of_plain(plain) if plain else None
    scores = images.get("raw_score", images["score"])
    values = images.get("called") if metric in AT_THRESHOLD else scores
    return _OF_IMAGES[metric].influence(values, images["label"], owners) if values else None


def _kind(metric: str) -> FigureKind:
    return _OF_IMAGES[metric].kind if metric in _OF_IMAGES else "other"
