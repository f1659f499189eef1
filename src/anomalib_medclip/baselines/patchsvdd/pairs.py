"""Pairs of patches that PatchSVDD learns from: where they lie, and what is in them."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

DIRECTIONS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
"""Rows and columns from a patch to its neighbours."""

_JITTER = 0.02
"""Standard deviation of what is added to patches, in grey levels from 0 to 1."""

Places = Int[Tensor, "pair 2"]
"""Row and column of the upper left pixel of patches."""


class Neighbours(NamedTuple):
    """Pairs of patches, and in which direction the second was looked for."""

    first: Places
    second: Places
    direction: Int[Tensor, "pair"]


def neighbours(count: int, patch: int, side: int, device: torch.device) -> Neighbours:
    """Pairs of neighbouring patches, by chance.

    The second begins three quarters of a patch away or a little more, in one of ``DIRECTIONS``;
    where that leads out of the image, it lies at the edge, and the direction stays.

    Args:
        count: How many.
        patch: Side of the patches in pixels.
        side: Side of the images in pixels.
        device: Where they are drawn.
    """
    first = torch.randint(side - patch + 1, (count, 2), device=device)
    direction = torch.randint(len(DIRECTIONS), (count,), device=device)
    away = 3 * patch // 4 + torch.randint(patch // 4, (count, 2), device=device)
    ways = torch.tensor(DIRECTIONS, device=device)[direction]
    return Neighbours(first, (first + ways * away).clamp(0, side - patch), direction)


def close_by(count: int, patch: int, side: int, device: torch.device) -> tuple[Places, Places]:
    """Pairs of patches that lie almost at one place, by chance; arguments as of ``neighbours``."""
    most = patch // 32
    first = torch.randint(side - patch + 1, (count, 2), device=device)
    steps = 2 * most + 1
    # Any of the places around, but not the place itself, which is the one in the middle.
    number = torch.randint(steps**2 - 1, (count,), device=device)
    number = number + (number >= steps**2 // 2)
    shift = torch.stack([number // steps, number % steps], dim=1) - most
    return first, (first + shift).clamp(0, side - patch)


def cut(
    images: Float[Tensor, "batch 3 side side"], places: Places, patch: int
) -> Float[Tensor, "pair 3 patch patch"]:
    """Patches of images, the pairs in turn of one image after the other."""
    number = torch.arange(len(places), device=images.device) % len(images)
    windows = images.unfold(2, patch, 1).unfold(3, patch, 1)
    return windows[number, :, places[:, 0], places[:, 1]]


def jittered(patches: Float[Tensor, "pair 3 patch patch"]) -> Float[Tensor, "pair 3 patch patch"]:
    """Patches, each of another colour by chance, with noise."""
    colour = _JITTER * torch.randn_like(patches[..., :1, :1])
    return patches + colour + _JITTER * torch.randn_like(patches)
