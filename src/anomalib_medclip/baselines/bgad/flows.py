"""Conditional flows over the vectors of feature maps: how likely each is to be normal, and where."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from anomalib.models.image.cflow.utils import cflow_head, get_logp, positional_encoding_2d
from jaxtyping import Float
from torch import Tensor, nn

CLAMP = 1.9
"""Of the scale part of a coupling block, whose exponential is taken."""


class LevelFlow(nn.Module):
    """The flow of one level: eight coupling blocks with a position code as their condition.

    Blocks, position code and likelihood are those of anomalib's CFLOW, here with the rotations that
    the authors draw between blocks in the place of permutations.

    Args:
        shape: Channels, height and width of the level's map.
        blocks: Number of coupling blocks.
        code: Width of the position code, a multiple of 4.
    """

    positions: Tensor

    def __init__(self, shape: tuple[int, int, int], blocks: int = 8, code: int = 128) -> None:
        super().__init__()
        self.width, *grid = shape
        self.flow = cflow_head(code, blocks, CLAMP, self.width, permute_soft=True)
        positions = positional_encoding_2d(code, *grid).flatten(1).T
        self.register_buffer("positions", positions.contiguous(), persistent=False)

    def forward(
        self, vectors: Float[Tensor, "vector width"], positions: Float[Tensor, "vector code"]
    ) -> tuple[Float[Tensor, "vector width"], Float[Tensor, "vector"]]:
        """Each vector as the flow takes it to a unit Gaussian, and the logarithm of its determinant.

        Args:
            vectors: Of the level's map.
            positions: The rows of ``positions`` that belong to them.
        """
        found: tuple[Tensor, Tensor] = self.flow(vectors, [positions])
        return found

    def logp(
        self, vectors: Float[Tensor, "vector width"], positions: Float[Tensor, "vector code"]
    ) -> Float[Tensor, "vector"]:
        """Log-likelihood of each vector, divided by its width."""
        latent, determinant = self(vectors, positions)
        return get_logp(self.width, latent, determinant) / self.width

    def logp_map(
        self, features: Float[Tensor, "batch width height columns"]
    ) -> Float[Tensor, "batch height columns"]:
        """The same of whole maps."""
        vectors = features.flatten(2).transpose(1, 2)
        positions = self.positions.expand(features.shape[0], -1, -1)
        found = self.logp(vectors.flatten(0, 1), positions.flatten(0, 1))
        return found.view(features.shape[0], *features.shape[2:])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw weights by torch, and rotations by SciPy's use of NumPy's global stream, from a seed."""
    before = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(before)
