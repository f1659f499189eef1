"""Randomness that follows from the seed and the number of the epoch, and from nothing before."""

from typing import Any

import numpy as np
from lightning import LightningModule, Trainer, seed_everything
from lightning.pytorch import Callback


class EpochSeed(Callback):
    """Seeds each epoch by itself, so that a run that was stopped goes on as if it had not been.

    The first epoch has the seed itself. A checkpoint from the end of an epoch goes on with the
    next one; one from the middle of an epoch begins that epoch anew, as Lightning does.

    Args:
        seed: Of the training.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._epoch = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Seed what is set up for a training, which begins with the first epoch."""
        del trainer, pl_module
        if stage == "fit":
            self._begin(0)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note which epoch comes next."""
        del trainer, pl_module
        self._epoch = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed where a run goes on: its first batches are drawn before there is a later hook."""
        del trainer, pl_module
        if self._epoch:
            self._begin(self._epoch)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed every other epoch."""
        del pl_module
        if trainer.current_epoch != self._epoch:
            self._begin(trainer.current_epoch)

    def _begin(self, epoch: int) -> None:
        self._epoch = epoch
        mixed = np.random.SeedSequence([self._seed, epoch]).generate_state(1)[0]
        seed_everything(int(mixed) if epoch else self._seed, workers=True, verbose=not epoch)
