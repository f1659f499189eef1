"""Which row is the best of its test set and K, where the intervals support that there is one."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from anomalib_medclip.compare.store import Record
from anomalib_medclip.metrics import compare_by_patient, mean_interval
from anomalib_medclip.metrics.intervals import auroc, average_precision
from anomalib_medclip.report.rows import METRICS, Row
from anomalib_medclip.report.runs import Run, by_draw, runs_of

STATISTICS = {"image_AUROC": auroc, "image_AP": average_precision}
"""Metrics whose interval over patients can be had from the scores of the images."""

LESS_IS_BETTER = frozenset({"image_ECE"})


_SAME = 1e-6
"""Figures of draws that differ by less are one figure: the draw changes nothing, and t intervals
would say that it is certain."""


def vary(values: Sequence[float]) -> bool:
    """Whether draws differ, so that they say how sure their mean is."""
    return len(values) > 1 and max(values) - min(values) > _SAME


def first_draw(runs: Sequence[Run]) -> list[Run]:
    """The seeds of the first draw, if patients of its images can be drawn instead; else none."""
    first = [run for run in runs if run.draw == min(run.draw for run in runs)]
    patients = {patient for run in first for patient in run.test["images"]["patient"]}
    return first if len(patients) > 1 and _of_same_images(first) else []


def scores_of(runs: Sequence[Run]) -> list[list[float]]:
    """Scores ``[seed][image]``."""
    return [run.test["images"]["score"] for run in runs]


def _of_same_images(runs: Sequence[Run]) -> bool:
    images = [run.test["images"] for run in runs]
    parts = ("name", "patient", "label")
    return all(one[part] == images[0][part] for one in images for part in parts)


def mark_best(rows: Sequence[Row], records: Sequence[Record]) -> list[Row]:
    """The same rows, ``best`` filled in.

    Rows of the same training set, test set and K compete, methods, baselines and trivial ones
    alike; those without K among themselves. The best mean is marked only where it beats *every*
    other row: over two or more common draws the paired t interval of the differences excludes zero;
    in a single draw, or where all draws give one difference, the bootstrap by patient does. A row
    alone is not best, and no trivial one is by calibration: where half of the images are abnormal,
    a constant score of one half is calibrated, and says nothing.
    """
    runs = [runs_of(row, records) for row in rows]
    marks: list[set[str]] = [set() for _ in rows]
    for metric in METRICS:
        rivals: dict[tuple[str, str, int | None], list[int]] = {}
        for place, row in enumerate(rows):
            if row.kind != "trivial" or metric != "image_ECE":
                setup = row.trained_on, row.tested_on, row.k_shot
                rivals.setdefault(setup, []).append(place)
        for places in rivals.values():
            winner = _winner([runs[place] for place in places], metric)
            if winner is not None:
                marks[places[winner]].add(metric)
    return [replace(row, best=frozenset(mark)) for row, mark in zip(rows, marks, strict=True)]


def _winner(rivals: Sequence[Sequence[Run]], metric: str) -> int | None:
    figures = [by_draw(runs, "honest", metric) for runs in rivals]
    places = [place for place, values in enumerate(figures) if values]
    if len(places) < 2:
        return None
    sign = -1 if metric in LESS_IS_BETTER else 1

    def merit(place: int) -> float:
        return sign * float(np.mean(list(figures[place].values())))

    best, *others = sorted(places, key=merit, reverse=True)  # the next best first: soonest decided
    beaten = (_beats(rivals[best], rivals[other], metric) for other in others)
    return best if all(beaten) else None


def _beats(first: Sequence[Run], second: Sequence[Run], metric: str) -> bool:
    one, two = (by_draw(runs, "honest", metric) for runs in (first, second))
    common = [draw for draw in one if draw in two]
    differences = [one[draw] - two[draw] for draw in common]
    if vary(differences):
        interval = mean_interval(differences)
        return interval.high < 0 if metric in LESS_IS_BETTER else interval.low > 0
    if metric in STATISTICS and common == list(one) == list(two):
        return _beats_by_patient(first_draw(first), first_draw(second), metric)
    return False


def _beats_by_patient(first: Sequence[Run], second: Sequence[Run], metric: str) -> bool:
    if not first or not second or not _of_same_images([*first, *second]):
        return False
    images = first[0].test["images"]
    compared = compare_by_patient(
        scores_of(first),
        scores_of(second),
        images["label"],
        images["patient"],
        statistic=STATISTICS[metric],
    )
    return compared.low > 0
