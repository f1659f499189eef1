"""What a test finds: figures, the score of every image, pixel curves, maps for the gallery."""

import hashlib
import logging
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from anomalib.data import ImageBatch
from anomalib.metrics import Evaluator
from lightning import LightningModule, Trainer
from pandas import DataFrame, Series
from torch import Tensor

from anomalib_medclip.compare.dataset_result import AT_THRESHOLD, Figures, PixelCurves
from anomalib_medclip.compare.pictures import PICTURE_SIDE, as_255ths, paths_to_keep
from anomalib_medclip.components.threshold import has_threshold
from anomalib_medclip.data.few_shot import patients
from anomalib_medclip.errors import MetricError
from anomalib_medclip.metrics.calibration import CalibrationError
from anomalib_medclip.metrics.influence import Influence
from anomalib_medclip.metrics.known_pixels import ignored_of
from anomalib_medclip.metrics.patient_pixels import PatientPixels
from anomalib_medclip.metrics.ranked import (
    AUPRO,
    AUROC,
    AveragePrecision,
    F1Max,
    SpecificityAtSensitivity,
)
from anomalib_medclip.metrics.raw import raw

logger = logging.getLogger(__name__)

_SHORT = {"AveragePrecision": "AP", "CalibrationError": "ECE"}


def rank_metrics(memory: float = 1.0) -> list[Any]:
    """Figures of ranks of images and pixels; each as ``docs/metrics.md`` says.

    Args:
        memory: GB for the scores of pixels; what exceeds them goes to disk.
    """
    image: dict[str, Any] = {"fields": ["pred_score", "gt_label"], "prefix": "image_"}
    pixel: dict[str, Any] = {
        "fields": ["anomaly_map", "gt_mask"],
        "prefix": "pixel_",
        "strict": False,
    }
    overlap = AUPRO(**pixel, memory=memory)
    return [
        *(kind(**image) for kind in (AUROC, AveragePrecision, F1Max, SpecificityAtSensitivity)),
        overlap,
        *(kind(**pixel, scores_of=overlap) for kind in (AUROC, AveragePrecision)),
    ]


def figures(metrics: Sequence[Any]) -> Figures:
    """The value of each metric by its short name; ``None`` where these images do not define it."""
    found = {}
    for metric in metrics:
        prefix, _, name = metric.name.rpartition("_")
        value = metric.compute()
        undefined = value is None or not torch.isfinite(value)
        found[f"{prefix}_{_SHORT.get(name, name)}"] = None if undefined else float(value)
    return found


def at_threshold(called: Sequence[bool] | None, labels: Sequence[bool]) -> Figures:
    """Sensitivity, specificity and F1 of the images called abnormal; ``None`` without a threshold.

    Example:
        >>> at_threshold([True, True, False, False], [True, False, True, False])
        {'image_Sensitivity': 0.5, 'image_Specificity': 0.5, 'image_F1': 0.5}
    """
    if called is None or len(set(labels)) < 2:
        return dict.fromkeys(AT_THRESHOLD)
    found, ill = np.asarray(called, dtype=bool), np.asarray(labels, dtype=bool)
    f1 = 2 * np.count_nonzero(found & ill) / (np.count_nonzero(found) + np.count_nonzero(ill))
    values = found[ill].mean(), (~found[~ill]).mean(), f1
    return dict(zip(AT_THRESHOLD, map(float, values), strict=True))


def identities(table: DataFrame) -> Series:
    """A pseudonym of the patient of each row, the same in every draw and every comparison.

    It is no secret: who has a list of names can compute theirs and compare, so that the records,
    which hold them, stay inside as the names do. The report has none of them.
    """
    return patients(table).map(lambda name: hashlib.sha256(name.encode()).hexdigest()[:12])


