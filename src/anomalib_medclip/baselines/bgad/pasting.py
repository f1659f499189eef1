"""More abnormal images: a disturbed lesion put onto a normal image."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.transforms import v2
from torchvision.tv_tensors import Image, Mask

_DRAWN = 3
"""Disturbances of an image, of ten."""

_Disturbance = Callable[..., Sequence[Tensor]]


def _turned(image: Image, mask: Mask) -> Sequence[Tensor]:
    turns = int(torch.randint(1, 4, ()))
    return [torch.rot90(one, turns, (-2, -1)) for one in (image, mask)]


def _transposed(image: Image, mask: Mask) -> Sequence[Tensor]:
    return [one.transpose(-2, -1) for one in (image, mask)]


def _at_times(chance: float, *transforms: v2.Transform) -> _Disturbance:
    return v2.RandomApply([v2.RandomChoice(list(transforms))], chance)


_DISTURBANCES: tuple[_Disturbance, ...] = (
    _turned,
    _transposed,
    v2.RandomChoice([v2.RandomHorizontalFlip(1.0), v2.RandomVerticalFlip(1.0)]),
    v2.ElasticTransform(alpha=60.0, sigma=6.0),
    _at_times(0.2, v2.GaussianNoise(sigma=0.05)),
    _at_times(0.2, v2.GaussianBlur(3), v2.GaussianBlur(7)),
    _at_times(0.2, v2.RandomAffine(45, translate=(0.06, 0.06), scale=(0.8, 1.2))),
    _at_times(0.2, v2.ElasticTransform(alpha=30.0, sigma=5.0), v2.RandomPerspective(0.3, 1.0)),
    _at_times(
        0.3, v2.RandomAdjustSharpness(2.0, 1.0), v2.ColorJitter(brightness=0.2, contrast=0.2)
    ),
    _at_times(0.3, v2.ColorJitter(hue=0.1, saturation=0.2)),
)
"""By torchvision, after the list of albumentations' that the authors draw from."""


def pasted(
    image: Float[Tensor, "3 side side"],
    mask: Float[Tensor, "1 side side"],
    normal: Float[Tensor, "3 side side"],
    seed: Sequence[int],
) -> tuple[Float[Tensor, "3 side side"], Float[Tensor, "1 side side"]]:
    """A lesion, disturbed by three of ten ways, in the place of what a normal image has there.

    Args:
        image: Abnormal, RGB in [0, 1].
        mask: 1 on its lesion, 0 elsewhere.
        normal: What it is put onto.
        seed: Of all that is drawn.

    Returns:
        The image, and the mask of what was put onto it.
    """
    drawn = np.random.default_rng(seed)
    moved: Sequence[Tensor] = Image(image), Mask(mask > 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(drawn.integers(2**63)))
        for number in drawn.permutation(len(_DISTURBANCES))[:_DRAWN]:
            moved = _DISTURBANCES[number](Image(moved[0]), Mask(moved[1]))
    lesion = moved[1].as_subclass(Tensor)
    found = torch.where(lesion, moved[0].as_subclass(Tensor).clamp(0, 1), normal)
    return found, lesion.to(mask.dtype)
