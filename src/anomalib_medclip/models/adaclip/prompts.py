"""Learnable prompts that are the same for all images, and those made of an image."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class DynamicPrompts(nn.Module):
    """Prompts made of an image's feature, each by a linear layer of its own.

    Args:
        feature: Width of the feature.
        width: Width of the prompts.
        length: Number of prompts.
    """

    def __init__(self, feature: int, width: int, length: int) -> None:
        super().__init__()
        self.head = nn.ModuleList(nn.Linear(feature, width) for _ in range(length))

    def forward(
        self, feature: Float[Tensor, "batch feature"]
    ) -> Float[Tensor, "batch length width"]:
        """Prompts of each image, from its un-normalised feature."""
        return torch.stack([head(feature) for head in self.head], dim=1)


def static_prompts(blocks: int, length: int, width: int) -> nn.ParameterList:
    """Vectors for each of some blocks, N(0, 0.02^2)."""
    return nn.ParameterList(0.02 * torch.randn(length, width) for _ in range(blocks))
