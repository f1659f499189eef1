"""Tokens and text features, to a heat map."""

import math
from collections.abc import Iterable
from functools import cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

PatchScore = Literal["mean", "max"]
"""What the patches of an image come to."""


def align(
    tokens: Float[Tensor, "batch patch width"],
    text: Float[Tensor, "*per_image 2 width"],
    scale: float = 100.0,
) -> Float[Tensor, "batch patch 2"]:
    """Score every patch token against the normal and the abnormal prompt.

    The cosine of the two, sharpened by CLIP's logit scale.

    Args:
        tokens: Patch tokens of one level, class token already removed.
        text: Prompt features, row 0 normal and row 1 abnormal; ``(2, width)`` for all
            images, or ``(batch, 2, width)`` where each image has its own.
        scale: Factor on the cosine. CLIP was trained up to 100; MVFA keeps 100.

    Returns:
        Logits, not probabilities; channel 1 is abnormal.

    Example:
        >>> import torch
        >>> tokens = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])  # one image, two patches
        >>> align(tokens, text=torch.eye(2), scale=1.0)
        tensor([[[1., 0.],
                 [0., 1.]]])
    """
    return scale * along(tokens, F.normalize(text, dim=-1).transpose(-2, -1))


def along(
    tokens: Float[Tensor, "*batch patch width"], directions: Float[Tensor, "*batch width direction"]
) -> Float[Tensor, "*batch patch direction"]:
    """How far tokens, each brought to length one, reach along some directions.

    The length is divided by after the product: before it, every channel would be.
    """
    return tokens @ directions / tokens.norm(dim=-1, keepdim=True).clamp_min(1e-12)


def to_map(
    patches: Float[Tensor, "batch patch channel"], size: tuple[int, int], corners: bool = True
) -> Float[Tensor, "batch channel height width"]:
    """Lay patch values on their square grid and enlarge it bilinearly.

    Args:
        patches: One value per patch and channel, row by row.
        size: Height and width of the map in pixels.
        corners: Align the corners of grid and map; else their edges, as torch does by default.

    Raises:
        ValueError: The patches do not fill a square.

    Example:
        >>> import torch
        >>> to_map(torch.tensor([[[0.0], [1.0], [2.0], [3.0]]]), size=(2, 3))
        tensor([[[[0.0000, 0.5000, 1.0000],
                  [2.0000, 2.5000, 3.0000]]]])
    """
    count = patches.shape[1]
    side = math.isqrt(count)
    if side * side != count:
        msg = f"{count} patches do not fill a square grid; was the class token left in?"
        raise ValueError(msg)
    grid = patches.transpose(1, 2).unflatten(2, (side, side))
    rows, columns = (patches.new_tensor(_enlargement(side, length, corners)) for length in size)
    return rows @ grid @ columns.T


def abnormal_map(
    logits: Float[Tensor, "batch patch 2"], size: tuple[int, int]
) -> Float[Tensor, "batch 1 height width"]:
    """Probability of abnormal at each pixel; enlarged before the softmax, as in the authors' codes.

    A softmax of two is the sigmoid of their difference, so one channel is enough.

    Args:
        logits: Of normal and of abnormal, patch by patch.
        size: Height and width of the map in pixels.
    """
    normal, abnormal = logits.split(1, dim=-1)
    return to_map(abnormal - normal, size).sigmoid()


def text_maps(
    levels: Iterable[Float[Tensor, "batch patch width"]],
    text: Float[Tensor, "2 width"],
    size: tuple[int, int],
) -> list[Float[Tensor, "batch 1 height width"]]:
    """Probability of abnormal at each pixel, level by level; see ``align``, ``abnormal_map``."""
    return [abnormal_map(align(tokens, text), size) for tokens in levels]


def text_scores(
    levels: Iterable[Float[Tensor, "batch patch width"]],
    text: Float[Tensor, "2 width"],
    over: PatchScore = "mean",
) -> list[Float[Tensor, "batch"]]:
    """Probability of abnormal, mean or maximum over patches, level by level; see ``align``."""
    patches = [align(tokens, text).softmax(dim=-1)[..., 1] for tokens in levels]
    return [one.mean(dim=1) if over == "mean" else one.amax(dim=1) for one in patches]


def image_probability(
    features: Float[Tensor, "batch width"],
    text: Float[Tensor, "*per_image 2 width"],
    scale: float = 100.0,
) -> Float[Tensor, "batch"]:
    """Probability of abnormal of whole images, as CLIP classifies; see ``align``.

    Args:
        features: One vector an image, un-normalised.
        text: As ``align`` takes it.
        scale: Likewise.
    """
    return align(features.unsqueeze(1), text, scale)[:, 0].softmax(dim=-1)[:, 1]


@cache
def _enlargement(side: int, length: int, corners: bool) -> Float[np.ndarray, "length side"]:
    """Linear interpolation of a row of patches as a matrix.

    Two small products cost a fraction of what the gradient of ``F.interpolate`` costs on a CPU.
    """
    places = np.linspace(0, side - 1, length)
    if not corners:
        places = ((np.arange(length) + 0.5) * side / length - 0.5).clip(0, side - 1)
    distance = np.abs(places[:, None] - np.arange(side))
    return np.clip(1 - distance, 0, 1).astype(np.float32)


def unit_interval(
    values: Float[Tensor, "*any"], centre: float | Tensor = 0.5, spread: float | Tensor = 1.0
) -> Float[Tensor, "*any"]:
    """Map all numbers into (0, 1) in the same order, the centre to one half.

    anomalib's metrics take scores outside [0, 1] for logits, batch by batch, and clipping them
    would make ties; this makes none but those of float32, whose steps near one half are 6e-8 of
    the spread. A distance of one spread from the centre becomes 0.9 or 0.1.

    Args:
        values: Any numbers.
        centre: What becomes 0.5, such as a decision threshold.
        spread: Positive scale of the values around the centre.

    Example:
        >>> import torch
        >>> unit_interval(torch.tensor([-0.5, 0.5, 1.5, 100.0]))
        tensor([0.1000, 0.5000, 0.9000, 0.9987])
    """
    return 0.5 + 0.5 * F.softsign(4 * (values - centre) / spread)


def stretched(values: Float[Tensor, "*any"], extremes: Float[Tensor, "2"]) -> Float[Tensor, "*any"]:
    """Values moved from their extremes on some images to [0, 1], and beyond in the same steps.

    Where the extremes lie no further apart than rounding brings them, the values were constant, and
    are moved only: stretched, the rounding of another machine would be all that is seen.

    Example:
        >>> import torch
        >>> stretched(torch.tensor([1.0, 4.0]), torch.tensor([1.0, 3.0]))
        tensor([0.0000, 1.5000])
        >>> stretched(torch.tensor([0.5]), torch.tensor([0.49999994, 0.5])).item() < 1e-6
        True
    """
    low, high = extremes.unbind()
    rounding = 16 * torch.finfo(extremes.dtype).eps * torch.maximum(low.abs(), high.abs())
    return (values - low) / torch.where(high - low > rounding, high - low, 1.0)
