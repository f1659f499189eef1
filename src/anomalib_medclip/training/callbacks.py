"""What Lightning calls back while a method is trained and tested, in the order that it does."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning import Trainer
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import RichModelSummary

from anomalib_medclip.terminal.parameters import Parameters
from anomalib_medclip.terminal.stage_bar import StageBar
from anomalib_medclip.training.cross_fit import CrossFit
from anomalib_medclip.training.deciding import Deciding
from anomalib_medclip.training.divergence import FiniteOnly
from anomalib_medclip.training.epoch_choice import BestEpoch
from anomalib_medclip.training.epoch_seed import EpochSeed
from anomalib_medclip.training.processes import Processes, own_folder
from anomalib_medclip.training.results import ResultsWriter
from anomalib_medclip.training.stopping import TidyStop


def callbacks_of(
    options: Mapping[str, Any], components: Sequence[Callback], trainer: Trainer | None
) -> list[Callback]:
    """Processes, stops, the components, results, cross-fitting, decisions, the best epoch.

    Args:
        options: Those of the method.
        components: What anomalib calls back: its processors, evaluator and visualizer.
        trainer: Which is to call, if there is one.
    """
    first = [*common_callbacks(trainer), EpochSeed(options["seed"]), FiniteOnly()]
    later = [ResultsWriter(), CrossFit(options["cross_fit"]), Deciding.as_asked(options)]
    best = [BestEpoch()] if options["epoch_choice"] == "validation" else []
    return [*first, *components, *later, *best]


def common_callbacks(trainer: Trainer | None) -> list[Callback]:
    """Those of any model of this package, which come first: processes, stops, what is shown.

    A test without a training gets a folder of its own, before anything is written.
    """
    if trainer is None:
        return [Processes(), TidyStop()]
    own_folder(trainer)
    whole: Any = trainer  # of which types do not know the callbacks
    usual = any(type(one) is RichModelSummary for one in whole.callbacks)
    return [Processes(), TidyStop(), StageBar(), *([Parameters()] if usual else [])]
