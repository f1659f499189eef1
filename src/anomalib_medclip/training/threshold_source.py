"""Which images a threshold is found on, and whether the one of training stays."""

import logging
from typing import Any

from anomalib_medclip.components.processors import RankPreservingPostProcessor
from anomalib_medclip.components.threshold import (
    CROSS_FITTED,
    ONE_CLASS,
    SUPPORT,
    TEST,
    VALIDATION,
    has_threshold,
    learnt_from,
)
from anomalib_medclip.training.datamodule_view import DatamoduleView

logger = logging.getLogger(__name__)


def source_of(data: DatamoduleView, method: Any, *, apart: bool) -> str:  # noqa: ANN401 - anyone's
    """Which images a threshold comes from, for whoever asks later.

    Args:
        data: What is validated on.
        method: Which is validated; that it trains nothing, or learns from abnormal images, it says
            itself.
        apart: Whether support images were scored by models that have not seen them.
    """
    if data.validates_on_test:
        return TEST
    if not data.validates_on_support:
        classes = data.val_classes
        return ONE_CLASS[min(classes)] if classes and len(classes) == 1 else VALIDATION
    if not (getattr(method, "learns", True) or method.model.has_memory):
        return SUPPORT  # sentences know nothing of it
    return CROSS_FITTED if apart else learnt_from(bool(getattr(method, "wants_abnormal", False)))


def warn_of_guesses(post_processor: Any) -> None:  # noqa: ANN401 - anyone's, or none
    """Say that a post-processor of anomalib's labels by one half where no threshold is known."""
    labels = getattr(post_processor, "enable_thresholding", False)
    own = isinstance(post_processor, RankPreservingPostProcessor)  # which gives none, and says so
    if labels and not own and not has_threshold(post_processor):
        kind = type(post_processor).__name__
        words = "no threshold is known, and %s labels by 0.5, which was found on no image"
        logger.warning(words, kind)


def keep_if_learnt_from(post_processor: Any, data: DatamoduleView) -> bool:  # noqa: ANN401 - anyone's
    """Keep the threshold of training, where these data have only images that it learnt from."""
    keeps = has_threshold(post_processor) and data.validates_on_support
    if isinstance(post_processor, RankPreservingPostProcessor):
        post_processor.keeps_threshold = keeps
    if keeps:
        logger.info("only support images are left for validation: the threshold stays")
    return keeps
