"""A Gaussian at each position of maps, and how far others lie from its mean."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from anomalib_medclip.devices import most_exact

LEAST = 0.01
"""Added to each variance."""

_TOGETHER = 128
"""Positions that are solved at once."""


class PositionGaussian(NamedTuple):
    """Mean and, in a short form, covariance at each position.

    With n samples, the covariance is of rank n - 1 beside ``LEAST`` times the identity. A distance
    to its mean is therefore that of the identity, less what lies along n directions: n rows and not
    as many as there are channels, as long as n is smaller. Above that the rows are the whitening
    itself. Both give the Mahalanobis distance to the last digits.

    Attributes:
        mean: At each position.
        rows: Directions, scaled so that a squared length along them is what is taken off, or is the
            distance itself.
    """

    mean: Float[Tensor, "position channel"]
    rows: Float[Tensor, "position row channel"]

    @classmethod
    def of(cls, samples: Float[Tensor, "sample position channel"]) -> "PositionGaussian":
        """That of samples, computed as exactly as can be."""
        parts = [_fitted(part) for part in samples.transpose(0, 1).split(_TOGETHER)]
        means, rows = zip(*parts, strict=True)
        return cls(torch.cat(means), torch.cat(rows))

    def distance(
        self, maps: Float[Tensor, "batch position channel"]
    ) -> Float[Tensor, "batch position"]:
        """Mahalanobis distance to the mean of each position."""
        away = maps - self.mean
        along = torch.einsum("prc,bpc->bpr", self.rows, away).square().sum(dim=2)
        if self.is_whitening:
            return along.sqrt()
        return ((away.square().sum(dim=2) - along).clamp(min=0) / LEAST).sqrt()

    @property
    def is_whitening(self) -> bool:
        """Whether there were at least as many samples as channels."""
        return self.rows.shape[1] == self.rows.shape[2]


def _fitted(samples: Float[Tensor, "position sample channel"]) -> tuple[Tensor, Tensor]:
    """Mean and rows of some positions."""
    count, channels = samples.shape[1:]
    exact = samples.to(most_exact(samples.device))
    mean = exact.mean(dim=1, keepdim=True)
    centred = (exact - mean) / math.sqrt(max(count - 1, 1))  # one sample has no covariance
    whitens = count >= channels
    product = centred.mT @ centred if whitens else centred @ centred.mT
    one = torch.eye(product.shape[1], dtype=exact.dtype, device=exact.device)
    lower = torch.linalg.cholesky(product + LEAST * one)
    rows = torch.linalg.solve_triangular(lower, one if whitens else centred, upper=False)
    return mean[:, 0].to(samples), rows.to(samples)
