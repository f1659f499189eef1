"""How far a command is: files read; of a comparison, cells done, failed and running."""

import sys
import time
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    track,
)

if TYPE_CHECKING:  # others that show how far they are need no comparison
    from anomalib_medclip.compare.grid import Cell


_MINUTE = 60


def reading(items: Iterable[Any], count: int) -> Iterable[Any]:
    """Pass on so many items, and show how many there were, until all were."""
    return track(items, "reading", count, console=Console(stderr=True), transient=True)


class Screen:
    """A live view on a terminal; elsewhere a line for each cell that has ended.

    Args:
        total: Number of cells.
        done: How many have their record already.
    """

    def __init__(self, total: int, done: int) -> None:
        # Its own hold of the stream: while a cell runs, what writes to the error stream is kept.
        self._console = Console(file=sys.stderr)
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
        times = (
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        live = self._console.is_terminal
        self._progress = Progress(*columns, *times, console=self._console, disable=not live)
        self._all = self._progress.add_task("cells", total=total, completed=done)
        self._running: dict[str, tuple[TaskID, float]] = {}
        self._total, self._ended, self.failed = total, done, 0
        self._run, self._begun = 0, time.monotonic()

    def __enter__(self) -> "Screen":
        """Begin to show."""
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop showing."""
        self._progress.stop()

    def started(self, cell: "Cell") -> None:
        """A cell is being run."""
        if cell.key not in self._running:
            task = self._progress.add_task(f"  {cell_in_words(cell)}", total=None)
            self._running[cell.key] = task, time.monotonic()

    def ended(self, cell: "Cell", status: str) -> None:
        """A cell has been run."""
        task, begun = self._running.pop(cell.key, (None, time.monotonic()))
        if task is not None:
            self._progress.remove_task(task)
        self._ended += 1
        self._run += 1
        self.failed += status == "failed"
        words = f"cells ({self.failed} failed)" if self.failed else "cells"
        self._progress.update(self._all, completed=self._ended, description=words)
        if not self._console.is_terminal or status == "failed":
            taken = f"{time.monotonic() - begun:.1f} s{self._left()}"
            self._progress.console.print(
                f"{self._ended}/{self._total} {cell_in_words(cell)}: {status}, {taken}",
                highlight=False,
            )

    def _left(self) -> str:
        """How many cells are left, and about how long they take, in words; nothing after the last.

        Cells that run side by side count as they end, so that their number needs not be known.
        """
        left = self._total - self._ended
        seconds = (time.monotonic() - self._begun) / self._run * left
        return f"; {left} left, about {duration(seconds)}" if left else ""


def duration(seconds: float) -> str:
    """A time in words, as exact as an expected one can be.

    >>> duration(41.3), duration(600), duration(9000)
    ('41 s', '10 min', '2 h 30 min')
    """
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    minutes = round(seconds / _MINUTE)
    hours, rest = divmod(minutes, _MINUTE)
    return f"{hours} h {rest} min" if hours else f"{minutes} min"


def cell_in_words(cell: "Cell") -> str:
    """A cell in words."""
    given = "zero-shot" if cell.k_shot is None else f"K {cell.k_shot}"
    normals = "all normal images" if cell.normals == "train" else given
    return f"{cell.model} on {cell.data}, {normals}, draw {cell.draw}, seed {cell.seed}"
