"""Who runs the cells: this process, several, a Ray cluster, one share of a job array.

There is no scheduler. Whoever works takes a cell that has no record and that nobody holds, holds it
by a lock of the system, and writes its record; a lock whose holder has died is free.
"""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.context import SpawnProcess
from queue import Empty
from typing import Any, NamedTuple, Protocol

from anomalib_medclip.compare.cell import Settings, attempt, died
from anomalib_medclip.compare.grid import Cell
from anomalib_medclip.compare.store import Store
from anomalib_medclip.errors import RuntimeMissingError

_LIVES = 2
"""How often a cell may take its process with it before that is its record."""


class Watch(Protocol):
    """Whoever wants to know how it goes."""

    def started(self, cell: Cell) -> None:
        """A cell is being run."""

    def ended(self, cell: Cell, status: str) -> None:
        """A cell has been run: ``done`` or ``failed``."""


class Work(NamedTuple):
    """What is to be done.

    Attributes:
        cells: The cells of the grid.
        store: Where records go.
        settings: How cells are run.
        since: When the work began, in ISO format; failures before that are tried again.
    """

    cells: Sequence[Cell]
    store: Store
    settings: Settings
    since: str

    def status(self, cell: Cell) -> str:
        """``done``, ``failed`` or, if it is to be run, nothing."""
        record = self.store.record(cell.key)
        if record is None:
            return ""
        old = record["status"] == "failed" and record["measured"]["started"] < self.since
        return "" if old else str(record["status"])


def run_here(work: Work, watch: Watch) -> None:
    """Run cells one after another, in this process."""
    for cell in work.cells:
        if work.status(cell):
            continue
        lock = work.store.claim(cell.key)
        if lock is None:  # somebody else is at it
            continue
        with lock:
            if work.status(cell):
                continue
            watch.started(cell)
            record, arrays = attempt(cell, work.settings)
            work.store.write(cell.key, record, arrays)
            watch.ended(cell, record["status"])


class _Announce:
    """Tells the parent process how it goes."""

    def __init__(self, words: Any) -> None:  # noqa: ANN401 - a queue of multiprocessing
        self._words = words

    def started(self, cell: Cell) -> None:
        """Say so."""
        self._words.put((multiprocessing.current_process().name, cell.key, "started"))

    def ended(self, cell: Cell, status: str) -> None:
        """Say so."""
        self._words.put((multiprocessing.current_process().name, cell.key, status))


def run_in_processes(work: Work, watch: Watch, jobs: int) -> None:
    """Run cells in several processes; one that dies is replaced, and its cell tried once more."""
    context = multiprocessing.get_context("spawn")
    words = context.Queue()
    cells = {cell.key: cell for cell in work.cells}
    running: dict[str, str] = {}
    deaths: dict[str, int] = {}

    def listen() -> None:
        for name, key, word in _heard(words):
            if word == "started":
                running[name] = key
                watch.started(cells[key])
            else:
                running.pop(name, None)
                watch.ended(cells[key], word)

    def start(number: int) -> SpawnProcess:
        # Each begins elsewhere in the list, so that they seldom want the same cell.
        turned = work._replace(cells=rotated(work.cells, number, jobs))
        process = context.Process(target=run_here, args=(turned, _Announce(words)))
        process.start()
        return process

    workers = {number: start(number) for number in range(min(jobs, len(work.cells)))}
    while workers:
        listen()
        for number, process in list(workers.items()):
            if process.is_alive():
                continue
            process.join()
            listen()
            del workers[number]
            if process.exitcode:
                _bury(work, watch, cells.get(running.pop(process.name, "")), deaths, process)
                workers[number] = start(number)


def _bury(
    work: Work, watch: Watch, cell: Cell | None, deaths: dict[str, int], process: SpawnProcess
) -> None:
    """Record a cell whose process died once too often."""
    how = f"the process that ran it ended with code {process.exitcode}"
    if cell is None:
        msg = f"{how} before it ran any cell; run with one job to see why"
        raise RuntimeError(msg)
    deaths[cell.key] = deaths.get(cell.key, 0) + 1
    if deaths[cell.key] >= _LIVES:
        work.store.write(cell.key, died(cell, how))
        watch.ended(cell, "failed")


def _heard(words: Any) -> Iterator[tuple[str, str, str]]:  # noqa: ANN401 - a queue
    try:
        yield words.get(timeout=0.5)
        while True:
            yield words.get_nowait()
    except Empty:
        return


def rotated(cells: Sequence[Cell], number: int, of: int) -> list[Cell]:
    """All cells, those of one share first: whoever is done with his own helps the others.

    Args:
        cells: The cells.
        number: Which share, from 0.
        of: How many shares there are.
    """
    start = len(cells) * number // of
    return [*cells[start:], *cells[:start]]


def run_on_ray(work: Work, watch: Watch, address: str | None, jobs: int | None) -> None:
    """Run cells on a Ray cluster; a cell whose worker dies is run again by another.

    Records come back to this process, so the nodes need see the images and weights only.

    Args:
        work: What is to be done.
        watch: Who wants to know.
        address: Of the cluster; by default Ray's own choice, else a local one.
        jobs: Processors of a local cluster, one a cell.

    Raises:
        RuntimeMissingError: Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        msg = 'Ray is not installed; pip install "anomalib-medclip[ray]", or use --runner local'
        raise RuntimeMissingError(msg) from error
    options = {"address": address} if address else {"num_cpus": jobs}
    ray.init(**options, log_to_driver=False, include_dashboard=False, ignore_reinit_error=True)
    try:
        gpus = 1 if work.settings.accelerator == "gpu" else 0
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=_LIVES)(attempt)
        todo = [cell for cell in work.cells if not work.status(cell)]
        waiting = {task.remote(cell, work.settings): cell for cell in todo}
        for cell in todo:
            watch.started(cell)
        while waiting:
            for done in ray.wait(list(waiting))[0]:
                cell = waiting.pop(done)
                record, arrays = _fetched(lambda done=done: ray.get(done), cell, ray)
                work.store.write(cell.key, record, arrays)
                watch.ended(cell, record["status"])
    finally:
        ray.shutdown()


def _fetched(get: Callable[[], Any], cell: Cell, ray: Any) -> Any:  # noqa: ANN401 - Ray's module
    try:
        return get()
    except ray.exceptions.RayError as error:
        return died(cell, f"its Ray workers died {1 + _LIVES} times: {error}"), {}


def now() -> str:
    """The time, as records have it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
