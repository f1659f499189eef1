"""Models for tests of a comparison that goes wrong, and one that counts how often it is trained."""

import os
import signal
from pathlib import Path

from anomalib_medclip.models.mvfa import MVFA

RUNS = "ANOMALIB_MEDCLIP_TEST_RUNS"
"""Names the file to which trainings add a line."""

ONE_DIES = "one dies"


class Counted(MVFA):
    """Adds a line to a file when it is trained.

    Where the file begins with ``ONE_DIES``, the first takes its process with it, and that once.
    """

    @property
    def line(self):
        return f"{self.hparams['seed']} {self.trainer.datamodule.draw_seed}"

    def on_fit_start(self):
        super().on_fit_start()
        with Path(os.environ[RUNS]).open("a") as file:
            file.write(f"{self.line}\n")

    def training_step(self, batch, batch_idx):
        head, *runs = Path(os.environ[RUNS]).read_text().splitlines()
        if head == ONE_DIES and runs[0] == self.line and runs.count(self.line) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().training_step(batch, batch_idx)


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
