"""MKD's two networks, what they are compared by, and guided back-propagation."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Widths: TypeAlias = Sequence[int | Literal["M"]]
"""Widths of 3 x 3 convolutions in torchvision's notation of VGG, ``M`` for a max-pool."""

FIRST_POOL = 2
"""The pool that the networks are compared from, counted from 1."""


def cloner_widths(source: Widths, width: int | None) -> list[int | Literal["M"]]:
    """Widths of a cloner: narrow, but for the last convolution of each block that is compared.

    Args:
        source: Of the network to be cloned.
        width: Of all other convolutions; ``None`` for those of the source.

    Example:
        >>> cloner_widths([64, 64, "M", 128, 128, "M"], 16)
        [16, 16, 'M', 16, 128, 'M']
    """
    if width is None:
        return list(source)
    found: list[int | Literal["M"]] = []
    pools = 0
    for one, following in pairwise([*source, "M"]):
        pools += one == "M"
        is_compared = following == "M" and pools + 1 >= FIRST_POOL
        found.append(one if one == "M" or is_compared else width)
    return found


def cloner_layers(widths: Widths, bias: bool) -> nn.Sequential:
    """Convolution, batch norm and ReLU; the last convolution of a block has no norm.

    Weights of convolutions are Xavier's, uniform.

    Args:
        widths: See ``Widths``.
        bias: Whether convolutions have one.
    """
    layers: list[nn.Module] = []
    channels = 3
    for one, following in pairwise([*widths, "M"]):
        if one == "M":
            layers.append(nn.MaxPool2d(2))
            continue
        convolution = nn.Conv2d(channels, one, 3, padding=1, bias=bias)
        nn.init.xavier_uniform_(convolution.weight)
        norm = [] if following == "M" else [nn.BatchNorm2d(one)]
        layers += [convolution, *norm, nn.ReLU()]
        channels = one
    return nn.Sequential(*layers)


def pooled(
    layers: nn.Sequential,
    images: Float[Tensor, "batch 3 side side"],
    relu: Callable[[Tensor], Tensor] = F.relu,
) -> list[Float[Tensor, "batch _ _ _"]]:
    """What is compared of a network: its maps after all max-pools but the first.

    Args:
        layers: Convolutions, norms, ReLUs and max-pools.
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
    """A ReLU whose gradient is cut at zero as well (Springenberg et al., 2015)."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ANN401 - torch's
        ctx.save_for_backward(values)
        return values.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]  # noqa: ANN401
        (values,) = ctx.saved_tensors
        return gradient.clamp(min=0) * (values > 0)


def guided_relu(values: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """A ReLU by which only positive gradients come back."""
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
