"""What the model at hand says that it needs of its data."""

from typing import Any, NamedTuple

from lightning import Trainer


class ModelNeeds(NamedTuple):
    """What a model needs; the defaults are those of a model that does not say.

    Attributes:
        wants_abnormal: Whether it learns from abnormal images, too.
        copies: How often each training image comes, for a model that augments.
        default_batch_size: Images a training batch; ``None`` where it has no preference.
    """

    wants_abnormal: bool = False
    copies: int = 1
    default_batch_size: int | None = None


def needs_of(trainer: Trainer | None) -> ModelNeeds:
    """What the model of a trainer needs; without one, what a model that does not say needs."""
    model = None if trainer is None else trainer.lightning_module
    # Any model of anomalib may be trained on our data, and only this package's declare these.
    given: Any = {name: getattr(model, name, v) for name, v in ModelNeeds._field_defaults.items()}
    return ModelNeeds(**given)