class Findings(Evaluator):
    """anomalib's evaluator, which keeps what it finds in float64 and image by image.

    Args:
        val_metrics: What is found on validation images, by which an epoch may be chosen.

    Attributes:
        figures: By name, once the test has ended.
        paths: Path of every image, in the order of the test.
        scores: Score of each, in [0, 1].
        raw_scores: Score of each as the model gave it, which the figures of ranks are of.
        called: Whether each is called abnormal; ``None`` where the model has no finite threshold.
        influences: Of every patient on the figures of pixels, by their names; none without masks,
            or where one patient alone has lesions.
        maps: Map of each image to look at, by path: in [0, 1] times 255, of ``PICTURE_SIDE``.
        curves: Pixel curves as the record holds them; ``None`` without masks.
    """

    def __init__(self, val_metrics: Sequence[Any] = ()) -> None:
        image: dict[str, Any] = {"fields": ["pred_score", "gt_label"], "prefix": "image_"}
        self.of_test: list[Any] = [*rank_metrics(), CalibrationError(**image)]
        super().__init__(list(val_metrics), self.of_test)
        self.start()

    def start(self) -> None:
        """Forget what was found."""
        self.figures: Figures = {}
        self.paths: list[str] = []
        self.scores: list[float] = []
        self.raw_scores: list[float] = []
        self.called: list[bool] | None = []
        self.influences: dict[str, Influence] = {}
        self._labels: list[bool] = []
        self._pixels = PatientPixels()
        self.maps: dict[str, npt.NDArray[np.uint8]] = {}
        self.curves: PixelCurves | None = None
        for metric in self.of_test:
            metric.reset()

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self.start()
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self.shown = set(paths_to_keep(data))
        table = data.test_data.samples
        self._patient_of = dict(zip(table["image_path"], identities(table), strict=True))
        if not has_threshold(pl_module.post_processor):
            self.called = None

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - as Lightning passes it
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add the images of a batch."""
        super().on_test_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)
        paths = [str(path) for path in batch.image_path or ()]
        self.paths += paths
        kept = raw(batch)
        as_scored = batch if kept is None else kept
        for into, one in ((self.scores, batch), (self.raw_scores, as_scored)):
            into += cast("Tensor", one.pred_score).flatten().tolist()
        self._labels += cast("Tensor", batch.gt_label).flatten().bool().tolist()
        if self.called is not None:
            self.called += cast("Tensor", batch.pred_label).flatten().bool().tolist()
        if as_scored.anomaly_map is not None and batch.gt_mask is not None:
            owners = [self._patient_of[path] for path in paths]
            self._pixels.add(as_scored.anomaly_map, batch.gt_mask, owners, ignored_of(batch))
        for index, path in enumerate(paths):
            if path in self.shown and batch.anomaly_map is not None:
                self.maps[path] = small_map(batch.anomaly_map[index])

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute all figures; nothing is logged, whose float32 would round them."""
        del trainer, pl_module
        self.figures = figures(self.of_test) | at_threshold(self.called, self._labels)
        if self.figures["pixel_AUROC"] is not None:
            pixels = next(m for m in self.of_test if isinstance(m, AUPRO))
            curve: dict[str, Any] = pixels.curve()._asdict()
            rounded = {name: tuple(np.round(v, 5).tolist()) for name, v in curve.items()}
            self.curves = PixelCurves(**rounded)
            self.influences = self._of_patients(pixels)
        self._pixels = PatientPixels()

    def _of_patients(self, pixels: AUPRO) -> dict[str, Influence]:
        try:
            found = self._pixels.influences(pixels.thresholds(self._pixels.steps))
        except MetricError as error:
            logger.info("figures of pixels have no interval: %s", error)
            return {}
        return {f"pixel_{name}": influence for name, influence in found.items()}


def small_map(anomaly_map: Tensor) -> npt.NDArray[np.uint8]:
    """A map ``(height, width)`` in [0, 1] as the gallery shows it: of one size, in 0 to 255."""
    plain = anomaly_map.detach().as_subclass(Tensor).float().cpu()
    whole = plain.reshape(1, 1, *anomaly_map.shape[-2:])
    resized = F.interpolate(
        whole, size=(PICTURE_SIDE, PICTURE_SIDE), mode="bilinear", antialias=True
    )
    return as_255ths(resized[0, 0])
