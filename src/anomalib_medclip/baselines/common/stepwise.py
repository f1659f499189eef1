"""A baseline that takes steps of its own: several a batch, or those of several networks in turn."""

from abc import abstractmethod
from typing import Any

import torch
from anomalib.data import ImageBatch
from jaxtyping import Float
from torch import Tensor

from anomalib_medclip.baselines.common.baseline import Baseline
from anomalib_medclip.errors import ConfigError


class Stepwise(Baseline):
    """What calls its optimisers itself, in ``learn``.

    Args:
        **kwargs: The options that all methods share; see ``SharedOptions``.
    """

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401 - the options that all methods share
        super().__init__(**kwargs)
        self.automatic_optimization = False

    @abstractmethod
    def learn(self, batch: ImageBatch, batch_idx: int) -> Float[Tensor, ""] | None:
        """Take the steps of a batch, each by ``step``.

        Returns:
            Their mean loss, without gradient; ``None`` if nothing can learn from the batch.
        """

    def setup(self, stage: str) -> None:
        """Refuse several processes, in which numbers of steps would differ.

        Raises:
            ConfigError: There are several.
        """
        if stage == "fit" and self.trainer.world_size > 1:
            msg = f"{type(self).__name__} takes as many steps as a batch has parts, and learns in "
            msg += "one process; leave trainer.devices and trainer.num_nodes at 1"
            raise ConfigError(msg)
        super().setup(stage)

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor | None:
        """Learn from a batch, and tell its loss."""
        self.support.learnt()
        self.schedule.is_finished = False
        self._trains_masks = batch.gt_mask is not None
        loss = self.learn(batch, batch_idx)
        if loss is not None:
            self.log("train_loss", loss, True, on_epoch=True, batch_size=1)
        return loss

    @property
    def may_step(self) -> bool:
        """Whether the steps that the trainer was asked for are not all taken yet."""
        return self.trainer.global_step != self.trainer.max_steps

    @property
    def epochs(self) -> int:
        """How many are trained; the method's own number where there is no end."""
        asked = self.trainer.max_epochs or 0
        return asked if asked > 0 else self.default_epochs

    def step(self, optimizer: Any, loss: Tensor) -> None:  # noqa: ANN401 - Lightning's
        """Take one step.

        Args:
            optimizer: One of ``optimizers()``.
            loss: With its gradient.
        """
        optimizer.zero_grad(set_to_none=True)
        self.manual_backward(loss)
        optimizer.step()


def mean_loss(losses: list[Tensor]) -> Float[Tensor, ""] | None:
    """Mean of losses without gradient; ``None`` of none."""
    return torch.stack(losses).mean() if losses else None
