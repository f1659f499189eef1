"""What the records hold for a row: the finished cells behind it, draw by draw."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from anomalib_medclip.compare.store import Record
from anomalib_medclip.report.rows import Row


class Run(NamedTuple):
    """A finished cell on one of its test sets: its record, and what the record says of this set."""

    record: Record
    test: dict[str, Any]

    @property
    def draw(self) -> int:
        """Number of the draw of its support."""
        draw: int = self.record["cell"]["draw"]
        return draw


def runs_on(test: str, records: Sequence[Record]) -> list[Run]:
    """Every finished cell that was tested on this set."""
    return [
        Run(record, tested)
        for record in records
        if record["status"] == "done"
        for tested in record["tests"]
        if tested["data"] == test
    ]


def runs_of(row: Row, records: Sequence[Record]) -> list[Run]:
    """The finished cells behind a row."""
    return runs_on(row.tested_on, [record for record in records if record["key"] in row.keys])


def by_draw(runs: Sequence[Run], protocol: str, metric: str) -> dict[int, float]:
    """A figure of each draw, in their order: the mean over its seeds.

    Draws are independent, seeds of one draw are not. A figure that is undefined is no zero: a draw
    without one is absent.

    Args:
        runs: Finished cells of one row.
        protocol: ``honest``, ``oracle`` or ``gap``, oracle less honest of the same cell.
        metric: One of ``METRICS``.
    """
    found: dict[int, list[float]] = {}
    for run in runs:
        value = _figure(run.test, protocol, metric)
        if value is not None:
            found.setdefault(run.draw, []).append(value)
    return {draw: float(np.mean(found[draw])) for draw in sorted(found)}


def _figure(test: Mapping[str, Any], protocol: str, metric: str) -> float | None:
    if protocol != "gap":
        value: float | None = test[protocol].get(metric)
        return value
    oracle, honest = test["oracle"].get(metric), test["honest"].get(metric)
    return None if oracle is None or honest is None else oracle - honest
