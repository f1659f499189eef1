"""What a cell's test finds, with pixel curves and maps for the gallery."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from anomalib.data import ImageBatch
from lightning import LightningModule, Trainer
from torch import Tensor

from anomalib_medclip.compare.dataset_result import PixelCurves
from anomalib_medclip.compare.pictures import PICTURE_SIDE, as_255ths, paths_to_keep
from anomalib_medclip.evaluation.findings import Findings
from anomalib_medclip.metrics.ranked import AUPRO


class GalleryFindings(Findings):
    """``Findings`` that keep what is looked at, too.

    Args:
        val_metrics: What is found on validation images, by which an epoch may be chosen.

    Attributes:
        maps: Map of each image to look at, by path: in [0, 1] times 255, of ``PICTURE_SIDE``.
        curves: Pixel curves as the record holds them; ``None`` without masks.
    """

    def __init__(self, val_metrics: Sequence[Any] = ()) -> None:
        super().__init__(val_metrics)

    def start(self) -> None:
        """Forget what was found."""
        super().start()
        self.maps: dict[str, npt.NDArray[np.uint8]] = {}
        self.curves: PixelCurves | None = None

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        super().on_test_epoch_start(trainer, pl_module)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self._shown = set(paths_to_keep(data))

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
        for index, path in enumerate(map(str, batch.image_path or ())):
            if path in self._shown and batch.anomaly_map is not None:
                self.maps[path] = small_map(batch.anomaly_map[index])

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute all figures, and the curves of pixels."""
        super().on_test_epoch_end(trainer, pl_module)
        assert self.result is not None  # as the test has ended
        if self.result.figures["pixel_AUROC"] is not None:
            pixels = next(m for m in self.of_test if isinstance(m, AUPRO))
            curve: dict[str, Any] = pixels.curve()._asdict()
            rounded = {name: tuple(np.round(v, 5).tolist()) for name, v in curve.items()}
            self.curves = PixelCurves(**rounded)


def small_map(anomaly_map: Tensor) -> npt.NDArray[np.uint8]:
    """A map ``(height, width)`` in [0, 1] as the gallery shows it: of one size, in 0 to 255."""
    plain = anomaly_map.detach().as_subclass(Tensor).float().cpu()
    whole = plain.reshape(1, 1, *anomaly_map.shape[-2:])
    resized = F.interpolate(
        whole, size=(PICTURE_SIDE, PICTURE_SIDE), mode="bilinear", antialias=True
    )
    return as_255ths(resized[0, 0])
