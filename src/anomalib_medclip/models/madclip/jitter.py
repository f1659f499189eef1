"""MadCLIP's sixteen copies of each support image: MVFA's eleven, four zooms, one jitter."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from anomalib_medclip.components.augmentation import ELEVEN_FOLD, Augmentation, unchanged

Jitter = Literal["column", "image", "off"]
"""Over what a change of contrast takes its mean: each column, as in the code, or the image."""


def zoom(
    images: Float[Tensor, "batch channel height width"], factor: float
) -> Float[Tensor, "batch channel height width"]:
    """Enlarge the centre to the whole image, bilinear and without antialiasing."""
    height, width = images.shape[-2:]
    rows, columns = int(height / factor), int(width / factor)
    top, left = (height - rows) // 2, (width - columns) // 2
    bottom, right = (height + rows) // 2, (width + columns) // 2
    centre = images[..., top:bottom, left:right]
    return F.interpolate(centre, (height, width), mode="bilinear", align_corners=False)


def jitter(
    images: Float[Tensor, "batch channel height width"],
    brightness: float,
    contrast: float,
    column: bool = True,
) -> Float[Tensor, "batch channel height width"]:
    """Multiply by ``brightness``, then stretch around the mean by ``contrast``, within [0, 1].

    Args:
        images: Images in [0, 1].
        brightness: Factor on the image.
        contrast: Factor on the difference from the mean.
        column: Mean over channels and rows of each column, not over the image. So it is in the
            authors' code, which was written for images without a batch axis.
    """
    brighter = brightness * images
    mean = brighter.mean(dim=(1, 2) if column else (1, 2, 3), keepdim=True)
    return ((brighter - mean) * contrast + mean).clamp(0, 1)


def with_jitter(appearance: Augmentation) -> tuple[Augmentation, ...]:
    """The sixteen copies, given what happens to the fourteenth."""
    zooms = [partial(zoom, factor=factor) for factor in (1.1, 1.15, 1.2, 1.3)]
    return (*ELEVEN_FOLD[:9], *zooms, appearance, *ELEVEN_FOLD[9:])


SIXTEEN_FOLD = with_jitter(unchanged)
"""What is done to masks: the image, four rotations, four translations, four zooms, the image again
where its colours change, two flips."""


def drawn_jitters(seed: int, kind: Jitter) -> Sequence[tuple[Augmentation, ...]]:
    """The sixteen copies of normal and of abnormal images; each class has one jitter in a run.

    Args:
        seed: Seed of brightness and contrast, each uniform in [0.8, 1.2].
        kind: Over what the mean is taken, or ``"off"``.
    """
    if kind == "off":
        return SIXTEEN_FOLD, SIXTEEN_FOLD
    factors = 0.8 + 0.4 * torch.rand(2, 2, generator=torch.Generator().manual_seed(seed))
    return [
        with_jitter(partial(jitter, brightness=b, contrast=c, column=kind == "column"))
        for b, c in factors.tolist()
    ]
