"""What a datamodule of another making lacks for a method, said before the first step."""

import logging
from collections.abc import Iterator

from anomalib_medclip.errors import EmptySplitError
from anomalib_medclip.training.datamodule_view import DatamoduleView

logger = logging.getLogger(__name__)


def refuse_or_warn(
    data: DatamoduleView, method: str, *, wants_abnormal: bool, has_memory: bool
) -> None:
    """Warn of what these data lack for a training; data of this package say it themselves.

    Args:
        data: What is to be trained on.
        method: Name of the method.
        wants_abnormal: Whether it learns from abnormal images, too.
        has_memory: Whether it keeps something of the support.

    Raises:
        EmptySplitError: There are no images to train on.
    """
    if data.is_ours or data.train_data is None:
        return
    if not len(data.train_data):
        msg = f"{data.name} has no images for training; correct its folders or its split"
        raise EmptySplitError(msg)
    for gap in _gaps(data, method, wants_abnormal=wants_abnormal, has_memory=has_memory):
        logger.warning("%s: %s", data.name, gap)


def _gaps(
    data: DatamoduleView, method: str, *, wants_abnormal: bool, has_memory: bool
) -> Iterator[str]:
    normals, images = len(data.normals), len(data.train_data)
    if wants_abnormal and normals == images:
        yield (
            f"{method} learns from normal and abnormal images, and those of training are all "
            "normal: what it learns tells little apart; give labelled abnormal images, too, by "
            "anomalib_medclip.data.MedicalFolder"
        )
    if has_memory:
        yield (
            f"nobody drew a support: images are compared with {len(data.support_items())} of the "
            f"{normals} normal images of training"
            if normals
            else "there is no normal image to compare with: each image is scored by itself"
        )
    if not data.val_data:
        yield (
            "there are no images for validation, so no threshold is found: images get scores and "
            "no verdict"
        )
    elif data.validates_on_test:
        yield (
            "the images of validation are those of the test, so the threshold has seen them; set "
            "val_split_mode to from_train or from_test"
        )
    elif data.validates_on_one_class:
        yield (
            "the images of validation are all of one class: the threshold is that of the highest "
            "score among them"
        )
