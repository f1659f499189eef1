"""What a model says of itself, be it ours or not."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Declared(NamedTuple):
    """What models of this package declare, and what holds of those that do not.

    Attributes:
        untrained: Whether it has random weights where trained ones belong.
        wants_abnormal: Whether it learns from abnormal images, too.
        compared_with: Images that it compares with where it trains nothing; ``None`` of others.
        threshold_from: Which images its threshold was found on; empty where it does not say.
        features_found: Images whose frozen features another cell had computed.
        own_epochs: Epochs that it trains unless told otherwise; ``None`` if unknown.
        other_words: What its prompts say, where other words than its own were asked for.
        ready_to_score: Brings the model to where it can score between two epochs.
    """

    untrained: bool
    wants_abnormal: bool
    compared_with: int | None
    threshold_from: str
    features_found: int
    own_epochs: int | None
    other_words: dict[str, Any] | None
    ready_to_score: Callable[[], None]


def declared_by(model: Any) -> Declared:  # noqa: ANN401 - an AnomalibModule of whatever making
    """What a model declares.

    A comparison runs any model of anomalib's and of third parties, which have none of these names.
    """
    return Declared(
        untrained=bool(getattr(model, "untrained", _has_random_weights(model))),
        compared_with=_compared_with(model),
        wants_abnormal=bool(getattr(model, "wants_abnormal", False)),
        threshold_from=str(getattr(model, "threshold_from", "")),
        features_found=int(getattr(model, "features_found", 0)),
        own_epochs=_own_epochs(model),
        other_words=getattr(model, "other_words", None),
        ready_to_score=getattr(model, "ready_to_score", _nothing),
    )


def _own_epochs(model: Any) -> int | None:  # noqa: ANN401 - as above
    """Of a model that learns; epochs of one that does not are no training."""
    return getattr(model, "default_epochs", None) if getattr(model, "learns", False) else None


def _has_random_weights(model: Any) -> bool:  # noqa: ANN401 - as above
    """By the options, as the methods and anomalib's models call them."""
    options = getattr(model, "hparams", {})
    return options.get("pretrained", "") is None or options.get("pre_trained") is False


def _compared_with(model: Any) -> int | None:  # noqa: ANN401 - as above
    """Normal images that it was given to compare with, if that is all it does."""
    trains = getattr(model, "learns", True)
    return None if trains else getattr(getattr(model, "support", None), "compared_with", None)


def _nothing() -> None:
    """A model that is trained step by step can score at any time."""
