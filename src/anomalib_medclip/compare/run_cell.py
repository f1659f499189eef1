"""One cell becomes one record: trained, tested and measured through anomalib's Engine."""

import inspect
import io
import logging
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from anomalib.engine import Engine
from anomalib.models.components.base import AnomalibModule
from lightning import seed_everything
from torch import Tensor

from anomalib_medclip.compare import cost, pictures
from anomalib_medclip.compare.comparison import build_model, find_class
from anomalib_medclip.compare.epochs import EpochScores
from anomalib_medclip.compare.evaluator import Figures, Findings, identities
from anomalib_medclip.compare.explanation import explain
from anomalib_medclip.compare.facts import facts_of
from anomalib_medclip.compare.grid import Cell, check_inputs
from anomalib_medclip.compare.store import AT_THRESHOLD, CHOSEN_ON_TEST, Arrays, Record
from anomalib_medclip.components.processors import RankPreservingPostProcessor
from anomalib_medclip.data.config import build_data
from anomalib_medclip.data.datamodule import MedicalDataModule
from anomalib_medclip.data.fingerprint import Digests
from anomalib_medclip.data.lesions import count_lesions, total
from anomalib_medclip.errors import ConfigError
from anomalib_medclip.files import as_json
from anomalib_medclip.training.cross_fit import CrossFit
from anomalib_medclip.training.divergence import FiniteOnly
from anomalib_medclip.training.frozen_features import SharedFeatures
from anomalib_medclip.training.method import ClipMethod

_LOG = 4000
"""Characters of its last words that the record of a failure holds."""

_CHOOSING = ("image_AUROC", "pixel_AUROC")
_OF_THE_DRAW = (
    "k_shot", "seed", "normals", "support_list", "support_line", "train_batch_size",
    "eval_batch_size", "num_workers",
)  # fmt: skip
"""Options of data that do not change what an image looks like."""


class Settings(NamedTuple):
    """How cells are run, which does not change what they find.

    Attributes:
        features: Folder of features that cells share; ``None`` for none.
        feature_cache: GB of that folder.
        accelerator: ``cpu``, ``gpu`` or ``auto``, as Lightning has it.
        threads: Threads of torch; ``None`` for its own choice.
        known: What planning has read, which is not read again where it has not been touched.
    """

    features: Path | None = None
    feature_cache: float = 20.0
    accelerator: str = "auto"
    threads: int | None = None
    known: Digests | None = None


def now() -> str:
    """The time, as records have it: to be compared as words."""
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")


def attempt(cell: Cell, settings: Settings) -> tuple[Record, Arrays]:
    """Run a cell; what it raises becomes its record."""
    begun = now()
    start = time.perf_counter()
    record: Record = {"key": cell.key, "cell": cell.as_plain(), "determined_by": cell.determined_by}
    arrays: Arrays = {}
    with _quiet() as said:
        try:
            found, arrays = run(cell, settings)
            record |= {"status": "done", **found}
        except Exception as error:  # whatever it is, the others go on
            record |= {"status": "failed", "error": _told(error, said.getvalue())}
    seconds = time.perf_counter() - start
    taken = {"started": begun, "seconds": seconds, "machine": cost.machine()}
    record["measured"] = taken | record.get("measured", {})
    return record, arrays


def died(cell: Cell, how: str) -> Record:
    """The record of a cell whose process is no more."""
    told = {"type": "ProcessDied", "message": f"{how}; was there enough memory?", "traceback": ""}
    return {
        "key": cell.key, "cell": cell.as_plain(), "determined_by": cell.determined_by,
        "status": "failed", "error": told, "measured": {"started": now(), "seconds": 0.0},
    }  # fmt: skip


def _told(error: Exception, said: str) -> dict[str, str]:
    return {
        "type": type(error).__name__,
        "message": str(error),
        "traceback": traceback.format_exc(),
        "log": said[-_LOG:],
    }


