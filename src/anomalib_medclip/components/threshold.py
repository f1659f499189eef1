"""Where a score becomes abnormal, and what is said of the images that this was found on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from anomalib.metrics import F1AdaptiveThreshold
from torch import Tensor
from torchmetrics.utilities.data import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors

from anomalib_medclip.metrics.known_pixels import OfKnownPixels

VALIDATION = "validation"
"""The threshold was found on images that nothing was learnt from."""

ONE_CLASS = (
    "validation images that are all normal; it is the highest score among them",
    "validation images that are all abnormal; it lies just below the lowest score among them",
)
"""It was found on normal images alone, or on abnormal ones alone."""

TEST = "test images; expect figures at the threshold to be too good"
"""The images of validation were those of the test, as some datamodules of anomalib have it."""

SUPPORT = "support images"
"""It was found on the support, of which the model has learnt nothing but a sign or a prompt."""

CROSS_FITTED = "support images, each scored by a model that had not seen its patient"
"""It was found by training again without parts of the support; see ``CrossFit``."""

FAIR_RATE = 0.5
"""Sensitivity and specificity that a threshold should have on the very images it was chosen on."""

LEARNT_FROM = "images it learnt from"
"""It was found on the images that the method learnt from, and is off; see ``learnt_from``."""


def learnt_from(wants_abnormal: bool) -> str:
    """What is said of a threshold that was found on the images that the method learnt from.

    A method that learnt from both classes has pulled the scores of these very images apart, so
    that those of new abnormal images lie lower; one that learnt from normal images alone scores
    these very ones lower than new normal images.

    Args:
        wants_abnormal: Whether it learnt from abnormal images, too.
    """
    if wants_abnormal:
        return f"{LEARNT_FROM}; expect it too high, and abnormal images to be missed"
    return f"{LEARNT_FROM}; expect it too low, and false alarms"


def has_threshold(post_processor: Any) -> bool:  # noqa: ANN401 - anyone's, or none
    """Whether a post-processor can tell abnormal from normal: it is to, and a threshold is known.

    anomalib's takes the middle of the scale, 0.5, where no validation has found one.
    """
    # It may be any module, with an idea of its own of what it gives.
    if not getattr(post_processor, "enable_thresholding", False):
        return False
    return bool(post_processor.image_threshold.isfinite())


def has_pixel_threshold(post_processor: Any) -> bool:  # noqa: ANN401 - anyone's, or none
    """Whether a post-processor can tell abnormal from normal pixels, likewise.

    Images without masks tell it none.
    """
    if not getattr(post_processor, "enable_thresholding", False):
        return False
    return bool(post_processor.pixel_threshold.isfinite())


@contextmanager
def no_guess(post_processor: Any) -> Iterator[None]:  # noqa: ANN401 - anyone's
    """Have a post-processor that is traced give nothing that it knows no threshold for.

    A graph cannot ask. anomalib's own post-processor then gives labels and masks, or neither.
    """
    asked = post_processor.enable_thresholding
    post_processor.knows = has_threshold(post_processor), has_pixel_threshold(post_processor)
    post_processor.enable_thresholding = any(post_processor.knows)
    try:
        yield
    finally:
        post_processor.enable_thresholding, post_processor.knows = asked, None


class MidwayThreshold(OfKnownPixels, F1AdaptiveThreshold):  # type: ignore[misc]  # of ``update``
    """The threshold of the highest F1, halfway between the two scores that it parts.

    anomalib takes the lowest score to be called abnormal for the threshold, and then calls abnormal
    what lies *above* it, so that the very image that sets the threshold is called normal. Here the
    threshold lies halfway between that score and the next lower distinct one. Where there is no
    float32 number between the two, it is the lower one; where no score is lower, because all images
    are to be called abnormal, the next number below. Without abnormal images it is the highest
    score of the normal ones, as anomalib has it, and none of them is called abnormal.

    Attributes:
        sensitivity: Share of the abnormal among these very images that is found, once computed;
            NaN without any.
        specificity: Share of the normal ones that is not called abnormal, likewise.

    Example:
        >>> import torch
        >>> from anomalib.data import ImageBatch
        >>> threshold = MidwayThreshold(fields=["pred_score", "gt_label"])
        >>> threshold.update(
        ...     ImageBatch(
        ...         image=torch.zeros(4, 3, 2, 2),
        ...         pred_score=torch.tensor([0.125, 0.25, 0.75, 0.875]),
        ...         gt_label=torch.tensor([0, 0, 1, 1]),
        ...     )
        ... )
        >>> threshold.compute()
        tensor(0.5000)
    """

    sensitivity = float("nan")
    specificity = float("nan")

    def compute(self) -> Tensor:  # type: ignore[override]  # torchmetrics' curve, not anomalib's
        """The threshold, to be applied by ``>``."""
        threshold: Tensor = super().compute()
        scores, abnormal = dim_zero_cat(self.preds), dim_zero_cat(self.target) == 1
        if abnormal.any():
            threshold = _halfway_down(threshold, scores)
        found = scores > threshold
        self.sensitivity = float(found[abnormal].float().mean())
        self.specificity = float((~found[~abnormal]).float().mean())
        return threshold

    def _sync_dist(
        self,
        dist_sync_fn: Callable[..., list[Tensor]] = gather_all_tensors,
        process_group: Any = None,  # noqa: ANN401 - torch's
    ) -> None:
        """Gather the scores of all processes, of which some may have none.

        torchmetrics joins them to one tensor, which anomalib then walks through score by score.
        """
        for name, kind in (("preds", torch.float32), ("target", torch.long)):
            none = torch.empty(0, dtype=kind, device=self.device)
            own = torch.cat([none, *(part.to(kind) for part in getattr(self, name))])
            setattr(self, name, dist_sync_fn(own, group=process_group or self.process_group))


def _halfway_down(score: Tensor, scores: Tensor) -> Tensor:
    """A number below a score, and as far as there is one not below the next lower of the scores."""
    lower = scores[scores < score]
    below = (
        lower.max() if len(lower) else torch.nextafter(score, torch.full_like(score, -torch.inf))
    )
    middle = below / 2 + score / 2
    return torch.where((below < middle) & (middle < score), middle, below)
