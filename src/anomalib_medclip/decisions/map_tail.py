"""How much of a map is above a threshold that is not known yet."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_KEPT = 1024
"""Pixels of a map that are kept at most; areas are then right to 1 %."""


class MapTail(NamedTuple):
    """The values of a map at some ranks, the highest first, the ranks denser the higher they are.

    Attributes:
        values: Descending.
        ranks: How many pixels have such a value or a higher one.
        pixels: How many there are.

    Example:
        >>> MapTail.of(np.array([[0.1, 0.9], [0.8, 0.2]])).share_above(0.5)
        0.5
    """

    values: npt.NDArray[np.float32]
    ranks: npt.NDArray[np.int64]
    pixels: int

    @classmethod
    def of(cls, anomaly_map: npt.ArrayLike) -> "MapTail":
        """Keep what is needed of a map of any shape."""
        values = np.sort(np.asarray(anomaly_map, dtype=np.float32), axis=None)[::-1]
        ranks = np.unique(np.geomspace(1, len(values), _KEPT).round().astype(np.int64))
        return cls(values[ranks - 1], ranks, len(values))

    def share_above(self, threshold: float) -> float:
        """Share of the pixels that are above a threshold."""
        count = int(np.searchsorted(-self.values, -np.float32(threshold), side="left"))
        return float(self.ranks[count - 1]) / self.pixels if count else 0.0
