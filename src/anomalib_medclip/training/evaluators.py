"""How a method's scores are measured while it is trained and tested."""

from typing import Any

from anomalib.metrics import F1Score as AnyF1Score
from lightning import LightningModule, Trainer

from anomalib_medclip.evaluation.findings import Findings
from anomalib_medclip.metrics.known_pixels import OfKnownPixels
from anomalib_medclip.metrics.ranked import AUROC
from anomalib_medclip.training.processes import of_all

_IMAGE, _PIXEL = ["pred_score", "gt_label"], ["anomaly_map", "gt_mask"]

_LOGGED = ("image_AUROC", "pixel_AUROC", "image_F1Score", "pixel_F1Score")
"""Metrics that Lightning is told of, too."""


class F1Score(OfKnownPixels, AnyF1Score):  # type: ignore[misc]  # of ``update``
    """anomalib's F1 at the threshold, without ignored pixels."""


class RunFindings(Findings):
    """``Findings`` of one or several processes, of which Lightning is told the usual figures."""

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute all figures, and log some."""
        super().on_test_epoch_end(trainer, pl_module)
        if pl_module.evaluator is self:  # and not beside one of a user's, who wants other metrics
            for metric in self.of_test:
                if metric.name in _LOGGED:
                    pl_module.log(metric.name, metric)

    def of_all(self, own: list[Any], loader: object) -> list[Any]:
        """What all processes have found of the batches of a loader, in the order of one."""
        return of_all(own, loader)


def evaluator() -> RunFindings:
    """Figures of images, volumes, patients and pixels; AUROC on validation images, too.

    Those of ranks are exact and of the model's own scores, whatever a post-processor makes of them.
    Without a threshold there are none at it.
    """
    return RunFindings(
        val_metrics=[
            AUROC(fields=_IMAGE, prefix="val_image_"),
            AUROC(fields=_PIXEL, prefix="val_pixel_", strict=False),
        ],
        more_metrics=[
            F1Score(fields=["pred_label", "gt_label"], prefix="image_", strict=False),
            F1Score(fields=["pred_mask", "gt_mask"], prefix="pixel_", strict=False),
        ],
    )
