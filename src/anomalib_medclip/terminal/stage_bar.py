"""One bar for each stage of a run, which says what is being done and how much is left."""

import time
from collections.abc import Mapping
from math import isfinite
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar, TQDMProgressBar
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor

from anomalib_medclip.terminal.screen import CONSOLE

_EVERY = 0.25
"""Seconds between two drawings; without a thread, which a fork of the process would copy."""


class StageBar(ProgressBar):
    """A bar in place of the one that Lightning takes where nobody has chosen any.

    Validations within a training are part of it, and have no bar of their own. Where there is no
    terminal, nothing is drawn.
    """

    def __init__(self) -> None:
        super().__init__()
        self._is_on = True
        self._progress: Progress | None = None
        self._drawn = 0.0

    def disable(self) -> None:
        """Draw nothing."""
        self._is_on = False

    def enable(self) -> None:
        """Draw again."""
        self._is_on = True

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the place of the bar that nobody has chosen, if there is one."""
        whole: Any = trainer  # of which types do not know the callbacks
        others = [one for one in whole.callbacks if isinstance(one, ProgressBar)]
        others.remove(self)
        self._is_on = bool(others)
        for other in others:
            if type(other) in (RichProgressBar, TQDMProgressBar):
                other.disable()
            else:
                self.disable()
        super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with all steps of the training."""
        epochs, batches = trainer.max_epochs or -1, trainer.num_training_batches
        steps = epochs * batches if epochs > 0 else trainer.max_steps
        done = trainer.current_epoch * batches if isfinite(batches) else 0
        self._begin(f"training {type(pl_module).__name__}", steps, done)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say which epoch it is."""
        of = f" of {trainer.max_epochs}" if (trainer.max_epochs or 0) > 0 else ""
        words = f"training {type(pl_module).__name__}, epoch {trainer.current_epoch + 1}{of}"
        self._show(description=words)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - as Lightning passes it
        *batch: Any,  # noqa: ANN401 - likewise
    ) -> None:
        """Count a step, and say its loss."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if self._is_due() and isinstance(loss, Tensor):
            self._advance(said=f"loss {loss.item():.3f}")
        else:
            self._advance()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say that a training finds thresholds, or begin a validation that stands for itself."""
        if trainer.state.fn == "fit":
            self._show(description="finding thresholds", said="")
        else:
            self._begin(f"validating {type(pl_module).__name__}", _sum(trainer.num_val_batches))

    def on_validation_batch_end(self, trainer: Trainer, *batch: Any) -> None:  # noqa: ANN401
        """Count a batch of a validation that stands for itself."""
        if trainer.state.fn != "fit":
            self._advance()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with all batches of the test."""
        self._begin(f"testing {type(pl_module).__name__}", _sum(trainer.num_test_batches))

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with all batches of the prediction."""
        self._begin(f"predicting by {type(pl_module).__name__}", _sum(trainer.num_predict_batches))

    def on_test_batch_end(self, *batch: Any) -> None:  # noqa: ANN401 - as Lightning passes it
        """Count a batch."""
        self._advance()

    on_predict_batch_end = on_test_batch_end  # type: ignore[assignment]  # it asks for no more

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the last state of the bar on the screen."""
        if self._progress:
            self._show(description=f"trained {type(pl_module).__name__}", said="")
            self._end()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave it there, too, or go on with the training."""
        if trainer.state.fn != "fit":
            self._end()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave it there, too."""
        self._end()

    on_predict_end = on_test_end

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leave it there, too."""
        self._end()

    def _begin(self, words: str, total: float, done: float = 0) -> None:
        self._end()
        if not (self._is_on and CONSOLE.is_terminal):
            return
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[said]}"),
            console=CONSOLE, auto_refresh=False, expand=True,
        )  # fmt: skip
        known = total if 0 < total < float("inf") else None
        self._progress.add_task(words, total=known, completed=int(done), said="")
        self._progress.start()

    def _show(self, **news: Any) -> None:  # noqa: ANN401 - of a task of Rich
        if self._progress:
            self._progress.update(self._progress.task_ids[0], **news)
            self._progress.refresh()

    def _is_due(self) -> bool:
        return self._progress is not None and time.monotonic() - self._drawn >= _EVERY

    def _advance(self, **news: Any) -> None:  # noqa: ANN401 - of a task of Rich
        if self._progress:
            self._progress.update(self._progress.task_ids[0], advance=1, **news)
            if self._is_due():
                self._progress.refresh()
                self._drawn = time.monotonic()

    def _end(self) -> None:
        if self._progress:
            self._progress.stop()
            self._progress = None


def _sum(batches: float | list[int | float]) -> float:
    """Batches of all loaders."""
    return sum(batches) if isinstance(batches, list) else batches
