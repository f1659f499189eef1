"""DRA's deviation loss: how far a score lies above what chance gives."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

DRAWS = 5000
"""Numbers that a prior is estimated from."""

MARGIN = 5.0
"""Deviations of the prior that anomalies are to lie above its mean."""


class Prior(NamedTuple):
    """Mean and deviation of scores that say nothing.

    Attributes:
        mean: About 0.
        std: About 1.
    """

    mean: Float[Tensor, ""]
    std: Float[Tensor, ""]

    @classmethod
    def drawn(cls) -> "Prior":
        """That of numbers drawn anew from a normal distribution, as for each loss."""
        numbers = torch.randn(DRAWS)
        return cls(numbers.mean(), numbers.std())


def deviation_loss(
    scores: Float[Tensor, "batch"], target: Float[Tensor, "batch"], prior: Prior
) -> Float[Tensor, ""]:
    """Mean distance of scores to the prior's mean or, where the target is 1, to the margin.

    Args:
        scores: At least 0.
        target: 1 where a score is to be high, else 0. Of an empty batch the loss is 0.
        prior: What scores are measured by.

    Example:
        >>> prior = Prior(torch.tensor(0.0), torch.tensor(1.0))
        >>> deviation_loss(torch.tensor([2.0, 3.0, 9.0]), torch.tensor([0.0, 1.0, 1.0]), prior)
        tensor(1.3333)
    """
    deviation = (scores - prior.mean.to(scores)) / prior.std.to(scores)
    terms = (1 - target) * deviation.abs() + target * (MARGIN - deviation).clamp(min=0)
    return terms.sum() / max(len(terms), 1)
