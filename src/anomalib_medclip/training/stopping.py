"""A run that is told to stop ends at once, tidily, and says how it goes on."""

import logging
import signal
from contextlib import ExitStack
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch import Callback

from anomalib_medclip.signals import Stopped, is_told, stop_if_told, tidy_stop, watch_again
from anomalib_medclip.training.schedule import checkpoint_callbacks

logger = logging.getLogger(__name__)


class TidyStop(Callback):
    """Ends a run by ``Stopped`` at Ctrl-C and SIGTERM; see ``anomalib_medclip.signals``."""

    def __init__(self) -> None:
        self._watching = ExitStack()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Watch the signals."""
        del trainer, pl_module, stage
        self._watching.enter_context(tidy_stop())

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Watch them in place of Lightning, whose processes wait for one another at a signal."""
        del trainer, pl_module
        watch_again()

    on_validation_start = on_test_start = on_predict_start = on_train_start

    def on_train_batch_start(self, *args: Any) -> None:  # noqa: ANN401 - Lightning's
        """Stop, should Python have lost what a signal has raised, as it does in destructors."""
        del args
        stop_if_told()

    on_validation_batch_start = on_train_batch_start  # type: ignore[assignment]
    on_test_batch_start = on_predict_batch_start = on_train_batch_start  # type: ignore[assignment]

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let the signals be what they were."""
        del trainer, pl_module, stage
        self._watching.close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Stop what this process has begun, let the signals be, and say how it goes on.

        Raises:
            Stopped: The program was told to stop, and that has ended in another error.
        """
        del pl_module
        if trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(signal.SIGTERM)
        trainer._signal_connector.teardown()  # Lightning would put back what it has found: ours
        try:
            if is_told() and trainer.is_global_zero:
                logger.warning(_how_it_goes_on(trainer))
            if isinstance(exception, Stopped):
                exception.is_said = True
            else:
                stop_if_told(is_said=True)
        finally:
            self._watching.close()


def _how_it_goes_on(trainer: Trainer) -> str:
    """In words."""
    if trainer.state.fn != "fit":
        return "stopped; the same command begins again"
    if path := _last_saved(trainer):
        return f"stopped; training goes on with --ckpt_path {path}"
    return "stopped before the first epoch was saved; begin again"


def _last_saved(trainer: Trainer) -> str:
    """The checkpoint that a training has written, if any."""
    saved = [one.best_model_path for one in checkpoint_callbacks(trainer)]
    return next(filter(None, saved), "")
