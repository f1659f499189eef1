"""Figures of pixels without those that are ignored, of which nobody knows."""

from collections.abc import Collection
from types import SimpleNamespace
from typing import Any

from torch import Tensor


def ignored_of(batch: Any, fields: Collection[str] = ("gt_mask",)) -> Tensor | None:  # noqa: ANN401 - anyone's
    """Where pixels of a batch are ignored, if a metric of these fields is of pixels."""
    # Batches of anomalib's have no such field.
    return getattr(batch, "ignored", None) if "gt_mask" in fields else None


class OfKnownPixels:
    """Put before a metric of anomalib's: its fields have the pixels that are known, along one axis.

    A metric that does so, or leaves them out itself, has the attribute ``leaves_out_ignored``;
    only such metrics are let at data with ``ignore_labels``.
    """

    leaves_out_ignored = True

    def update(self, batch: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as anomalib has it
        """Add a batch."""
        fields: Any = self.fields  # type: ignore[attr-defined]
        ignored = ignored_of(batch, fields)
        if ignored is not None:
            known = ~ignored.as_subclass(Tensor)
            batch = SimpleNamespace(
                **{name: _those(known, getattr(batch, name)) for name in fields}
            )
        super().update(batch, *args, **kwargs)  # type: ignore[misc]


def _those(known: Tensor, values: Tensor | None) -> Tensor | None:
    return None if values is None else values.reshape(known.shape)[known]
