"""Conditional flows over the vectors of feature maps: how likely each is to be normal there."""

import numpy as np
import torch
from anomalib.models.image.cflow.utils import cflow_head, get_logp, positional_encoding_2d
from jaxtyping import Float
from scipy.stats import special_ortho_group
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
        self.flow = cflow_head(code, blocks, CLAMP, self.width)
        drawn = np.random.default_rng(int(torch.randint(2**31, ())))
        for block in self.flow.module_list:
            turn = special_ortho_group.rvs(self.width, random_state=drawn)
            block.w_perm.data.copy_(torch.from_numpy(turn))
            block.w_perm_inv.data.copy_(torch.from_numpy(turn.T))
        positions = positional_encoding_2d(code, *grid).flatten(1).T
        self.register_buffer("positions", positions.contiguous(), persistent=False)

    def forward(
        self, vectors: Float[Tensor, "vector width"], positions: Float[Tensor, "vector code"]
    ) -> tuple[Float[Tensor, "vector width"], Float[Tensor, "vector"]]:
        """Each vector as the flow takes it to a unit Gaussian, and its logarithmic determinant.

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
