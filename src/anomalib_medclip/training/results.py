"""What a run leaves on disk: a picture per image, scores as CSV, metrics as JSON."""

import csv
import io
import logging
import math
import os
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

from anomalib_medclip.files import as_json, write_whole
from anomalib_medclip.metrics.raw import raw
from anomalib_medclip.spreadsheet import shown
from anomalib_medclip.training.datamodule_view import DatamoduleView
from anomalib_medclip.training.processes import is_shared, of_all

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
        self.output_dir = Path(self.output_dir or Path(trainer.default_root_dir) / "images")
        base = _common_folder(_paths_under_evaluation(trainer, dataloader_idx))
        for item in batch:
            # Shown from the tensor: opening a 16-bit file again would show it cut to 8 bits.
            path, item.image_path = Path(str(item.image_path)), None
            picture = self.visualize(item)
            target = self.output_dir / picture_name(path, base)
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(picture, Picture):  # nothing, if every field is switched off
                picture.save(target, compress_level=1)  # a third of the time, little larger


class ResultsWriter(Callback):
    """Writes ``test_metrics.json``, ``test_scores.csv`` and ``predict_scores.csv``.

    They lie beside the pictures in the run's folder. Files appear whole or not at all. The first
    process writes what all have found, in the order of the data.
    """

    def __init__(self) -> None:
        self._rows: defaultdict[int, list[list[dict[str, Any]]]] = defaultdict(list)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a table."""
        del trainer, pl_module
        self._rows.clear()

    on_predict_start = on_test_start

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
        del trainer, pl_module, outputs, batch_idx
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

    on_predict_batch_end = on_test_batch_end

    def on_test_end(self, trainer: Trainer, pl_module: Any) -> None:  # noqa: ANN401 - a method
        """Write scores and metrics, and say where everything is."""
        rows = self._rows_of_all(trainer)
        if not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir)
        _write_table(folder / "test_scores.csv", rows)
        found = {name: v.item() for name, v in trainer.logged_metrics.items() if v is not None}
        # JSON knows no NaN: null stands for a metric that these images do not define.
        metrics: dict[str, Any] = {
            name: v if math.isfinite(v) else None for name, v in found.items()
        }
        if support := DatamoduleView.of(trainer).support_counts:
            metrics["support"] = support  # what K really means: images and patients by class
        if pl_module.threshold_from:
            metrics["threshold_from"] = pl_module.threshold_from
        write_whole(folder / "test_metrics.json", as_json(metrics, indent=2) + "\n")
        logger.info("metrics, scores and pictures are in %s", folder)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write scores and say where everything is."""
        del pl_module
        rows = self._rows_of_all(trainer)
        if trainer.is_global_zero:
            folder = Path(trainer.default_root_dir)
            _write_table(folder / "predict_scores.csv", rows)
            logger.info("scores and pictures are in %s", folder)

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


def _as_list(values: torch.Tensor | None) -> list[Any] | None:
    return None if values is None else values.detach().cpu().tolist()


def _write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else ["image"])
    writer.writeheader()
    writer.writerows({name: shown(cell) for name, cell in row.items()} for row in rows)
    write_whole(path, text.getvalue())
