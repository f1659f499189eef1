"""How a method's scores are measured while it is trained and tested."""

from anomalib.metrics import Evaluator
from anomalib.metrics import F1Score as AnyF1Score

from anomalib_medclip.metrics.known_pixels import OfKnownPixels
from anomalib_medclip.metrics.ranked import AUROC

_IMAGE, _PIXEL = ["pred_score", "gt_label"], ["anomaly_map", "gt_mask"]


class F1Score(OfKnownPixels, AnyF1Score):  # type: ignore[misc]  # of ``update``
    """anomalib's F1 at the threshold, without ignored pixels."""


def evaluator() -> Evaluator:
    """AUROC and F1 of images and, with masks, pixels; AUROC on validation images, too.

    The AUROCs are exact and of the model's own scores, whatever a post-processor makes of them.
    Without a threshold there is no F1.
    """
    return Evaluator(
        val_metrics=[
            AUROC(fields=_IMAGE, prefix="val_image_"),
            AUROC(fields=_PIXEL, prefix="val_pixel_", strict=False),
        ],
        test_metrics=[
            AUROC(fields=_IMAGE, prefix="image_"),
            AUROC(fields=_PIXEL, prefix="pixel_", strict=False),
            F1Score(fields=["pred_label", "gt_label"], prefix="image_", strict=False),
            F1Score(fields=["pred_mask", "gt_mask"], prefix="pixel_", strict=False),
        ],
    )
