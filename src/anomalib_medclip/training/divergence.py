"""What stops a run at the first number that is NaN or infinite."""

from collections.abc import Mapping
from typing import Any

import torch
from anomalib.data import ImageBatch
from lightning import LightningModule, Trainer
from lightning.pytorch import Callback
from torch import Tensor

from anomalib_medclip.components.finite import refuse_non_finite
from anomalib_medclip.errors import NonFiniteError


class FiniteOnly(Callback):
    """Stops training at a loss, and evaluation at a score or map, that is not finite.

    It comes before any callback that normalises, ranks or writes.

    Raises:
        NonFiniteError: There was one, in any process; all of them stop.
    """

    def __init__(self) -> None:
        self._last: tuple[Tensor, str] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget a former training."""
        del trainer, pl_module
        self._last = None

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - as Lightning passes it
        batch: Any,  # noqa: ANN401 - of any data
        batch_idx: int,
    ) -> None:
        """Look at the loss of the step before, and keep this one's.

        A GPU is done with the step before, or nearly: it need not wait until a number has come
        back. What a broken step has made is never saved, see ``refuse_non_finite_state``.
        """
        del pl_module, batch
        self._check()
        if isinstance(outputs, Mapping) and outputs.get("loss") is not None:
            broken = (~torch.isfinite(outputs["loss"].detach())).float()
            where = f"step {batch_idx + 1} of epoch {trainer.current_epoch + 1}"
            rates = [group["lr"] for one in trainer.optimizers for group in one.param_groups]
            if rates:  # some baselines have none
                where += f", at lr {rates[0]:g}"
            self._last = trainer.strategy.reduce(broken, reduce_op="sum"), where

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the last loss, before the epoch is saved."""
        del trainer, pl_module
        self._check()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - as Lightning passes it
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Refuse a batch with a score or a pixel that is not finite."""
        del trainer, pl_module, outputs, batch_idx, dataloader_idx
        refuse_non_finite(batch.pred_score, batch.anomaly_map, batch.image_path or ())

    on_test_batch_end = on_predict_batch_end = on_validation_batch_end

    def _check(self) -> None:
        if self._last is None:
            return
        (broken, where), self._last = self._last, None
        if broken.item():
            msg = (
                f"the loss is NaN or infinite in {where}: training has diverged, and was stopped. "
                "Lower the learning rate (--model.lr); if that does not help, look for NaN in the "
                "images, or train in float32 (--trainer.precision 32-true)"
            )
            raise NonFiniteError(msg)
