"""One cell becomes one record: trained, tested and measured through anomalib's Engine."""

import time
import traceback
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from lightning import seed_everything
from torch import Tensor

from anomalib_medclip.compare import cost
from anomalib_medclip.compare.captured_log import captured_log
from anomalib_medclip.compare.cell_record import (
    Arrays,
    CellError,
    CellRecord,
    MeasuredCost,
    TrainingFacts,
)
from anomalib_medclip.compare.cell_setup import CellSettings, engine_for, model_of, share_features
from anomalib_medclip.compare.dataset_result import DatasetResult
from anomalib_medclip.compare.epochs import EpochScores
from anomalib_medclip.compare.evaluation import evaluate
from anomalib_medclip.compare.facts import facts_of
from anomalib_medclip.compare.grid import Cell, check_inputs
from anomalib_medclip.data.config import build_data
from anomalib_medclip.data.datamodule import MedicalDataModule

_LOG = 4000
"""Characters of its last words that the record of a failure holds."""


def now() -> str:
    """The time, as records have it: to be compared as words."""
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")


def attempt(cell: Cell, settings: CellSettings) -> tuple[CellRecord, Arrays]:
    """Run a cell; what it raises becomes its record."""
    begun = now()
    start = time.perf_counter()
    with captured_log() as said:
        try:
            found: CellFindings | CellError = run_cell(cell, settings)
        except Exception as error:  # whatever it is, the others go on
            found = _told(error, said.getvalue())
    seconds = time.perf_counter() - start
    measured = MeasuredCost(started=begun, seconds=seconds, machine=cost.machine())
    if isinstance(found, CellError):
        return _failed(cell, found, measured), {}
    costs = {**found.training._asdict(), **found.scoring._asdict()}
    record = CellRecord(
        key=cell.key,
        cell=cell.planned(),
        determined_by=cell.determined_by,
        status="done",
        facts=found.facts,
        tests=found.tests,
        measured=replace(measured, **costs),
    )
    return record, found.arrays


def died(cell: Cell, how: str) -> CellRecord:
    """The record of a cell whose process is no more."""
    message = f"{how}; was there enough memory?"
    error = CellError(type="ProcessDied", message=message, traceback="")
    return _failed(cell, error, MeasuredCost(started=now(), seconds=0.0))


def _failed(cell: Cell, error: CellError, measured: MeasuredCost) -> CellRecord:
    return CellRecord(
        key=cell.key,
        cell=cell.planned(),
        determined_by=cell.determined_by,
        status="failed",
        error=error,
        measured=measured,
    )


def _told(error: Exception, said: str) -> CellError:
    return CellError(
        type=type(error).__name__,
        message=str(error),
        traceback=traceback.format_exc(),
        log=said[-_LOG:],
    )


class CellFindings(NamedTuple):
    """What a cell has found, and what that took."""

    facts: TrainingFacts
    tests: tuple[DatasetResult, ...]
    training: cost.TrainingCost
    scoring: cost.ScoringCost
    arrays: Arrays


def run_cell(cell: Cell, settings: CellSettings) -> CellFindings:
    """Train and test a cell.

    Raises:
        DataChangedError: Data are no longer those that the cell is named by, or are not at its end.
        Exception: Whatever data, model or Engine raise.
    """
    seed_everything(cell.seed, workers=True)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    known = {} if settings.known is None else settings.known
    sets = {name: build_data(options, name) for name, options in cell.data_configs.items()}
    check_inputs(cell, sets, known)
    data, tested = sets[cell.data], {name: sets[name] for name in cell.tests}
    model = model_of(cell)
    epochs = EpochScores(tested, cell.model_config["record_every"])
    with TemporaryDirectory(dir=settings.scratch) as scratch:
        engine = engine_for(cell, model, settings, Path(scratch), [epochs])
        share_features(cell, model, settings)
        training = cost.train(model, data, engine)
        facts = facts_of(model, data, engine)
        tests, arrays = evaluate(cell, model, engine, tested, epochs.epochs, facts)
    check_inputs(cell, sets, known)
    scoring = cost.scoring_cost(model, _some_images(data))
    model.cpu()  # the next cell may need the room before Python collects what is done with
    return CellFindings(facts, tests, training, scoring, arrays)


def _some_images(data: MedicalDataModule) -> Tensor:
    """Images to take the time with, resized as the model has them."""
    found: list[Any] = [data.test_data[i].image for i in range(min(8, len(data.test_data)))]
    return torch.stack(found).as_subclass(Tensor)
