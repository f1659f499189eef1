"""The one resize once more, of operations that graphs of exported models can hold."""

from typing import NamedTuple

import PIL
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from anomalib_medclip.readers.resize import Resample

_HALF = 2.0**11
"""Pillow's weights of 8-bit pixels have 22 bits. Sums with half of them are exact in float32."""

_TALL_IS_VERTICAL_FIRST = int(PIL.__version__.partition(".")[0]) >= 13
"""Whether Pillow begins with the height where that shrinks most; else it begins with the width."""


class _Weights(NamedTuple):
    """How much of each old pixel of a row is in each new one.

    Attributes:
        exact: As they are.
        high: The upper half of their bits, a whole number.
        low: The lower half, likewise.
    """

    exact: Float[Tensor, "side size"]
    high: Float[Tensor, "side size"]
    low: Float[Tensor, "side size"]


class GraphResize(nn.Module):
    """What ``MethodResize`` does to images, with operations of any runtime.

    Images of whole 255ths become the same to the bit where a runtime knows float64. In float32
    alone, as in OpenVINO, few pixels become the next 255th.

    Source: ``Resample.c`` of Pillow: a weighted sum along each side and, of 8-bit pixels, a whole
    255th after each of the two.

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

        They are quotients of whole numbers, small ones where the sizes have a simple ratio: there
        sums often lie halfway between two 255ths, and the last bit of a weight decides.
        """
        divisors = torch.tensor([one for one in range(1, self.side + 1) if self.side % one == 0])
        divides = torch.scalar_tensor(size, dtype=torch.int64) % divisors == 0
        divisor = torch.where(divides, divisors, 1).amax(dim=0)
        new = torch.arange(self.side)[:, None]
        away = ((2 * torch.arange(size) + 1) * self.side - (2 * new + 1) * size).abs()
        away = (away // divisor).double()
        unit = torch.scalar_tensor(2 * torch.sym_max(size, self.side)).double() / divisor
        if self.resample == "bilinear":
            parts = (unit - away).clamp(min=0)
        else:
            near = 2 * unit * unit + 2 * unit * away - 3 * away * away
            far = (2 * unit - away).clamp(min=0) ** 2
            parts = (unit - away) * torch.where(away < unit, near, far)
        total = parts.sum(dim=1, keepdim=True)
        high = (parts.abs() * _HALF / total).round()
        rest = parts.abs() * _HALF - high * total
        low = (rest * _HALF / total + 0.5).floor()
        return _Weights(
            *(w.float() for w in (parts / total, high * parts.sign(), low * parts.sign()))
        )


def _along_rows(
    pixels: Float[Tensor, "batch 3 rows size"],
    weights: _Weights,
    is_whole: Bool[Tensor, "batch 1 1 1"],
) -> Float[Tensor, "batch 3 rows side"]:
    """Pixels in 255ths, weighted and summed in each row; whole ones become whole ones."""
    summed = pixels @ torch.where(is_whole, weights.high, weights.exact).mT
    carried = (pixels @ weights.low.mT / _HALF).floor()
    whole = ((summed + carried + _HALF / 2) / _HALF).floor().clamp(0, 255)
    return torch.where(is_whole, whole, summed)