@contextmanager
def _quiet() -> Iterator[io.StringIO]:
    """Keep what a run says, and leave the screen to the progress of all."""
    said = io.StringIO()
    loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    handlers = {
        handler: handler.stream
        for one in loggers
        for handler in getattr(one, "handlers", ())
        if isinstance(handler, logging.StreamHandler)
        and handler.stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    }
    try:
        for handler in handlers:
            handler.setStream(said)
        with redirect_stdout(said), redirect_stderr(said), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield said
    finally:
        for handler, stream in handlers.items():
            handler.setStream(stream)


def run(cell: Cell, settings: Settings) -> tuple[Record, Arrays]:
    """Train and test a cell.

    Raises:
        DataChangedError: Data are no longer those that the cell is named by, or are not at its end.
        Exception: Whatever data, model or Engine raise.
    """
    seed_everything(cell.seed, workers=True)
    known = {} if settings.known is None else settings.known
    if settings.threads:
        torch.set_num_threads(settings.threads)
    sets = {name: build_data(options, name) for name, options in cell.data_configs.items()}
    check_inputs(cell, sets, known)
    data, tested = sets[cell.data], {name: sets[name] for name in cell.tests}
    model = _model(cell)
    epochs = EpochScores(tested, cell.model_config["record_every"])
    with TemporaryDirectory() as scratch:
        engine = _engine(Path(scratch), cell, settings, model, epochs)
        _share(model, cell, settings)
        before = cost.prints(model)
        start = time.perf_counter()
        engine.fit(model=model, datamodule=data)
        callbacks: list[Any] = engine.trainer.callbacks  # type: ignore[attr-defined]
        apart = sum(one.seconds for one in callbacks if isinstance(one, CrossFit))
        measured: Record = {
            "train_seconds": time.perf_counter() - start - epochs.seconds - apart,
            "threshold_seconds": apart,
            "learnt_mb": cost.learnt_mb(model, before),
            "model_mb": cost.model_mb(model),
        }
        facts = facts_of(model, data, engine)
        tests: list[Record] = []
        arrays: dict[str, Any] = {}
        for number, (name, others) in enumerate(tested.items()):
            engine.test(model=model, datamodule=others)
            found, kept = _tested(cell, model, others, number)
            assert isinstance(model.evaluator, Findings)
            oracle = _oracle(model.evaluator.figures, epochs.epochs[name], facts)
            tests.append({"data": name, **found, **oracle})
            arrays |= kept
    check_inputs(cell, sets, known)
    measured |= {
        "seconds_per_image": cost.seconds_per_image(model, _some_images(data)),
        "features_from_cache": model.features.found if isinstance(model, ClipMethod) else 0,
        "device": cost.device_name(model.device),
    }
    return {"facts": facts, "tests": tests, "measured": measured}, arrays


def _model(cell: Cell) -> AnomalibModule:
    """The cell's model, with figures that are exact and scores that keep their ranks."""
    config = cell.model_config
    options = {k: config[k] for k in ("class_path", "init_args")}
    known = inspect.signature(find_class(options)).parameters
    if "seed" in known:
        options["init_args"] = {**options["init_args"], "seed": cell.seed}
    if "cross_fit" in known:  # by default it depends on the clock, which no result may
        options["init_args"] = {"cross_fit": True, **options["init_args"]}
    model = build_model(options, config["image_size"])
    if not isinstance(model.post_processor, RankPreservingPostProcessor):
        model.post_processor = RankPreservingPostProcessor()
    model.visualizer = None
    model.evaluator = Findings(getattr(model.evaluator, "val_metrics", ()))
    return model


def _engine(
    folder: Path, cell: Cell, settings: Settings, model: AnomalibModule, epochs: EpochScores
) -> Engine:
    """Anomalib's Engine, which shows and keeps nothing of its own.

    Raises:
        ConfigError: Nobody says for how many epochs to train.
    """
    asked: dict[str, Any] = {"max_epochs": cell.model_config["max_epochs"]}
    known = isinstance(model, ClipMethod) or "max_epochs" in model.trainer_arguments
    if asked["max_epochs"] is None:
        asked = {}
        if not known:
            msg = f"{cell.model} has no number of epochs of its own; give it max_epochs"
            raise ConfigError(msg)
    return Engine(
        callbacks=[FiniteOnly(), epochs], default_root_dir=folder, devices=1,
        accelerator=settings.accelerator, logger=False, enable_progress_bar=False,
        enable_model_summary=False, **asked,
    )  # fmt: skip


