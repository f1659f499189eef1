"""When a training validates, and when it is finished."""

import logging
import sys
from pathlib import Path
from typing import Any

import torch
from anomalib.engine import Engine
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from anomalib_medclip.errors import UnfinishedError
from anomalib_medclip.terminal.callers import is_within

logger = logging.getLogger(__name__)

_LIGHTNING_EPOCHS = 1000
"""What Lightning's trainer says when nobody chose a number of epochs."""

_NEVER = sys.maxsize
"""Epochs between Lightning's own validations, where one at the end of training is enough."""


def is_last_epoch(trainer: Trainer) -> bool:
    """Whether training ends with the epoch at hand."""
    epochs, steps = trainer.current_epoch + 1, trainer.global_step
    may_stop = epochs >= (trainer.min_epochs or 0) and steps >= (trainer.min_steps or 0)
    stops = trainer.should_stop and may_stop
    return epochs >= (trainer.max_epochs or 0) > 0 or stops or steps == trainer.max_steps


def no_step(trainer: Trainer, model: nn.Module) -> Tensor | None:
    """What a training step gives that is to change nothing: nothing, where there is one process.

    Of several none may give nothing. Their loss of 0 reaches all that could learn; Adam changes it
    all the same, unless the gradients are taken away.
    """
    if trainer.world_size == 1:
        return None
    return torch.stack([0 * one.sum() for one in model.parameters() if one.requires_grad]).sum()


class Schedule:
    """Epochs and validations of a training.

    Args:
        default_epochs: Epochs trained, where nobody chose a number.

    Attributes:
        is_finished: Whether what was learnt so far, here or before it was restored, was finished;
            of a model that has learnt nothing it is.
    """

    is_finished = True  # pickles of former versions do not say

    def __init__(self, default_epochs: int) -> None:
        self._default_epochs = default_epochs
        self._validated_at: int | None = None
        self._resumed_from: str | Path | None = None

    def settle(self, trainer: Trainer, *, chooses: bool) -> None:
        """Before training: how many epochs there are, and whether each ends in a validation.

        Args:
            trainer: Which is to train.
            chooses: Whether validation chooses the epoch that is kept.
        """
        self._validated_at = self._resumed_from = None
        if trainer.max_epochs is not None and 0 < trainer.max_epochs <= trainer.current_epoch:
            logger.warning(
                "nothing is trained: this Engine has trained its %d epochs; make another one, or "
                "give it more max_epochs",
                trainer.max_epochs,
            )
        if trainer.max_epochs == _LIGHTNING_EPOCHS:
            logger.info("training %d epochs, the default of this method", self._default_epochs)
            trainer.fit_loop.max_epochs = self._default_epochs
        if not (chooses or is_watched(trainer)) and trainer.check_val_every_n_epoch == 1:
            logger.info("the epochs are fixed beforehand: validation comes after the last one")
            trainer.check_val_every_n_epoch = _NEVER
        for callback in checkpoint_callbacks(trainer):
            if callback._save_on_train_epoch_end is None:
                callback._save_on_train_epoch_end = True  # a crash then loses one epoch at most

    def note_validation(self, trainer: Trainer) -> None:
        """A validation begins."""
        self._validated_at = trainer.global_step

    def restored(self, trainer: Trainer | None, *, is_finished: bool) -> None:
        """A checkpoint of a finished training, or of another, is restored; a trainer may go on."""
        self.is_finished = is_finished
        if trainer and trainer.state.fn == "fit":
            self._resumed_from = trainer.ckpt_path

    def warn_if_unfinished(self) -> None:
        """Say that what is asked for scores was not trained to the end."""
        if not self.is_finished:
            logger.warning("this model %s", UnfinishedError.reason)

    def tests_where_it_resumed(self, trainer: Trainer | None) -> bool:
        """Whether anomalib's ``train`` has resumed a training, and would test its checkpoint."""
        path = trainer and trainer.ckpt_path
        resumed = path is not None and path == self._resumed_from
        return resumed and self.is_finished and is_within(Engine.train)

    def validate(self, trainer: Trainer, *, anew: bool) -> None:
        """Run a validation within the training, unless one was made of what is learnt.

        Args:
            trainer: Which is training.
            anew: Run it all the same.
        """
        if anew or self._validated_at != trainer.global_step:
            # As Lightning's own training loop does it.
            trainer.validating = True
            trainer.fit_loop.epoch_loop.val_loop.run()
            trainer.training = True

    @staticmethod
    def validates_often(trainer: Trainer) -> bool:
        """Whether images of validation come back in later epochs."""
        return trainer.check_val_every_n_epoch != _NEVER


def is_watched(trainer: Any) -> bool:  # noqa: ANN401 - a trainer
    """Whether a callback keeps an epoch, or stops training, for what validation says."""
    # Callbacks of anyone's making; only some watch a metric.
    monitors = [str(getattr(callback, "monitor", None)) for callback in trainer.callbacks]
    return any("val" in monitor for monitor in monitors)


def save_again(trainer: Trainer) -> None:
    """Write what was finished after the last epoch over the checkpoint of that epoch."""
    for callback in checkpoint_callbacks(trainer):
        if callback.monitor is None and callback.best_model_path:
            trainer.save_checkpoint(callback.best_model_path)


def checkpoint_callbacks(trainer: Trainer) -> list[ModelCheckpoint]:
    """Callbacks of a trainer that save checkpoints, Lightning's or anomalib's."""
    return [one for one in trainer.checkpoint_callbacks if isinstance(one, ModelCheckpoint)]
