"""PatchSVDD's encoder of patches, on patches or on whole images, and its classifier of places."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

SMALL, BIG = 32, 64
"""Sides of the two kinds of patches, in pixels."""

STRIDES = {BIG: 16, SMALL: 4}
"""Steps from a patch to the next where images are scored, in pixels."""

_CHANNELS = (3, 32, 64, 128, 128, 64, 32, 32)
"""Of the input, and of all layers but the last."""


class Encoder(nn.Module):
    """Patches of 32 or 64 px to vectors of numbers in [-1, 1].

    A patch of 64 px is seen as four of 32, by the same weights.

    Args:
        width: Length of the vectors.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        pairs = enumerate(pairwise((*_CHANNELS, width)))
        self.small = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=1 if number else 2)
            for number, (before, after) in pairs
        )
        self.join = nn.Conv2d(width, 128, 2)
        self.last = nn.Conv2d(128, width, 1)

    def forward(self, patches: Float[Tensor, "patch 3 side side"]) -> Float[Tensor, "patch width"]:
        """Vectors of patches, all of one kind.

        Args:
            patches: Without the mean image, in [-1, 1].
        """
        if patches.shape[-1] == SMALL:
            return self._small(patches).flatten(1)
        quarters = patches.unfold(2, SMALL, SMALL).unfold(3, SMALL, SMALL)  # patch 3 2 2 32 32
        each = quarters.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
        vectors = self._small(each).view(len(patches), 2, 2, -1).permute(0, 3, 1, 2)
        return self._joined(vectors, 1).flatten(1)

    def dense(
        self, images: Float[Tensor, "batch 3 side side"]
    ) -> dict[int, Float[Tensor, "batch width rows rows"]]:
        """Vectors of every patch of whole images, ``STRIDES`` apart, by the patches' side.

        The small encoder moves by 2 pixels from a number to the next, so that every second number
        is of the patches of 32 px that are scored; those of 64 px lie on the same grid.
        """
        grid = self._small(images)
        found = self._joined(grid, SMALL // 2)
        steps = {side: stride // 2 for side, stride in STRIDES.items()}
        return {
            BIG: found[..., :: steps[BIG], :: steps[BIG]],
            SMALL: grid[..., :: steps[SMALL], :: steps[SMALL]],
        }

    def _small(
        self, images: Float[Tensor, "batch 3 side side"]
    ) -> Float[Tensor, "batch width rows rows"]:
        stream = images
        for layer in list(self.small)[:-1]:
            stream = F.leaky_relu(layer(stream), 0.1)
        return torch.tanh(self.small[-1](stream))

    def _joined(
        self, quarters: Float[Tensor, "batch width rows rows"], apart: int
    ) -> Float[Tensor, "batch width fewer fewer"]:
        """Of each four quarters, that many numbers of the grid apart, one vector."""
        joined = F.conv2d(quarters, self.join.weight, self.join.bias, dilation=apart)
        return torch.tanh(self.last(F.leaky_relu(joined, 0.1)))


class PlaceClassifier(nn.Module):
    """In which of eight directions a second patch lies from a first, by the difference of vectors.

    Args:
        width: Length of the vectors.

    Attributes:
        directions: Weight of the last layer; its columns are of length one, and never learn.
    """

    directions: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, 128), nn.Linear(128, 128)
        last = nn.Linear(128, 8)
        self.bias = last.bias
        self.register_buffer("directions", F.normalize(last.weight.detach(), dim=0))

    def forward(
        self, first: Float[Tensor, "pair width"], second: Float[Tensor, "pair width"]
    ) -> Float[Tensor, "pair 8"]:
        """Logits of the directions."""
        stream = F.leaky_relu(self.first(first - second), 0.1)
        return F.linear(F.leaky_relu(self.second(stream), 0.1), self.directions, self.bias)
