"""Models for tests of a comparison that goes wrong, and one that counts how often it is trained."""

import os
import signal
from pathlib import Path

from anomalib_medclip.models.mvfa import MVFA

RUNS = "ANOMALIB_MEDCLIP_TEST_RUNS"
"""Names the file to which trainings add a line."""


class Counted(MVFA):
    """Adds a line to a file when it is trained."""

    def on_fit_start(self):
        super().on_fit_start()
        with Path(os.environ[RUNS]).open("a") as file:
            file.write(f"{self.hparams['seed']} {self.trainer.datamodule.draw_seed}\n")


class Raises(MVFA):
    """Fails at its first step."""

    def training_step(self, batch, batch_idx):
        print("its last words")  # noqa: T201 - what the record of a failure holds
        msg = "no <b>luck</b>, again"
        raise RuntimeError(msg)


class Dies(MVFA):
    """Takes its process with it, whenever it is trained."""

    def training_step(self, batch, batch_idx):
        os.kill(os.getpid(), signal.SIGKILL)


class DiesOnce(Counted):
    """Takes its process with it when the first of all cells is trained for the first time."""

    def training_step(self, batch, batch_idx):
        runs = Path(os.environ[RUNS]).read_text().splitlines()
        mine = f"{self.hparams['seed']} {self.trainer.datamodule.draw_seed}"
        if mine == runs[0] and runs.count(mine) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().training_step(batch, batch_idx)
