"""The epoch that validation images like best, for those who prefer it to a fixed number."""

import logging
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch import Callback

from anomalib_medclip.clip.backbone import without_clip
from anomalib_medclip.decisions.decisions import Decisions
from anomalib_medclip.training.datamodule_view import DatamoduleView
from anomalib_medclip.training.schedule import checkpoint_callbacks, is_last_epoch

logger = logging.getLogger(__name__)

_KEY = "anomalib_medclip_best_epoch"
"""Where the best epoch so far lies in a checkpoint."""


def _cannot_choose(trainer: Trainer) -> bool:
    """Whether validation must not or cannot choose: support, test images, or one class only."""
    data = DatamoduleView.of(trainer)
    return data.validates_on_one_class or data.validates_on_support or data.validates_on_test


class BestEpoch(Callback):
    """Keeps the state of the best validation and puts it back when training ends.

    The best is the highest sum of ``val_image_AUROC`` and, with masks, ``val_pixel_AUROC``; the
    first of equals. Test images have no say; without validation images of both classes the last
    epoch stays.
    """

    def __init__(self) -> None:
        self._best = float("-inf")
        self._epoch = 0
        self._state: dict[str, Any] = {}
        self._decisions: Decisions | None = None
        self._is_back = False

    @property
    def kept(self) -> int | None:
        """Number of the epoch that is kept, counted from 1; ``None`` while it is the last."""
        return self._epoch + 1 if self._state else None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the state if it is the best so far."""
        watched = trainer.state.fn == "fit" and not trainer.sanity_checking
        if not watched or self._is_back or _cannot_choose(trainer):
            return
        metrics = trainer.callback_metrics
        names = ("val_image_AUROC", "val_pixel_AUROC")
        scores = [float(metrics[name]) for name in names if name in metrics]
        if scores and sum(scores) > self._best:
            self._best, self._epoch = sum(scores), trainer.current_epoch
            learnt = without_clip(pl_module.state_dict())
            self._state = {name: value.clone() for name, value in learnt.items()}
            self._decisions = getattr(pl_module, "decisions", None)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save what was best so far with a training that may go on."""
        del pl_module
        if not is_last_epoch(trainer):
            checkpoint[_KEY] = {
                "best": self._best, "epoch": self._epoch, "state": self._state,
                "decisions": self._decisions and self._decisions.as_plain(),
            }  # fmt: skip

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Go on with what was best so far."""
        del pl_module
        kept = checkpoint.get(_KEY)
        if kept and trainer.state.fn == "fit":
            self._best, self._epoch, self._state = kept["best"], kept["epoch"], kept["state"]
            found = kept.get("decisions")
            self._decisions = None if found is None else Decisions.from_plain(found)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the best back where a callback has ended training, over what was saved last."""
        if not self._state:
            logger.warning(
                "no validation images of both classes besides support and test: "
                "the last epoch is kept"
            )
        elif not self._is_back:
            self.put_back(pl_module)
            for callback in checkpoint_callbacks(trainer):
                if callback.best_model_path:
                    trainer.save_checkpoint(callback.best_model_path)

    def put_back(self, pl_module: LightningModule) -> None:
        """Put the best state back, if there is one, before the last epoch is saved."""
        if self._state:
            logger.info("epoch %d was best on the validation images; kept", self._epoch)
            pl_module.load_state_dict(pl_module.state_dict() | self._state)
            vars(pl_module)["decisions"] = self._decisions
            self._is_back = True


def put_best_back(trainer: Any, module: LightningModule) -> None:  # noqa: ANN401 - of which types know the public part
    """Put the best epoch back, where validation chooses, before the last one is saved."""
    for callback in trainer.callbacks:
        if isinstance(callback, BestEpoch):
            callback.put_back(module)
