"""What each epoch would score on the test images; nothing of it reaches the training."""

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from anomalib.data import ImageBatch
from lightning import LightningModule, Trainer
from lightning.pytorch import Callback
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

from anomalib_medclip.compare.testing import figures, rank_metrics

_MEMORY = 1_000_000_000
"""Bytes of test images that are kept between epochs; more are read anew."""


class EpochScores(Callback):
    """Records figures of the test images after epochs, for what is published: the best of them.

    Published numbers are those of the best epoch on the test set. To show what that is worth,
    figures are recorded here and never fed back: modes, random numbers and weights are afterwards
    as they were before. The last epoch is left to the test itself.

    Args:
        every: Epochs from one record to the next; 0 is never.

    Attributes:
        epochs: Figures by name, with ``epoch``, counted from 1.
        seconds: What the recording took.
    """

    def __init__(self, every: int = 1) -> None:
        self.every = every
        self.epochs: list[dict[str, Any]] = []
        self.seconds = 0.0
        self._metrics = rank_metrics()
        self._batches: list[ImageBatch] | None = None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score the test images with the model as it is."""
        number = trainer.current_epoch + 1
        if not self.every or number % self.every or number == trainer.max_epochs:
            return
        start = time.perf_counter()
        step: Any = pl_module.validation_step
        ready: Any = getattr(pl_module, "ready_to_score", None)
        with unchanged(pl_module), torch.no_grad():
            trainer.validating = True  # as Lightning's own training loop does it
            if ready is not None:
                ready()
            for metric in self._metrics:
                metric.reset()
            for index, batch in enumerate(self._images(trainer, pl_module)):
                moved = pl_module.transfer_batch_to_device(batch, pl_module.device, 0)
                scored = step(moved, index)
                for metric in self._metrics:
                    metric.update(scored)
            self.epochs.append({"epoch": number, **figures(self._metrics)})
            trainer.training = True
        self.seconds += time.perf_counter() - start

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the images go."""
        del trainer, pl_module
        self._batches = None

    def _images(self, trainer: Trainer, pl_module: LightningModule) -> Iterator[ImageBatch]:
        """Test batches, resized as the model wants them; kept if there is room."""
        if self._batches is not None:
            yield from (copy.copy(batch) for batch in self._batches)
            return
        kept, size = [], 0
        pre_processor: Any = pl_module.pre_processor
        for batch in trainer.datamodule.test_dataloader():  # type: ignore[attr-defined]
            pre_processor.on_test_batch_start(trainer, pl_module, batch, 0)
            size += batch.image.numel() * batch.image.element_size()
            if size <= _MEMORY:
                kept.append(copy.copy(batch))
            yield batch
        if size <= _MEMORY:
            self._batches = kept


@contextmanager
def unchanged(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; then modes and random numbers are as they were."""
    training = {part: part.training for part in module.modules()}
    with isolate_rng():
        module.eval()
        try:
            yield
        finally:
            for part, mode in training.items():
                part.training = mode
