"""The fixed copies that the papers make of each support image, image and mask together."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Augmentation = Callable[[Tensor], Tensor]
"""Images ``(batch, channel, height, width)`` to images of the same shape."""


class Copies(NamedTuple):
    """The copies of support images that an epoch sees, the first being the image itself.

    Attributes:
        masks: What is done to masks.
        normal: What is done to normal images, number by number along with ``masks``.
        abnormal: What is done to abnormal ones.
    """

    masks: Sequence[Augmentation]
    normal: Sequence[Augmentation]
    abnormal: Sequence[Augmentation]

    @classmethod
    def alike(cls, augmentations: Sequence[Augmentation]) -> "Copies":
        """The same for masks and for images of both classes."""
        return cls(augmentations, augmentations, augmentations)

    def of(self, abnormal: Sequence[bool], numbers: Sequence[int]) -> list[Augmentation]:
        """What is done to images, each of a class, that are to become copies of some numbers."""
        pairs = zip(abnormal, numbers, strict=True)
        return [(self.abnormal if ill else self.normal)[number] for ill, number in pairs]


def warp(
    images: Float[Tensor, "batch channel height width"], matrix: tuple[float, ...]
) -> Float[Tensor, "batch channel height width"]:
    """Move pixels by an affine map, bilinear, mirrored at the edges.

    Args:
        images: Images, or masks as floats.
        matrix: Two rows of three numbers, from output to input positions in units of half the
            image; on images that are not square a rotation also shears.
    """
    theta = torch.tensor(matrix, dtype=images.dtype, device=images.device).view(1, 2, 3)
    grid = F.affine_grid(theta.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def rotation(degrees: float) -> Augmentation:
    """Rotate about the centre."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return partial(warp, matrix=(cosine, -sine, 0.0, sine, cosine, 0.0))


def translation(right: float, down: float) -> Augmentation:
    """Sample this far to the right and below, in halves of the image."""
    return partial(warp, matrix=(1.0, 0.0, right, 0.0, 1.0, down))


def unchanged(images: Tensor) -> Tensor:
    """Return the image itself, the first copy."""
    return images


ELEVEN_FOLD: tuple[Augmentation, ...] = (
    unchanged,
    *(rotation(degrees) for degrees in (-22.5, -11.25, 11.25, 22.5)),
    *(translation(a, b) for a, b in ((0.1, 0.1), (-0.1, 0.1), (-0.1, -0.1), (0.1, -0.1))),
    partial(torch.flip, dims=(-1,)),
    partial(torch.flip, dims=(-2,)),
)
"""MVFA's copies: the image, four rotations, four translations, two flips."""


def apply_copies(
    images: Float[Tensor, "batch channel height width"], augmentations: Sequence[Augmentation]
) -> Float[Tensor, "batch channel height width"]:
    """Give each image, or mask as floats, an augmentation of its own.

    Args:
        images: As many as there are augmentations.
        augmentations: One per image.
    """
    pairs = zip(augmentations, images.split(1), strict=True)
    return torch.cat([augment(image) for augment, image in pairs])


def all_copies(
    images: Float[Tensor, "batch channel height width"], augmentations: Sequence[Augmentation]
) -> Float[Tensor, "copies channel height width"]:
    """Every copy of every image: first all originals, then the next augmentation of all."""
    return torch.cat([augmentation(images) for augmentation in augmentations])
