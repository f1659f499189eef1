"""The one resize once more, of operations that graphs of exported models can hold."""

from typing import NamedTuple

import PIL
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from anomalib_medclip.readers.digits import BASE, Number, carried, digits, places, times, value
from anomalib_medclip.readers.resize import Resample

_TALL_IS_VERTICAL_FIRST = int(PIL.__version__.partition(".")[0]) >= 13
"""Whether Pillow begins with the height where that shrinks most; else it begins with the width."""


class _Weights(NamedTuple):
    """How much of each old pixel of a row is in each new one.

    Attributes:
        exact: As they are.
        high: The upper digit of Pillow's whole number, with the sign of the weight.
        low: The lower digit, likewise.
    """

    exact: Float[Tensor, "side size"]
    high: Float[Tensor, "side size"]
    low: Float[Tensor, "side size"]


class GraphResize(nn.Module):
    """What ``MethodResize`` does to images, with operations of any runtime.

    Images of whole 255ths become the same to the bit, in any runtime that computes in float32.

    Source: ``Resample.c`` of Pillow: a weighted sum along each side and, of 8-bit pixels, a whole
    255th after each of the two. Weights of these are whole numbers of 22 bits.

    Args:
        side: Side of the square in pixels.
        resample: Filter.
    """

    def __init__(self, side: int, resample: Resample) -> None:
        super().__init__()
        self.side = side
        self.resample = resample

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch 3 side side"]:
        """Resize images in [0, 1]; those of a fixed size that is right already pass."""
        height, width = images.shape[-2:]
        known = isinstance(height, int) and isinstance(width, int)
        if known and (height, width) == (self.side, self.side):
            return images
        steps = images * 255
        is_whole = ((steps - steps.round()).abs() < 1e-3).flatten(1).all(1)[:, None, None, None]
        pixels = torch.where(is_whole, steps.round(), steps)
        across, down = self._weights(width), self._weights(height)
        resized = _along_rows(_along_rows(pixels, across, is_whole).mT, down, is_whole).mT
        if _TALL_IS_VERTICAL_FIRST:
            other = _along_rows(_along_rows(pixels.mT, down, is_whole).mT, across, is_whole)
            shrinks = torch.scalar_tensor(height - self.side), 2 * (width - self.side)
            is_tall = (shrinks[0] > 0) & (shrinks[0] > shrinks[1])
            resized = torch.where(is_tall, other, resized)
        return (resized / 255).clamp(0, 1)

    def _weights(self, size: int) -> _Weights:
        """Weights for rows of some size.

        They are quotients of whole numbers, which are computed exactly: sums often lie halfway
        between two 255ths, and the last bit of a weight decides.
        """
        divisors = torch.tensor([one for one in range(1, self.side + 1) if self.side % one == 0])
        divides = torch.scalar_tensor(size, dtype=torch.int64) % divisors == 0
        divisor = torch.where(divides, divisors, 1).amax(dim=0)
        new = torch.arange(self.side)[:, None]
        away = ((2 * torch.arange(size) + 1) * self.side - (2 * new + 1) * size).abs()
        unit = torch.scalar_tensor(2 * torch.sym_max(size, self.side)).long()
        parts, sign = self._filter(digits(away // divisor), digits(unit // divisor))
        total = carried([(one * sign).sum(dim=1, keepdim=True) for one in parts], 2)
        whole = _quotient(parts, total)
        high = (whole / BASE + 0.5).floor()
        exact = value(parts) / value(total)
        return _Weights(*(one * sign for one in (exact, high, whole - high * BASE)))

    def _filter(self, away: Number, unit: Number) -> tuple[Number, Tensor]:
        """The filter at some distance from its centre, times a whole number, and its sign.

        Args:
            away: The distance.
            unit: What the filter takes for 1; it is 0 from 1 up, or from 2 if bicubic.
        """
        rest = [u - a for u, a in zip(unit, away, strict=True)]
        is_near = value(rest) > 0
        sign = torch.where(is_near, 1.0, -1.0)
        rest = carried([one * sign for one in rest])
        if self.resample == "bilinear":
            return [torch.where(is_near, one, 0.0) for one in rest], sign
        other = [2 * u - a for u, a in zip(unit, away, strict=True)]
        is_far = value(other) > 0
        other = carried([torch.where(is_far, one, 0.0) for one in other])
        products = zip(times(unit, unit), times(unit, away), times(away, away), strict=True)
        near = [2 * square + 2 * mixed - 3 * far for square, mixed, far in products]
        pairs = zip(near, times(other, other), strict=True)
        factor = carried([torch.where(is_near, *pair) for pair in pairs])
        return carried(times(factor, rest), 1), sign


def _quotient(parts: Number, total: Number) -> Tensor:
    """Quotients in [0, 1], times the square of the base, as the next whole numbers."""
    whole, divisor = torch.zeros_like(parts[0]), value(total)
    for count in (len(total) + 1, len(total) + 2):
        digit = (value(parts) * BASE / divisor).floor()
        pairs = zip(places(parts, 1, count), places(total, 0, count), strict=True)
        parts = carried([part - digit * one for part, one in pairs])
        whole = whole * BASE + digit
    return whole + (value(parts) / divisor + 0.5).floor()


def _along_rows(
    pixels: Float[Tensor, "batch 3 rows size"],
    weights: _Weights,
    is_whole: Bool[Tensor, "batch 1 1 1"],
) -> Float[Tensor, "batch 3 rows side"]:
    """Pixels in 255ths, weighted and summed in each row; whole ones become whole ones."""
    summed = pixels @ torch.where(is_whole, weights.high, weights.exact).mT
    carried = (pixels @ weights.low.mT / BASE).floor()
    whole = ((summed + carried + BASE / 2) / BASE).floor().clamp(0, 255)
    return torch.where(is_whole, whole, summed)
