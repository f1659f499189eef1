"""Tokens to the width of the shared space, with nothing that learns."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class ChannelPooling(nn.Module):
    """Average neighbouring channels: what stands for the adapters in MediCLIP's table 4.

    Adaptive pooling as a matrix, because exported graphs know only windows of one size.
    """

    weights: Tensor

    def __init__(self, width: int, embed_dim: int) -> None:
        super().__init__()
        weights = F.adaptive_avg_pool1d(torch.eye(width), embed_dim)
        self.register_buffer("weights", weights, persistent=False)

    def forward(
        self, tokens: Float[Tensor, "batch token width"]
    ) -> Float[Tensor, "batch token embed_dim"]:
        """Nothing to learn, and nothing to seed."""
        return tokens @ self.weights
