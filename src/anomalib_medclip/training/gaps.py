"""What a datamodule or a trainer lacks for a method, said before the first step."""

import logging
from collections.abc import Iterator
from typing import Any

from lightning import Trainer

from anomalib_medclip.components.threshold import ONE_CLASS
from anomalib_medclip.errors import ConfigError, EmptySplitError, MissingMaskError
from anomalib_medclip.training.datamodule_view import REFERENCES, DatamoduleView

logger = logging.getLogger(__name__)

_TRAINS_IN = ("32-true", "16-mixed", "bf16-mixed")
"""Precisions of Lightning's trainer; others cast the frozen towers, or images alone."""


def refuse_or_warn(data: DatamoduleView, method: Any) -> None:  # noqa: ANN401 - a method, above
    """Warn of what these data lack for a training; data of this package say it themselves.

    Args:
        data: What is to be trained on.
        method: What is to be trained; a ``ClipMethod``.

    Raises:
        EmptySplitError: There are no images to train on, or normal ones alone where the method
            needs both.
    """
    refuse_normals_alone(data, method)
    if data.is_ours or data.train_data is None:
        return
    if not len(data.train_data):
        msg = f"{data.name} has no images for training; correct its folders or its split"
        raise EmptySplitError(msg)
    for gap in (*_of_training(data, method), *_of_validation(data)):
        logger.warning("%s: %s", data.name, gap)


def refuse_normals_alone(data: DatamoduleView, method: Any) -> None:  # noqa: ANN401 - a method
    """Refuse normal images alone for a method whose loss means nothing without abnormal ones.

    Args:
        data: What is to be trained on.
        method: What is to be trained; a ``ClipMethod``.

    Raises:
        EmptySplitError: All images of training are normal.
    """
    if method.needs_abnormal and data.trains_on_normals_alone:
        msg = f"{type(method).__name__} learns from normal and abnormal images, and those of "
        msg += f"{data.name} for training are all normal; give labelled abnormal images, too, by "
        msg += "anomalib_medclip.data.MedicalFolder, or take a method that learns from normal "
        msg += "images, such as MediCLIP"
        raise EmptySplitError(msg)


def refuse_without_masks(data: DatamoduleView, method: str) -> None:
    """Refuse data from which a method that learns from masks alone can learn nothing.

    Of sets without masks among others that have some, it is warned.

    Args:
        data: What is to be trained on.
        method: The method's name, for messages.

    Raises:
        MissingMaskError: No set of training has masks.
    """
    if not (lacking := data.sets_without_masks):
        return
    said = f"{method} learns from masks alone, and {', '.join(lacking)} has none"
    if lacking == data.sets_learnt:
        msg = f"{said}: name the masks of these data, or take a method that learns from labels, too"
        raise MissingMaskError(msg)
    logger.warning("%s: nothing is learnt from it", said)


def refuse_precision(trainer: Trainer) -> None:
    """Refuse a trainer that casts more than what trains.

    Raises:
        ConfigError: It names the precisions that there are.
    """
    if trainer.precision not in _TRAINS_IN:
        known = ", ".join(map(repr, _TRAINS_IN))
        msg = f"the trainer's precision is {trainer.precision!r}, and must be one of {known}"
        raise ConfigError(msg)


def _of_training(data: DatamoduleView, method: Any) -> Iterator[str]:  # noqa: ANN401 - likewise
    normals, images = len(data.normals), len(data.train_data)
    if method.wants_abnormal and normals == images:
        yield (
            f"{type(method).__name__} learns from normal and abnormal images, and those of "
            "training are all normal: what it learns tells little apart; give labelled abnormal "
            "images, too, by anomalib_medclip.data.MedicalFolder"
        )
    if method.model.has_memory:
        compared = f"images are compared with {min(normals, REFERENCES)} of the {normals} normal "
        compared += "images of training"
        alone = "there is no normal image, either: each image is scored by itself"
        yield f"nobody drew a support; {compared if normals else alone}"


def _of_validation(data: DatamoduleView) -> Iterator[str]:
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
        [label] = data.val_classes or {0}
        yield f"the threshold is from {len(data.val_data)} {ONE_CLASS[label]}"
