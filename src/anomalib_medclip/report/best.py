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


def is_one_draw(runs: Sequence[Run]) -> bool:
    """Whether patients can be drawn in place of supports: one cell, patients to choose from."""
    return len(runs) == 1 and len(set(runs[0].test["images"]["patient"])) > 1


def mark_best(rows: Sequence[Row], records: Sequence[Record]) -> list[Row]:
    """The same rows, ``best`` filled in.

    Rows of the same test set and K compete, methods, baselines and trivial ones alike; those
    without K among themselves. The best mean is marked only where it beats *every* other row: over
    two or more common draws the paired t interval of the differences excludes zero, in a single
    draw the bootstrap by patient does. A row alone is not best.
    """
    runs = [runs_of(row, records) for row in rows]
    rivals: dict[tuple[str, int | None], list[int]] = {}
    for place, row in enumerate(rows):
        rivals.setdefault((row.tested_on, row.k_shot), []).append(place)
    marks: list[set[str]] = [set() for _ in rows]
    for places in rivals.values():
        for metric in METRICS:
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
    best = max(places, key=lambda place: sign * float(np.mean(list(figures[place].values()))))
    others = [rivals[place] for place in places if place != best]
    return best if all(_beats(rivals[best], other, metric) for other in others) else None


def _beats(first: Sequence[Run], second: Sequence[Run], metric: str) -> bool:
    one, two = (by_draw(runs, "honest", metric) for runs in (first, second))
    common = [draw for draw in one if draw in two]
    if len(common) > 1:
        interval = mean_interval([one[draw] - two[draw] for draw in common])
        return interval.high < 0 if metric in LESS_IS_BETTER else interval.low > 0
    if metric in STATISTICS and common and is_one_draw(first) and is_one_draw(second):
        return _beats_by_patient(first[0], second[0], metric)
    return False


def _beats_by_patient(first: Run, second: Run, metric: str) -> bool:
    one, two = first.test["images"], second.test["images"]
    if any(one[part] != two[part] for part in ("name", "patient", "label")):
        return False
    compared = compare_by_patient(
        one["score"], two["score"], one["label"], one["patient"], statistic=STATISTICS[metric]
    )
    return compared.low > 0
