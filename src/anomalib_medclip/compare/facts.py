"""What was done in a cell: epochs, support, and where the threshold is from."""

import math
from typing import Any

from anomalib.engine import Engine
from anomalib.models.components.base import AnomalibModule

from anomalib_medclip.baselines.trivial import TrivialMixin
from anomalib_medclip.compare.store import Record
from anomalib_medclip.components.threshold import VALIDATION, learnt_from
from anomalib_medclip.data.datamodule import MedicalDataModule
from anomalib_medclip.training.epoch_choice import BestEpoch


def facts_of(model: AnomalibModule, data: MedicalDataModule, engine: Engine) -> Record:
    """What a record says of a training, besides its figures."""
    options, trained = model.hparams, engine.trainer.current_epoch
    callbacks: list[Any] = engine.trainer.callbacks  # type: ignore[attr-defined]
    chosen = [one.kept for one in callbacks if isinstance(one, BestEpoch) and one.kept]
    return {
        "untrained": options.get("pretrained", "") is None or options.get("pre_trained") is False,
        "epochs": trained,
        "epoch": next(iter(chosen), trained),
        "epoch_choice": "validation" if chosen else "last",  # what was done, not what was asked
        "learns_abnormal": bool(getattr(model, "wants_abnormal", False)),
        "support": data.support_counts,
        "trained_on": len(data.train_data.samples),
        "threshold_from": _threshold_from(model, data),
        "threshold_rates": _threshold_rates(model),
        "zero_shot": data.zero_shot,
    }


def _threshold_from(model: AnomalibModule, data: MedicalDataModule) -> str:
    """As the model says, or for models of others as the data do: these learn from normal images."""
    if said := getattr(model, "threshold_from", ""):
        return str(said)
    if not data.validates_on_support:
        return VALIDATION
    return "support images" if isinstance(model, TrivialMixin) else learnt_from(False)


def _threshold_rates(model: AnomalibModule) -> dict[str, float | None]:
    """Sensitivity and specificity of the threshold on the images that it was found on."""
    found = getattr(model.post_processor, "own_rates", {})
    return {name: None if math.isnan(rate) else rate for name, rate in found.items()}
