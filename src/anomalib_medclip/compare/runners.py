"""Who runs the cells: this process, several, a Ray cluster, one share of a job array.

There is no scheduler. Whoever works takes a cell that has no record and that nobody holds, holds it
by a lock of the system, and writes its record; a lock whose holder has died is free.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from anomalib_medclip.compare.cell_setup import CellSettings
from anomalib_medclip.compare.grid import Cell
from anomalib_medclip.compare.run_cell import attempt, died
from anomalib_medclip.compare.store import Store
from anomalib_medclip.errors import RuntimeMissingError
from anomalib_medclip.signals import stop_if_told, watch_again

LIVES = 2
"""How often a cell may take its process with it before that is its record."""


class Watch(Protocol):
    """Whoever wants to know how it goes."""

    def started(self, cell: Cell) -> None:
        """A cell is being run."""

    def ended(self, cell: Cell, status: str) -> None:
        """A cell has been run: ``done`` or ``failed``."""


class CellQueue(NamedTuple):
    """What is to be done.

    Attributes:
        cells: The cells of the grid.
        store: Where records go.
        settings: How cells are run.
        since: When the work began, in ISO format; failures before that are tried again.
    """

    cells: Sequence[Cell]
    store: Store
    settings: CellSettings
    since: str

    def status(self, cell: Cell) -> str:
        """``done``, ``failed`` or, if it is to be run, nothing."""
        record = self.store.record(cell.key)
        if record is None:
            return ""
        old = record.status == "failed" and record.measured.started < self.since
        return "" if old else record.status


def run_here(work: CellQueue, watch: Watch, *, wait: bool = True) -> None:
    """Run cells one after another, in this process.

    Args:
        work: What is to be done.
        watch: Who wants to know.
        wait: Whether to wait for cells that others work on, and to run those that they leave.
    """
    held = [cell for cell in work.cells if not _taken(work, watch, cell, wait=False)]
    for cell in held if wait else ():
        _taken(work, watch, cell, wait=True)


def _taken(work: CellQueue, watch: Watch, cell: Cell, *, wait: bool) -> bool:
    """Run a cell that has no record; false if somebody else is at it."""
    if work.status(cell):
        return True
    lock = work.store.claim(cell.key, wait=wait)
    if lock is None:
        return False
    with lock:
        if not work.status(cell):
            watch.started(cell)
            record, arrays = attempt(cell, work.settings)
            stop_if_told()  # what has failed may have failed for that
            work.store.write(cell.key, record, arrays)
            watch.ended(cell, record.status)
    return True


def rotated(cells: Sequence[Cell], number: int, of: int) -> list[Cell]:
    """All cells, those of one share first: whoever is done with his own helps the others.

    Args:
        cells: The cells.
        number: Which share, from 0.
        of: How many shares there are.
    """
    start = len(cells) * number // of
    return [*cells[start:], *cells[:start]]


def run_on_ray(work: CellQueue, watch: Watch, address: str | None, jobs: int | None) -> None:
    """Run cells on a Ray cluster; a cell whose worker dies is run again by another.

    Records come back to this process, so the nodes need see the images and weights only.

    Args:
        work: What is to be done.
        watch: Who wants to know.
        address: Of the cluster; by default a local one.
        jobs: Processors of a local cluster, one a cell; without a number, Ray decides on these
            and on the cluster, such as the one named by ``RAY_ADDRESS``.

    Raises:
        RuntimeMissingError: Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        msg = 'Ray is not installed; pip install "anomalib-medclip[ray]", or use --runner local'
        raise RuntimeMissingError(msg) from error
    local: dict[str, Any] = {"address": "local", "num_cpus": jobs} if jobs else {}
    options = {"address": address} if address else local
    ray.init(**options, log_to_driver=False, include_dashboard=False, ignore_reinit_error=True)
    watch_again()
    try:
        gpus = _gpus_of_a_cell(work.settings.accelerator, ray)
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=LIVES - 1)(attempt)
        todo = [cell for cell in work.cells if not work.status(cell)]
        settings = ray.put(work.settings)  # once, for all that it holds of files
        waiting = {task.remote(cell, settings): cell for cell in todo}
        for cell in todo:
            watch.started(cell)
        while waiting:
            for done in ray.wait(list(waiting))[0]:
                cell = waiting.pop(done)
                record, arrays = _fetched(done, cell, ray)
                work.store.write(cell.key, record, arrays)
                watch.ended(cell, record.status)
    finally:
        ray.shutdown()


def _gpus_of_a_cell(accelerator: str, ray: Any) -> int:  # noqa: ANN401 - a module
    """GPUs that Ray keeps for a cell, from which it hides all others."""
    if accelerator == "auto":
        return 1 if ray.cluster_resources().get("GPU", 0) else 0
    return 1 if accelerator == "gpu" else 0


def _fetched(result: Any, cell: Cell, ray: Any) -> Any:  # noqa: ANN401 - Ray's
    try:
        return ray.get(result)
    except ray.exceptions.RayError as error:
        return died(cell, f"its Ray workers died {LIVES} times: {error}"), {}
