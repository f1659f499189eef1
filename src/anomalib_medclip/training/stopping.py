"""A run that is told to stop ends at once, tidily, and says how it goes on."""

import logging
import signal

from lightning import LightningModule, Trainer
from lightning.pytorch import Callback

from anomalib_medclip.signals import Stopped, watch
from anomalib_medclip.training.schedule import checkpoint_callbacks

logger = logging.getLogger(__name__)


class TidyStop(Callback):
    """Ends a run by ``Stopped`` at Ctrl-C and SIGTERM; see ``anomalib_medclip.signals``.

    Lightning puts back the handlers that there were before the run.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Watch the signals."""
        del trainer, pl_module
        watch()

    on_validation_start = on_test_start = on_predict_start = on_train_start

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Stop the processes that this one has begun, and say how a training goes on."""
        del pl_module
        if trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(signal.SIGTERM)
        told = isinstance(exception, Stopped) and trainer.state.fn == "fit"
        if not (told and trainer.is_global_zero):
            return
        saved = [one.best_model_path for one in checkpoint_callbacks(trainer)]
        if path := next(filter(None, saved), ""):
            logger.warning("stopped; training goes on with --ckpt_path %s", path)
        else:
            logger.warning("stopped before the first epoch was saved; begin again")
