"""Scores as the model gave them, kept beside those that a post-processor makes of them."""

from copy import copy
from typing import TypeVar

from anomalib.data import Batch

SomeBatch = TypeVar("SomeBatch", bound="Batch")  # type: ignore[type-arg] # of whatever tensors

_ATTRIBUTE = "as_scored"


def keep_raw(batch: SomeBatch) -> None:
    """Remember scores and maps of a batch, before they are normalised in place."""
    setattr(batch, _ATTRIBUTE, copy(batch))


def raw(batch: SomeBatch) -> SomeBatch | None:
    """The batch with the scores and maps that were remembered, if any were."""
    # Batches are anomalib's, which have no field for it.
    found: SomeBatch | None = getattr(batch, _ATTRIBUTE, None)
    return found
