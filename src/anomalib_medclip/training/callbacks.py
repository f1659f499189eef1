"""What Lightning calls back while a method is trained and tested, in the order that it does."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback

from anomalib_medclip.training.cross_fit import CrossFit
from anomalib_medclip.training.deciding import Deciding
from anomalib_medclip.training.divergence import FiniteOnly
from anomalib_medclip.training.epoch_choice import BestEpoch
from anomalib_medclip.training.epoch_seed import EpochSeed
from anomalib_medclip.training.processes import Processes
from anomalib_medclip.training.results import ResultsWriter
from anomalib_medclip.training.stopping import TidyStop


def callbacks_of(options: Mapping[str, Any], components: Sequence[Callback]) -> list[Callback]:
    """Processes, stops, the components, results, cross-fitting, decisions, the best epoch.

    Args:
        options: Those of the method.
        components: What anomalib calls back: its processors, evaluator and visualizer.
    """
    first = [Processes(), TidyStop(), EpochSeed(options["seed"]), FiniteOnly()]
    later = [ResultsWriter(), CrossFit(options["cross_fit"]), Deciding.as_asked(options)]
    best = [BestEpoch()] if options["epoch_choice"] == "validation" else []
    return [*first, *components, *later, *best]
