"""What each epoch would score on the test images; nothing of it reaches the training."""

import copy
import time
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import torch
from anomalib.data import ImageBatch
from lightning import LightningModule, Trainer
from lightning.pytorch import Callback

from anomalib_medclip.compare.declared import declared_by
from anomalib_medclip.compare.untouched import untouched
from anomalib_medclip.data.datamodule import MedicalDataModule
from anomalib_medclip.devices import wait_for
from anomalib_medclip.evaluation.figures import Figures, figures, rank_metrics
from anomalib_medclip.training.epoch_choice import BestEpoch

_C = TypeVar("_C", bound=Callback)

_MEMORY = 1_000_000_000
"""Bytes of test images that are kept between epochs; more are read anew."""


def callbacks_of(trainer: Trainer, kind: type[_C]) -> list[_C]:
    """The callbacks of a training that are of a kind."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return [one for one in callbacks if isinstance(one, kind)]


class EpochScores(Callback):
    """Records figures of the test images after epochs, for what is published: the best of them.

    Published numbers are those of the best epoch on the test set. To show what that is worth,
    figures are recorded here and never fed back: modes, random numbers and weights are afterwards
    as they were before. The last epoch is left to the test itself, unless validation chooses which
    epoch is tested.

    Args:
        tests: Data to test on, by name; those trained on may be among them.
        every: Epochs from one record to the next; 0 is never.

    Attributes:
        epochs: By name of the data and epoch, counted from 1: figures by name.
        seconds: What the recording took.
    """

    def __init__(self, tests: Mapping[str, MedicalDataModule], every: int = 1) -> None:
        self.tests = tests
        self.every = every
        self.epochs: dict[str, dict[int, Figures]] = {name: {} for name in tests}
        self.seconds = 0.0
        self._metrics = rank_metrics()
        self._room = _MEMORY
        self._batches: dict[str, list[ImageBatch]] = {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score the test images with the model as it is."""
        number = trainer.current_epoch + 1
        tested = number == trainer.max_epochs and not callbacks_of(trainer, BestEpoch)
        if not self.every or number % self.every or tested:
            return
        wait_for(pl_module.device)  # which may still be training
        start = time.perf_counter()
        with untouched(pl_module), torch.no_grad():
            trainer.validating = True  # as Lightning's own training loop does it
            declared_by(pl_module).ready_to_score()
            for name in self.tests:
                self.epochs[name][number] = self._score(name, trainer, pl_module)
            trainer.training = True
        self.seconds += time.perf_counter() - start

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the images go."""
        del trainer, pl_module
        self._batches = {}

    def _score(self, name: str, trainer: Trainer, pl_module: LightningModule) -> Figures:
        step: Any = pl_module.test_step
        for metric in self._metrics:
            metric.reset()
        for index, batch in enumerate(self._images(name, trainer, pl_module)):
            scored = step(pl_module.transfer_batch_to_device(batch, pl_module.device, 0), index)
            for metric in self._metrics:
                metric.update(scored)
        return figures(self._metrics)

    def _images(
        self, name: str, trainer: Trainer, pl_module: LightningModule
    ) -> Iterator[ImageBatch]:
        """Test batches, resized as the model wants them; kept if there is room."""
        if name in self._batches:
            yield from (copy.copy(batch) for batch in self._batches[name])
            return
        data, kept, size = self.tests[name], [], 0
        if data.trainer is None:  # others than those trained on
            data.trainer = trainer
            data.setup("test")
        pre_processor: Any = pl_module.pre_processor
        for batch in data.test_dataloader():
            pre_processor.on_test_batch_start(trainer, pl_module, batch, 0)
            size += batch.image.numel() * batch.image.element_size()
            if size <= self._room:
                kept.append(copy.copy(batch))
            yield batch
        if size <= self._room:
            self._room -= size
            self._batches[name] = kept
