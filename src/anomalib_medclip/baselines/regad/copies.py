"""RegAD's copies of each normal image of the support."""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from anomalib_medclip.components.augmentation import (
    Augmentation,
    Copies,
    rotation,
    translation,
    unchanged,
)

_GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue."""


def grey(
    images: Float[Tensor, "batch 3 height width"],
) -> Float[Tensor, "batch 3 height width"]:
    """Images without colour."""
    weights = torch.tensor(_GREY, dtype=images.dtype, device=images.device).view(1, 3, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True).expand_as(images)


def quarters(images: Tensor, turns: int) -> Tensor:
    """Square images turned by so many right angles."""
    return torch.rot90(images, turns, dims=(-2, -1))


TWENTY_TWO: tuple[Augmentation, ...] = (
    unchanged,
    *(rotation(step * 11.25) for step in (-4, -3, -2, -1, 1, 2, 3, 4)),
    *(
        translation(right * far, down * far)
        for far in (0.2, 0.1)
        for right, down in ((1, 1), (-1, 1), (-1, -1), (1, -1))
    ),
    partial(torch.flip, dims=(-1,)),
    grey,
    *(partial(quarters, turns=turns) for turns in (1, 2, 3)),
)
"""The image, eight rotations, eight translations, a flip, grey levels, three right angles."""

COPIES = Copies.alike(TWENTY_TWO)
