"""Maps of several sizes as one tensor, which is kept of an image as a whole."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def joined(maps: Sequence[Float[Tensor, "batch _ _ _"]]) -> Float[Tensor, "batch value"]:
    """All values of an image's maps, one map after the other."""
    return torch.cat([one.flatten(1) for one in maps], dim=1)


def parted(
    values: Float[Tensor, "batch value"], shapes: Sequence[tuple[int, int, int]]
) -> list[Float[Tensor, "batch _ _ _"]]:
    """The maps that were ``joined``.

    Args:
        values: What ``joined`` gave.
        shapes: Channels, height and width of each map.

    Example:
        >>> maps = [torch.zeros(5, 2, 4, 4), torch.ones(5, 3, 2, 2)]
        >>> [tuple(one.shape) for one in parted(joined(maps), [(2, 4, 4), (3, 2, 2)])]
        [(5, 2, 4, 4), (5, 3, 2, 2)]
    """
    parts = values.split([math.prod(shape) for shape in shapes], dim=1)
    return [one.unflatten(1, shape) for one, shape in zip(parts, shapes, strict=True)]
