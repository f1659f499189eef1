"""What the records hold for a row: the finished cells behind it, draw by draw."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from anomalib_medclip.compare.cell_record import CellRecord, TrainingFacts
from anomalib_medclip.compare.dataset_result import DatasetResult
from anomalib_medclip.report.rows import ReportRow


class CellRun(NamedTuple):
    """A finished cell on one of its test sets: its record, and what that says of this set."""

    record: CellRecord
    facts: TrainingFacts
    test: DatasetResult

    @property
    def draw(self) -> int:
        """Number of the draw of its support."""
        return self.record.cell.draw


def runs_on(test: str, records: Sequence[CellRecord]) -> list[CellRun]:
    """Every finished cell that was tested on this set."""
    return [
        CellRun(record, record.facts, tested)
        for record in records
        if record.facts is not None
        for tested in record.tests
        if tested.data == test
    ]


def runs_of(row: ReportRow, records: Sequence[CellRecord]) -> list[CellRun]:
    """The finished cells behind a row."""
    return runs_on(row.tested_on, [record for record in records if record.key in row.keys])


def by_draw(runs: Sequence[CellRun], protocol: str, metric: str) -> dict[int, float]:
    """A figure of each draw, in their order: the mean over its seeds.

    Draws are independent, seeds of one draw are not. A figure that is undefined is no zero: a draw
    without one is absent.

    Args:
        runs: Finished cells of one row.
        protocol: ``honest``, ``oracle`` or ``gap``, oracle less honest of the same cell.
        metric: One of ``columns.METRICS``.
    """
    found: dict[int, list[float]] = {}
    for run in runs:
        value = _figure(run.test, protocol, metric)
        if value is not None:
            found.setdefault(run.draw, []).append(value)
    return {draw: float(np.mean(found[draw])) for draw in sorted(found)}


def _figure(test: DatasetResult, protocol: str, metric: str) -> float | None:
    honest, oracle = test.honest.get(metric), test.oracle.get(metric)
    gap = None if oracle is None or honest is None else oracle - honest
    return {"honest": honest, "oracle": oracle, "gap": gap}[protocol]
