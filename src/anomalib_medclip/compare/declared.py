"""What a model says of itself, be it ours or not."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Declared(NamedTuple):
    """What models of this package declare, and what holds of those that do not.

    Attributes:
        wants_abnormal: Whether it learns from abnormal images, too.
        threshold_from: Which images its threshold was found on; empty where it does not say.
        features_found: Images whose frozen features another cell had computed.
        own_epochs: Epochs that it trains unless told otherwise; ``None`` if unknown.
        other_words: What its prompts say, where other words than its own were asked for.
        ready_to_score: Brings the model to where it can score between two epochs.
    """

    wants_abnormal: bool
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


def _nothing() -> None:
    """A model that is trained step by step can score at any time."""
