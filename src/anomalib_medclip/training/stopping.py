"""A run that is told to stop ends at once, tidily, and says how it goes on."""

import logging
import signal
from contextlib import ExitStack

from lightning import LightningModule, Trainer
from lightning.pytorch import Callback

from anomalib_medclip.signals import Stopped, tidy_stop
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

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let the signals be what they were."""
        del trainer, pl_module, stage
        self._watching.close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Stop what this process has begun, let the signals be, and say how it goes on."""
        del pl_module
        if trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(signal.SIGTERM)
        trainer._signal_connector.teardown()  # Lightning would put back what it has found: ours
        self._watching.close()
        if not (isinstance(exception, Stopped) and trainer.is_global_zero):
            return
        if trainer.state.fn != "fit":
            logger.warning("stopped; the same command begins again")
        elif path := _last_saved(trainer):
            logger.warning("stopped; training goes on with --ckpt_path %s", path)
        else:
            logger.warning("stopped before the first epoch was saved; begin again")


def _last_saved(trainer: Trainer) -> str:
    """The checkpoint that a training has written, if any."""
    saved = [one.best_model_path for one in checkpoint_callbacks(trainer)]
    return next(filter(None, saved), "")
