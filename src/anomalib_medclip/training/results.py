"""What a run leaves on disk: a picture per image, scores as CSV, what it was and found as JSON."""

import csv
import io
import logging
import math
import os
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from anomalib.data import ImageBatch, PredictDataset
from anomalib.visualization import ImageVisualizer
from lightning import LightningModule, Trainer
from lightning.pytorch import Callback
from PIL.Image import Image as Picture
from torch.utils.data import DataLoader

from anomalib_medclip.evaluation.findings import Findings, Outcome
from anomalib_medclip.files import as_json, write_whole
from anomalib_medclip.metrics.raw import raw
from anomalib_medclip.spreadsheet import shown
from anomalib_medclip.training import closing_block
from anomalib_medclip.training.datamodule_view import DatamoduleView
from anomalib_medclip.training.evaluators import RunFindings
from anomalib_medclip.training.processes import is_shared, let_all_compute, of_all
from anomalib_medclip.training.run_folder import RUN
from anomalib_medclip.training.run_record import (
    METRICS,
    PICTURES,
    SCORES,
    flat_metrics,
    run_record,
    training_facts,
)

logger = logging.getLogger(__name__)


class HeatMapVisualizer(ImageVisualizer):
    """anomalib's pictures, each under a name of its own.

    anomalib keeps only the last folder of an image's path, so that ``good/img/1.png`` and
    ``Ungood/img/1.png`` overwrite each other; here the path below the common folder is kept.
    Options are those of ``anomalib.visualization.ImageVisualizer``.
    """

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - as Lightning passes it
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write one picture per image of the batch."""
        del pl_module, outputs, batch_idx
        if not (trainer.is_global_zero or is_shared(_loaders(trainer)[dataloader_idx])):
            return  # what all processes score, the first one draws
        folder = Path(self.output_dir or Path(trainer.default_root_dir) / PICTURES)
        base = _common_folder(_paths_under_evaluation(trainer, dataloader_idx))
        for item in batch:
            # Shown from the tensor: opening a 16-bit file again would show it cut to 8 bits.
            path, item.image_path = Path(str(item.image_path)), None
            picture = self.visualize(item)
            target = folder / picture_name(path, base)
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(picture, Picture):  # nothing, if every field is switched off
                picture.save(target, compress_level=1)  # a third of the time, little larger


class ResultsWriter(Callback):
    """Writes ``run.json``, ``test_metrics.json``, ``test_scores.csv`` and ``predict_scores.csv``.

    They lie beside the pictures in the run's folder. Files appear whole or not at all. The first
    process writes what all have found, in the order of the data.

    Where a user has an evaluator of his own, figures of images and patients are found here besides.
    """

    def __init__(self) -> None:
        self._rows: defaultdict[int, list[list[dict[str, Any]]]] = defaultdict(list)
        self._beside: RunFindings | None = None
        self._begun = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:  # noqa: ANN401 - a method
        """Note how it is trained, for whoever tests it later."""
        self._begun = time.perf_counter()
        pl_module.training_facts = training_facts(DatamoduleView.of(trainer), trainer.current_epoch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:  # noqa: ANN401 - a method
        """Count epochs, before a checkpoint is saved."""
        pl_module.training_facts["epochs"] = trainer.current_epoch + 1

    def on_fit_end(self, trainer: Trainer, pl_module: Any) -> None:  # noqa: ANN401 - a method
        """Take the time."""
        del trainer
        pl_module.training_facts["seconds"] = round(time.perf_counter() - self._begun, 3)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a table."""
        del trainer, pl_module
        self._rows.clear()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a table."""
        self.on_predict_start(trainer, pl_module)
        self._begun = time.perf_counter()

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find figures beside an evaluator that finds others."""
        own = _evaluator(pl_module)
        self._beside = None
        if own is not None and not isinstance(own, Findings):
            self._beside = RunFindings().to(pl_module.device)
            self._beside.on_test_epoch_start(trainer, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute these."""
        if self._beside is not None:
            let_all_compute(trainer, pl_module.device, self._beside)
            self._beside.on_test_epoch_end(trainer, pl_module)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - as Lightning passes it
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add a row per image: path, score, label, true label, score as the model gave it."""
        if self._beside is not None:
            self._beside.on_test_batch_end(
                trainer, pl_module, outputs, batch, batch_idx, dataloader_idx
            )
        self._add(batch, dataloader_idx)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - as above
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add a row per image, likewise."""
        del trainer, pl_module, outputs, batch_idx
        self._add(batch, dataloader_idx)

    def _add(self, batch: ImageBatch, dataloader_idx: int) -> None:
        kept = raw(batch)
        columns = {
            "image": batch.image_path,
            "pred_score": _as_list(batch.pred_score),
            "pred_label": _as_list(batch.pred_label),
            "gt_label": _as_list(batch.gt_label),
            "raw_score": None if kept is None else _as_list(kept.pred_score),
        }
        present = {name: values for name, values in columns.items() if values is not None}
        self._rows[dataloader_idx].append(
            [dict(zip(present, row, strict=True)) for row in zip(*present.values(), strict=True)]
        )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what a validation has found that stands for itself."""
        alone = trainer.state.fn == "validate" and trainer.validate_loop.verbose
        if alone and trainer.is_global_zero:
            trainer.validate_loop.verbose = False  # Lightning would say it with 16 digits
            words = f"{type(pl_module).__name__} on {DatamoduleView.of(trainer).name}: validation"
            closing_block.show_metrics(_logged(trainer), words)

    def on_test_end(self, trainer: Trainer, pl_module: Any) -> None:  # noqa: ANN401 - a method
        """Write scores and figures, and say what was found and where everything is."""
        rows = self._rows_of_all(trainer)
        if not trainer.is_global_zero:
            return
        folder, outcome = Path(trainer.default_root_dir), self._outcome(pl_module)
        _write_table(folder / SCORES, rows)
        seconds = time.perf_counter() - self._begun
        record = run_record(trainer, pl_module, outcome, _logged(trainer), seconds)
        for name, said in ((RUN, record), (METRICS, flat_metrics(record))):
            write_whole(folder / name, as_json(said, indent=2, ensure_ascii=False) + "\n")
        if outcome is not None and trainer.test_loop.verbose:
            trainer.test_loop.verbose = False  # Lightning would say some of it again
            closing_block.show(record, folder)
        else:
            logger.info("metrics, scores and pictures are in %s", folder)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write scores and say where everything is."""
        del pl_module
        rows = self._rows_of_all(trainer)
        if trainer.is_global_zero:
            folder = Path(trainer.default_root_dir)
            _write_table(folder / "predict_scores.csv", rows)
            logger.info("scores and pictures are in %s", folder)

    def _outcome(self, pl_module: Any) -> Outcome | None:  # noqa: ANN401 - a method
        findings = self._beside or _evaluator(pl_module)
        return findings.result if isinstance(findings, Findings) else None

    def _rows_of_all(self, trainer: Trainer) -> list[dict[str, Any]]:
        """What all processes have scored, in the order of the data."""
        loaders = enumerate(_loaders(trainer))
        batches = [batch for index, one in loaders for batch in of_all(self._rows[index], one)]
        return [row for batch in batches for row in batch]


def picture_name(path: Path, base: Path) -> Path:
    """Path of a picture below the pictures' folder, different for every image.

    Example:
        >>> picture_name(Path("/data/test/good/1.jpg"), Path("/data/test"))
        PosixPath('good/1.jpg.png')
    """
    relative = _plain(path).relative_to(base)
    # Only names with one ending may keep it: 1.jpg and 1.jpg.png can lie side by side.
    keeps = path.suffix == ".png" and "." not in path.stem
    return relative if keeps else relative.with_name(relative.name + ".png")


def _common_folder(paths: Sequence[str | Path]) -> Path:
    return Path(os.path.commonpath([_plain(path).parent for path in paths]))


def _plain(path: str | Path) -> Path:
    """Absolute and without ``..``, which would lead out of the pictures' folder."""
    return Path(os.path.normpath(Path(path).absolute()))


def _loaders(trainer: Trainer) -> list[Any]:
    """Those of the evaluation at hand."""
    loaders: Any = trainer.predict_dataloaders if trainer.predicting else trainer.test_dataloaders
    return loaders if isinstance(loaders, list) else [loaders]


def _paths_under_evaluation(trainer: Trainer, dataloader_idx: int) -> list[str | Path]:
    loader = _loaders(trainer)[dataloader_idx]
    if not isinstance(loader, DataLoader):
        msg = f"cannot name pictures of a {type(loader).__name__}; pass a torch DataLoader"
        raise TypeError(msg)
    dataset: Any = loader.dataset
    if isinstance(dataset, PredictDataset):
        return list(dataset.image_filenames)
    return list(dataset.samples.image_path)


def _evaluator(pl_module: Any) -> Any:  # noqa: ANN401 - of any making, or none
    return getattr(pl_module, "evaluator", None)


def _logged(trainer: Trainer) -> dict[str, float | None]:
    """Metrics that Lightning was told of; ``None`` where these images do not define one."""
    found = {name: v.item() for name, v in trainer.logged_metrics.items() if v is not None}
    return {name: v if math.isfinite(v) else None for name, v in found.items()}


def _as_list(values: torch.Tensor | None) -> list[Any] | None:
    return None if values is None else values.detach().cpu().tolist()


def _write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else ["image"])
    writer.writeheader()
    writer.writerows({name: shown(cell) for name, cell in row.items()} for row in rows)
    write_whole(path, text.getvalue())
