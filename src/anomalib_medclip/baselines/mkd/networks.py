"""MKD's two networks of one layout, what they are compared by, and guided back-propagation."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Blocks: TypeAlias = Sequence[Sequence[int]]
"""Widths of 3 x 3 convolutions, block by block; a max-pool halves the map after each block."""

FIRST_POOL = 2
"""The pool that networks are compared from, counted from 1."""


def vgg_layers(blocks: Blocks, *, bias: bool = True, norm: bool = False) -> nn.Sequential:
    """VGG's layers: convolution and ReLU, and a max-pool after each block.

    Args:
        blocks: See ``Blocks``.
        bias: Whether convolutions have one.
        norm: Put a batch norm behind all convolutions but the last of each block.
    """
    layers: list[nn.Module] = []
    channels = 3
    for block in blocks:
        for place, width in enumerate(block, start=1):
            layers.append(nn.Conv2d(channels, width, 3, padding=1, bias=bias))
            layers += [nn.BatchNorm2d(width)] if norm and place < len(block) else []
            layers.append(nn.ReLU())
            channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def narrow(blocks: Blocks, width: int) -> Blocks:
    """Blocks of a cloner: narrow, but where it is compared with the network of these blocks.

    Example:
        >>> narrow([[64, 64], [128, 128], [256, 256, 256]], 16)
        [[16, 16], [16, 128], [16, 16, 256]]
    """
    ends = [block[-1] if pool >= FIRST_POOL else width for pool, block in enumerate(blocks, 1)]
    return [[*[width] * (len(block) - 1), end] for block, end in zip(blocks, ends, strict=True)]


def pooled(
    layers: nn.Sequential,
    images: Float[Tensor, "batch 3 side side"],
    relu: Callable[[Tensor], Tensor] = F.relu,
) -> list[Float[Tensor, "batch _ _ _"]]:
    """What is compared of a network: its maps after all max-pools but the first.

    Args:
        layers: As ``vgg_layers`` gives them.
        images: What enters the first of them.
        relu: Computes the ReLUs.
    """
    found, stream = [], images
    for layer in layers:
        stream = relu(stream) if isinstance(layer, nn.ReLU) else layer(stream)
        if isinstance(layer, nn.MaxPool2d):
            found.append(stream)
    return found[FIRST_POOL - 1 :]


class _GuidedReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ANN401 - torch's
        ctx.save_for_backward(values)
        return values.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401 - torch's
        (values,) = ctx.saved_tensors
        return gradient.clamp(min=0) * (values > 0)


def guided_relu(values: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """A ReLU through which only positive gradients come back (Springenberg et al., 2015)."""
    found: Tensor = _GuidedReLU.apply(values)
    return found


def distances(
    cloned: Sequence[Float[Tensor, "batch _ _ _"]], source: Sequence[Float[Tensor, "batch _ _ _"]]
) -> tuple[Float[Tensor, "level batch"], Float[Tensor, "level batch"]]:
    """How far the maps of each level are apart: in direction, and in value.

    Args:
        cloned: The cloner's maps.
        source: Those of the network that it imitates.

    Returns:
        One minus the cosine of both maps, each taken as one vector, in [0, 2]; and the mean square
        of their difference.
    """
    pairs = [(a.flatten(1), b.flatten(1)) for a, b in zip(cloned, source, strict=True)]
    direction = [1 - F.cosine_similarity(a, b, dim=1) for a, b in pairs]
    value = [(a - b).square().mean(dim=1) for a, b in pairs]
    return torch.stack(direction), torch.stack(value)
