"""Losses of a heat map against a lesion mask."""

from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

CrossEntropy = Literal["logits", "probabilities"]
"""What a cross-entropy takes a probability for: authors' codes, for a logit."""


class LossTerms(NamedTuple):
    """Losses of a batch, of each level and branch that a method has; empty where there are none.

    Attributes:
        detection: Of the image scores.
        focal: Of the maps, where there are masks.
        dice: Likewise.
    """

    detection: Float[Tensor, "*level"]
    focal: Float[Tensor, "*level"]
    dice: Float[Tensor, "*level"]

    def total(self, weights: Mapping[str, float] = MappingProxyType({})) -> Float[Tensor, ""]:
        """All terms, each with its weight.

        Args:
            weights: By the name of a field; 1 where none is said.
        """
        named = self._asdict().items()
        weighed = [term * weights[name] if name in weights else term for name, term in named]
        return torch.cat([term.flatten() for term in weighed]).sum()


def with_masks(
    detection: Float[Tensor, "*level"],
    maps: Sequence[Float[Tensor, "batch 1 height width"]],
    masks: Float[Tensor, "batch 1 height width"],
) -> LossTerms:
    """Terms of a batch with masks: the detection losses, focal and dice loss of every map.

    Args:
        detection: Losses of the image scores.
        maps: Probability of abnormal, as many as there are detection losses.
        masks: 1 on the lesion, 0 elsewhere, NaN where nobody knows.
    """
    return LossTerms(
        detection,
        torch.stack([focal(one, masks) for one in maps]).view_as(detection),
        torch.stack([dice(one, masks) for one in maps]).view_as(detection),
    )


def both_channels(
    detection: Float[Tensor, ""],
    maps: Sequence[Float[Tensor, "batch 1 height width"]],
    masks: Float[Tensor, "batch 1 height width"],
    by_rows: bool = False,
) -> LossTerms:
    """Terms of a batch with masks whose maps have to fit where they say normal, too.

    Args:
        detection: Loss of the image scores.
        maps: Probability of abnormal, level by level; that of normal is the rest to 1.
        masks: 1 on the lesion, 0 elsewhere, NaN where nobody knows.
        by_rows: Take the dice loss of every row of pixels, instead of every image.
    """
    terms = [dice(one, masks, by_rows) + dice(1 - one, 1 - masks, by_rows) for one in maps]
    return LossTerms(
        detection, torch.stack([focal(one, masks) for one in maps]), torch.stack(terms)
    )


def focal_of_scores(
    probability: Float[Tensor, "batch"], labels: Bool[Tensor, "batch"]
) -> Float[Tensor, ""]:
    """Focal loss of image scores; see ``focal``."""
    return focal(probability.view(-1, 1, 1, 1), labels.to(probability.dtype).view(-1, 1, 1, 1))


def without_masks(detection: Float[Tensor, "*level"]) -> LossTerms:
    """Terms of a batch with labels only."""
    nothing = detection.new_zeros(0)
    return LossTerms(detection, nothing, nothing)


def cross_entropy(
    probability: Float[Tensor, "*any batch"],
    labels: Bool[Tensor, "batch"],
    taken_for: CrossEntropy,
) -> Float[Tensor, "*any"]:
    """Binary cross-entropy of images' probabilities of abnormal, mean over the batch.

    Args:
        probability: In [0, 1].
        labels: True for abnormal.
        taken_for: As ``logits``, a sigmoid comes on top of what is a probability already.
    """
    target = labels.float().expand_as(probability)
    if taken_for == "probabilities":
        # A GPU's autocast refuses it, for what half precision makes of probabilities near 0.
        with torch.autocast(probability.device.type, enabled=False):
            terms = F.binary_cross_entropy(probability.float(), target, reduction="none")
        return terms.mean(dim=-1)
    terms = F.binary_cross_entropy_with_logits(probability, target, reduction="none")
    return terms.mean(dim=-1)


def focal(
    probability: Float[Tensor, "batch 1 height width"],
    mask: Float[Tensor, "batch 1 height width"],
    gamma: float = 2.0,
    smooth: float = 1e-5,
) -> Float[Tensor, ""]:
    """Focal loss of probabilities, as the authors of MVFA and MadCLIP write it.

    Not MONAI's: that one takes logits and knows no smoothing.

    Args:
        probability: Probability of abnormal; that of normal is the rest to 1.
        mask: 1 on the lesion, 0 elsewhere, NaN where nobody knows.
        gamma: How much well-classified pixels are played down.
        smooth: The one-hot target is kept this far from 0 and 1.

    Returns:
        Mean over all pixels of the batch that are known.
    """
    known, mask = known_part(mask)
    target = mask.clamp(smooth, 1 - smooth)
    likelihood = target * probability + (1 - target) * (1 - probability) + smooth
    losses = -((1 - likelihood) ** gamma * likelihood.log())
    return (losses * known).sum() / known.sum().clamp(min=1)


def dice(
    probability: Float[Tensor, "batch 1 height width"],
    mask: Float[Tensor, "batch 1 height width"],
    by_rows: bool = False,
) -> Float[Tensor, ""]:
    """Dice loss of the abnormal channel, smoothed by one pixel; MONAI's, mean over images.

    Args:
        probability: Probability of abnormal.
        mask: 1 on the lesion, 0 elsewhere, NaN where nobody knows.
        by_rows: Take every row of pixels for an image.
    """
    known, mask = known_part(mask)
    found = probability * known
    if by_rows:
        found, mask = (one.flatten(0, 2)[:, None, None] for one in (found, mask))
    loss: Tensor = _dice()(found, mask)
    return loss


def known_part(
    mask: Float[Tensor, "batch 1 height width"],
) -> tuple[Float[Tensor, "batch 1 height width"], Float[Tensor, "batch 1 height width"]]:
    """1 where a mask is known, 0 where it is NaN; and the mask with 0 there.

    Example:
        >>> known_part(torch.tensor([[[[1.0, torch.nan]]]]))
        (tensor([[[[1., 0.]]]]), tensor([[[[1., 0.]]]]))
    """
    return (~mask.isnan()).to(mask.dtype), mask.nan_to_num(0.0)


@cache
def _dice() -> nn.Module:
    from monai.losses.dice import DiceLoss  # takes half a second, and only training needs it

    loss: nn.Module = DiceLoss(smooth_nr=1, smooth_dr=1)
    return loss
