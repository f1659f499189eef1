"""Several processes at the same cells; one that dies is replaced, and its cell tried again."""

import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from anomalib_medclip.compare.grid import Cell
from anomalib_medclip.compare.run_cell import died
from anomalib_medclip.compare.runners import LIVES, CellQueue, Watch, rotated, run_here
from anomalib_medclip.errors import ProcessDiedError
from anomalib_medclip.signals import tidy_stop

_VISIBLE = "CUDA_VISIBLE_DEVICES"

_PATIENCE = 1.5
"""Seconds in which a process that was told to stop may do so."""


class _Announce:
    """Tells the parent process how it goes."""

    def __init__(self, words: Connection) -> None:
        self._words = words

    def started(self, cell: Cell) -> None:
        """Say so."""
        self._words.send((cell.key, "started"))

    def ended(self, cell: Cell, status: str) -> None:
        """Say so."""
        self._words.send((cell.key, status))


def _work_on(work: CellQueue, words: Connection) -> None:
    """What each process does."""
    # Loaders of images would else be spawned, too, and each import everything anew.
    multiprocessing.set_start_method(None, force=True)
    with tidy_stop():
        run_here(work, _Announce(words))


@contextmanager
def _one_gpu_in_sight(number: int) -> Iterator[None]:
    """Let a process that is started see one GPU: of several, each process has the next.

    Some models of anomalib take the first that they see, whatever they are told.
    """
    told, count = os.environ.get(_VISIBLE), torch.cuda.device_count()
    if count < 2:
        yield
        return
    names = told.split(",")[:count] if told else [str(index) for index in range(count)]
    os.environ[_VISIBLE] = names[number % count]
    try:
        yield
    finally:
        del os.environ[_VISIBLE]
        os.environ.update({_VISIBLE: told} if told else {})


@dataclass
class _Worker:
    process: SpawnProcess
    words: Connection
    cell: Cell | None = None


class ProcessPool:
    """Processes that work side by side.

    Args:
        work: What is to be done.
        watch: Who wants to know.
        jobs: How many processes.
    """

    def __init__(self, work: CellQueue, watch: Watch, jobs: int) -> None:
        self._work, self._watch, self._jobs = work, watch, min(jobs, len(work.cells))
        self._cells = {cell.key: cell for cell in work.cells}
        self._deaths: Counter[str] = Counter()
        self._workers: dict[int, _Worker] = {}
        self._scratch = TemporaryDirectory()  # for what killed processes leave

    def run(self) -> None:
        """Run all cells.

        Raises:
            ProcessDiedError: Processes die while they run no cell, such as at their start.
        """
        try:
            for number in range(self._jobs):
                self._start(number)
            while self._workers:
                ends = [one.process.sentinel for one in self._workers.values()]
                wait([*ends, *(one.words for one in self._workers.values())])
                for number, worker in list(self._workers.items()):
                    alive = worker.process.is_alive()  # asked before its last words are heard
                    heard = self._listen(worker)
                    if not alive or not heard:
                        self._left(number, worker)
        finally:
            self._stop()

    def _stop(self) -> None:
        """End the processes that there still are; each has some seconds to remove what is its."""
        running = [worker.process for worker in self._workers.values()]
        for process in running:
            process.terminate()
        until = time.monotonic() + _PATIENCE
        for process in running:
            process.join(max(0, until - time.monotonic()))
            process.kill()
            process.join()
        self._scratch.cleanup()

    def _start(self, number: int) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        # Each begins elsewhere in the list, so that they seldom want the same cell.
        settings = self._work.settings._replace(scratch=Path(self._scratch.name))
        turned = rotated(self._work.cells, number, self._jobs)
        its_work = self._work._replace(cells=turned, settings=settings)
        process = context.Process(target=_work_on, args=(its_work, theirs))
        with _one_gpu_in_sight(number):
            process.start()
        theirs.close()
        self._workers[number] = _Worker(process, ours)

    def _listen(self, worker: _Worker) -> bool:
        """Hear what it has to say; false if it will say no more."""
        try:
            while worker.words.poll():
                key, word = worker.words.recv()
                worker.cell = self._cells[key] if word == "started" else None
                if word == "started":
                    self._watch.started(self._cells[key])
                else:
                    self._watch.ended(self._cells[key], word)
        except EOFError:
            return False
        return True

    def _left(self, number: int, worker: _Worker) -> None:
        """Replace a process that died; record a cell that killed its process once too often."""
        del self._workers[number]
        worker.process.join()
        if not worker.process.exitcode:
            return
        how = f"a process ended with code {worker.process.exitcode}"
        key = worker.cell.key if worker.cell else ""
        self._deaths[key] += 1
        if self._deaths[key] >= LIVES:
            if worker.cell is None:
                msg = f"{how}, and no cell was running; run with one job to see why"
                raise ProcessDiedError(msg)
            self._work.store.write(key, died(worker.cell, how))
            self._watch.ended(worker.cell, "failed")
        self._start(number)
