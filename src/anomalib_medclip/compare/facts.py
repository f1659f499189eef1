"""What was done in a cell: epochs, support, and where the threshold is from."""

import math

from anomalib.engine import Engine
from anomalib.models.components.base import AnomalibModule

from anomalib_medclip.compare.cell_record import TrainingFacts
from anomalib_medclip.compare.declared import declared_by
from anomalib_medclip.compare.epochs import callbacks_of
from anomalib_medclip.components.processors import RankPreservingPostProcessor
from anomalib_medclip.components.threshold import VALIDATION, learnt_from
from anomalib_medclip.data.datamodule import MedicalDataModule
from anomalib_medclip.training.epoch_choice import BestEpoch


def facts_of(model: AnomalibModule, data: MedicalDataModule, engine: Engine) -> TrainingFacts:
    """What a record says of a training, besides its figures."""
    trained, says = engine.trainer.current_epoch, declared_by(model)
    images = len(data.train_data.samples) if says.compared_with is None else says.compared_with
    chosen = [one.kept for one in callbacks_of(engine.trainer, BestEpoch) if one.kept]
    return TrainingFacts(
        untrained=says.untrained,
        epochs=trained,
        own_epochs=says.own_epochs,
        epoch=next(iter(chosen), trained),
        epoch_choice="validation" if chosen else "last",  # what was done, not what was asked
        learns_abnormal=says.wants_abnormal,
        support=data.support_counts,
        trained_on=images,
        threshold_from=says.threshold_from or _threshold_of_others(data),
        threshold_rates=_threshold_rates(model),
        zero_shot=data.zero_shot,
        words=says.other_words,
    )


def _threshold_of_others(data: MedicalDataModule) -> str:
    """As the data do, for models that say nothing: these learn from normal images."""
    return learnt_from(wants_abnormal=False) if data.validates_on_support else VALIDATION


def _threshold_rates(model: AnomalibModule) -> dict[str, float | None]:
    """Sensitivity and specificity of the threshold on the images that it was found on."""
    assert isinstance(model.post_processor, RankPreservingPostProcessor)  # which the cell gave it
    found = model.post_processor.own_rates
    return {name: None if math.isnan(rate) else rate for name, rate in found.items()}
