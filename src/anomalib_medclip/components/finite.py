"""What is NaN or infinite is no result: losses, weights, scores and maps are refused.

A comparison with NaN is false, so that a broken score would count as normal, silently.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from anomalib.data import ImageBatch
from jaxtyping import Bool, Float
from lightning import LightningModule, Trainer
from lightning.pytorch import Callback
from torch import Tensor

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


def non_finite(*values: Float[Tensor, "batch *any"] | None) -> Bool[Tensor, "batch"]:
    """Which images of a batch have a number that is NaN or infinite.

    Example:
        >>> non_finite(torch.tensor([0.5, 0.5]), torch.tensor([[[0.1, torch.inf]], [[0.1, 0.2]]]))
        tensor([ True, False])
    """
    known = [value.detach().reshape(len(value), -1) for value in values if value is not None]
    return ~torch.stack([value.isfinite().all(dim=1) for value in known]).all(dim=0)


def refuse_non_finite(
    scores: Float[Tensor, "batch"] | None,
    maps: Float[Tensor, "batch *pixels"] | None,
    names: Sequence[object] = (),
) -> None:
    """Let nothing pass that is NaN or infinite.

    Args:
        scores: How abnormal the images of a batch are, if that is known.
        maps: How abnormal their pixels are, if that is known.
        names: What to call the images, if they have names.

    Raises:
        NonFiniteError: Some are; the first image is named.
    """
    if scores is None and maps is None:
        return
    broken = non_finite(scores, maps)
    if not broken.any():
        return
    of = f" of {names[int(broken.nonzero()[0])]}" if names else ""
    msg = (
        f"a score or map{of} is NaN or infinite, which is neither normal nor abnormal: the model "
        f"has diverged or overflowed; {NonFiniteError.remedy}"
    )
    raise NonFiniteError(msg)


def refuse_non_finite_state(state: Mapping[str, Tensor], where: object) -> None:
    """Let no model pass that has learnt what is NaN or infinite.

    Thresholds that nobody has found yet are NaN, and pass.

    Args:
        state: What was learnt, by name.
        where: What to call the model.

    Raises:
        NonFiniteError: A number is not finite; its name is in the message.
    """
    for name, value in state.items():
        fine = value.isfinite()
        if name.startswith("post_processor."):
            fine |= value.isnan()
        if not fine.all():
            why = "is NaN or infinite: the model has diverged"
            msg = f"{name} of {where} {why}; {NonFiniteError.remedy}"
            raise NonFiniteError(msg)
