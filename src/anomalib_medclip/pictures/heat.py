"""The one scale of colours of all heat maps, and how a map is laid over its image."""

from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

NAME = "inferno"
"""matplotlib's name of the colours: lightness rises evenly with the value."""

OPACITY = 0.65
"""Of what is above the threshold, so that the image stays to be seen; below, heat fades to none."""


class HeatScale(NamedTuple):
    """Which values the two ends of the colours stand for, and where the threshold is.

    Attributes:
        low, high: Ends of the scale.
        threshold: Of pixels; ``None`` where none is known.
    """

    low: float = 0.0
    high: float = 1.0
    threshold: float | None = None

    @classmethod
    def of(cls, heat: Float[np.ndarray, "*any"], threshold: float | None) -> "HeatScale":
        """From 0 to 1 if a threshold is known, else over the range of the values."""
        if threshold is not None:
            return cls(0.0, 1.0, threshold)
        return cls(float(heat.min()), float(heat.max()))

    def place(self, values: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
        """Where values stand on the scale, in [0, 1]; 0 on a scale without length."""
        length = self.high - self.low
        if length <= 0:
            return np.zeros_like(values)
        return ((values - self.low) / length).clip(0, 1)


@cache
def table() -> UInt8[np.ndarray, "256 4"]:
    """Red, green, blue and opacity of 256 even steps of the scale.

    The first step is clear. Opacity rises as the fourth power of the value up to the middle, where
    thresholds of these models are, and is whole from there on; ``OPACITY`` scales all of it.

    >>> table()[0, 3], table()[64, 3], table()[128, 3]
    (np.uint8(0), np.uint8(16), np.uint8(255))
    """
    from matplotlib import colormaps  # which takes a moment, and not everybody draws

    colours: UInt8[np.ndarray, "256 4"] = colormaps[NAME](np.arange(256), bytes=True)
    colours[:, 3] = (255 * (2 * np.arange(256) / 255) ** 4).clip(0, 255).astype(np.uint8)
    return colours


def coloured(
    heat: Float[np.ndarray, "row column"], scale: HeatScale
) -> UInt8[np.ndarray, "row column 4"]:
    """A map in the colours of the table."""
    steps = (255 * scale.place(heat)).round().astype(np.uint8)
    found: UInt8[np.ndarray, "row column 4"] = table()[steps]
    return found


def laid_over(
    image: UInt8[np.ndarray, "row column 3"],
    heat: Float[np.ndarray, "row column"],
    scale: HeatScale,
) -> UInt8[np.ndarray, "row column 3"]:
    """An image with its map over it, both of one size; where the map is lowest, the image as is.

    >>> grey = np.full((1, 2, 3), 100, np.uint8)
    >>> laid_over(grey, np.array([[0.0, 1.0]], np.float32), HeatScale(threshold=0.5)).tolist()
    [[[100, 100, 100], [199, 200, 142]]]
    """
    colours = coloured(heat, scale).astype(np.float32)
    share = OPACITY / 255 * colours[..., 3:]
    mixed = image * (1 - share) + colours[..., :3] * share
    return mixed.round().astype(np.uint8)
