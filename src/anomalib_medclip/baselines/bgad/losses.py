"""BGAD's losses of log-likelihoods: of normal positions, and of both classes at a boundary.

All take log-likelihoods divided by the width of their vectors, at positions of one level.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

NORMALIZER = 10.0
"""What log-likelihoods are divided by where they meet the boundary."""


class Boundary(NamedTuple):
    """Where log-likelihoods, divided by ``NORMALIZER``, should lie.

    Attributes:
        beta: Share of normal positions that lie below the boundary of normal ones.
        tau: How far below that the boundary of abnormal ones lies.
    """

    beta: float = 0.01
    tau: float = 0.1

    def of(self, normal: Float[Tensor, "position"]) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Boundary of normal and of abnormal positions, without gradient.

        Args:
            normal: Log-likelihoods of normal positions.
        """
        ascending = normal.detach().sort().values
        found = ascending[int(len(ascending) * self.beta)] / NORMALIZER
        return found, found - self.tau


class FlowLoss(NamedTuple):
    """Losses of the positions of one level; 0 where there is nothing to lose.

    Attributes:
        likelihood: Of normal positions.
        normal: Of normal positions that lie below their boundary.
        abnormal: Of abnormal positions that lie above theirs.
    """

    likelihood: Float[Tensor, ""]
    normal: Float[Tensor, ""]
    abnormal: Float[Tensor, ""]

    def total(self, weight: float = 1.0) -> Float[Tensor, ""]:
        """All of them, those of the boundary with a weight."""
        return self.likelihood + weight * (self.normal + self.abnormal)


def flow_loss(
    logp: Float[Tensor, "position"],
    abnormal: Bool[Tensor, "position"],
    boundary: Boundary,
    focal: bool,
) -> FlowLoss:
    """Losses of some positions, of which some are normal.

    The printed loss of the authors is NaN where no position lies beyond its boundary; its gradient
    is that of this one.

    Args:
        logp: Log-likelihoods.
        abnormal: Whether a position is on a lesion.
        boundary: Which one.
        focal: Weigh positions by how hard they are.
    """
    normal, ill = logp[~abnormal], logp[abnormal]
    of_normal = normal_weights(normal) if focal else torch.ones_like(normal)
    likelihood = (-F.logsigmoid(normal) * of_normal).mean()
    if not len(ill):
        nothing = logp.new_zeros(())
        return FlowLoss(likelihood, nothing, nothing)
    of_ill = abnormal_weights(ill) if focal else torch.ones_like(ill)
    above, below = boundary.of(normal)
    short, long = above - normal / NORMALIZER, ill / NORMALIZER - below
    return FlowLoss(
        likelihood,
        _mean_where(short * of_normal, short >= 0),
        _mean_where(long * of_ill, long >= 0),
    )


def normal_weights(logp: Float[Tensor, "position"]) -> Float[Tensor, "position"]:
    """Focal weights of normal positions, without gradient: 1 for those that are likely."""
    scaled = logp.detach() / NORMALIZER
    hard = 11.7 * (1 - scaled.exp()).clamp(min=0).sqrt() * scaled.abs()
    return torch.where(scaled > -0.2, torch.ones_like(hard), hard)


def abnormal_weights(logp: Float[Tensor, "position"]) -> Float[Tensor, "position"]:
    """Focal weights of abnormal positions, without gradient: 1 for those that are unlikely."""
    scaled = logp.detach() / NORMALIZER
    hard = 0.53 * (1 + scaled.exp()).square() / scaled.abs()
    return torch.where(scaled <= -1, torch.ones_like(hard), hard)


def _mean_where(values: Tensor, chosen: Tensor) -> Float[Tensor, ""]:
    return (values * chosen).sum() / chosen.sum().clamp(min=1)
