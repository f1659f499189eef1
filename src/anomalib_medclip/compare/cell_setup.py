"""What a cell is run with: its model, anomalib's Engine, the features it shares with others."""

import inspect
from pathlib import Path
from typing import Any, NamedTuple

from anomalib.engine import Engine
from anomalib.metrics import Evaluator
from anomalib.models.components.base import AnomalibModule
from lightning.pytorch import Callback

from anomalib_medclip.compare.comparison import build_model, find_class
from anomalib_medclip.compare.evaluator import GalleryFindings
from anomalib_medclip.compare.grid import Cell
from anomalib_medclip.components.processors import RankPreservingPostProcessor
from anomalib_medclip.data.fingerprint import Digests
from anomalib_medclip.errors import ConfigError
from anomalib_medclip.files import as_json
from anomalib_medclip.training.deciding import Deciding
from anomalib_medclip.training.divergence import FiniteOnly
from anomalib_medclip.training.frozen_features import SharedFeatures
from anomalib_medclip.training.method import ClipMethod

_OF_THE_DRAW = (
    "k_shot", "seed", "normals", "support_list", "support_line", "train_batch_size",
    "eval_batch_size", "num_workers",
)  # fmt: skip
"""Options of data that do not change what an image looks like."""


class CellSettings(NamedTuple):
    """How cells are run, which does not change what they find.

    Attributes:
        features: Folder of features that cells share; ``None`` for none.
        feature_cache: GB of that folder.
        accelerator: ``cpu``, ``gpu`` or ``auto``, as Lightning has it.
        threads: Threads of torch; ``None`` for its own choice.
        known: What planning has read, which is not read again where it has not been touched.
        scratch: Folder for what cells leave behind when they are killed; ``None`` for the system's.
    """

    features: Path | None = None
    feature_cache: float = 20.0
    accelerator: str = "auto"
    threads: int | None = None
    known: Digests | None = None
    scratch: Path | None = None


def model_of(cell: Cell) -> AnomalibModule:
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
    own = model.evaluator
    model.evaluator = GalleryFindings([*own.val_metrics] if isinstance(own, Evaluator) else ())
    return model


def engine_for(
    cell: Cell,
    model: AnomalibModule,
    settings: CellSettings,
    folder: Path,
    callbacks: list[Callback],
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
        callbacks=[FiniteOnly(), Deciding(), *callbacks], default_root_dir=folder, devices=1,
        accelerator=settings.accelerator, logger=False, enable_progress_bar=False,
        enable_model_summary=False, **asked,
    )  # fmt: skip


def share_features(cell: Cell, model: AnomalibModule, settings: CellSettings) -> None:
    """Let cells share what the frozen tower says of the images of the same data."""
    if isinstance(model, ClipMethod) and settings.features is not None:
        by = cell.determined_by
        told: list[Any] = [by.data, by.versions, by.package, by.code]
        for options in cell.data_configs.values():
            given = {k: v for k, v in options["init_args"].items() if k not in _OF_THE_DRAW}
            told += [options["class_path"], given]
        scope = as_json(told, sort_keys=True, default=str)
        model.features.shared = SharedFeatures(settings.features, scope, settings.feature_cache)