def _share(model: AnomalibModule, cell: Cell, settings: Settings) -> None:
    """Let cells share what the frozen tower says of the images of the same data."""
    if isinstance(model, ClipMethod) and settings.features is not None:
        told: list[Any] = [cell.determined_by[k] for k in ("data", "versions", "package", "code")]
        for options in cell.data_configs.values():
            given = {k: v for k, v in options["init_args"].items() if k not in _OF_THE_DRAW}
            told += [options["class_path"], given]
        scope = as_json(told, sort_keys=True, default=str)
        model.features.shared = SharedFeatures(settings.features, scope, settings.feature_cache)


def _tested(
    cell: Cell, model: AnomalibModule, data: MedicalDataModule, number: int
) -> tuple[Record, Arrays]:
    """What a test has found, and the pictures it keeps."""
    findings, table = model.evaluator, data.test_data.samples
    assert isinstance(findings, Findings)
    score_of = dict(zip(findings.paths, findings.scores, strict=True))
    raw_of = dict(zip(findings.paths, findings.raw_scores, strict=True))
    called = findings.called and dict(zip(findings.paths, findings.called, strict=True))
    number_of, known = identities(table).factorize(sort=True)
    paths = list(table["image_path"])
    found: Record = {
        "object_name": data.object_name,
        "has_masks": data.has_masks,
        "lesions": _lesions(data),
        "honest": {k: v for k, v in findings.figures.items() if k not in CHOSEN_ON_TEST},
        "images": {
            "name": pictures.names(table),
            "patient": number_of.tolist(),
            "label": table["label_index"].astype(int).tolist(),
            "score": [score_of[path] for path in paths],
            "raw_score": [raw_of[path] for path in paths],
            "called": called and [int(called[path]) for path in paths],
        },
        "patients": {"known_as": known.tolist(), "unknown": int((table["group"] == "").sum())},
        "influence": {name: one.as_plain() for name, one in findings.influences.items()},
        "pixel_curves": findings.curves,
        "gallery": None,
    }
    if "pictures" not in cell.keeps:
        return found, {}
    kept, arrays = pictures.keep(data, findings.maps, f"test{number}_")
    found |= {"gallery": kept}
    if "explanations" in cell.keeps:
        shown: list[Any] = [data.test_data[index] for index in kept["image"]]
        if explanation := explain(model, shown, data.support_data, cell.seed):
            found["explain"], more = explanation.as_record(f"test{number}_explain", kept["image"])
            arrays |= more
    return found, arrays


def _lesions(data: MedicalDataModule) -> Record | None:
    """How many lesions the test masks outline, and how many are lost at the model's size."""
    test: Any = data.test_data
    resize = test.augmentations
    if not data.has_masks or resize is None:
        return None
    found = total(count_lesions(lesion, resize) for lesion in test.lesions())
    return {"size": list(test[0].image.shape[-2:]), **found}


def _oracle(honest: Figures, others: Sequence[Record], facts: Record) -> Record:
    """The best epoch on the test images, by the sum of both AUROCs as authors choose it.

    Where no other of several epochs was recorded, nobody knows it.
    """
    known = {one["epoch"]: one for one in others}
    known[facts["epoch"]] = {"epoch": facts["epoch"], **honest}
    recorded = [known[number] for number in sorted(known)]
    of_test = ("image_ECE", *AT_THRESHOLD)
    best = max(recorded, key=lambda one: sum(one.get(name) or 0.0 for name in _CHOOSING))
    if facts["epochs"] > 1 and not others:
        best = {"epoch": None}
    return {
        "oracle": {name: best.get(name) for name in honest if name not in AT_THRESHOLD},
        "oracle_epoch": best["epoch"],
        "epochs": [{k: v for k, v in one.items() if k not in of_test} for one in recorded],
    }


def _some_images(data: MedicalDataModule) -> Tensor:
    """Images to take the time with, resized as the model has them."""
    found: list[Any] = [data.test_data[i].image for i in range(min(8, len(data.test_data)))]
    return torch.stack(found).as_subclass(Tensor)
