"""What an image's class token adds to learnt vectors: to prompts, and to queries."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class ClassTokens(nn.Module):
    """Learnt vectors plus, from the image, as many convolutions along its feature.

    Args:
        count: Number of vectors.
        width: Width of the image's feature, and of the vectors.
        from_image: Add the image's part; else the vectors are the same for all images.
    """

    def __init__(self, count: int, width: int, from_image: bool = True) -> None:
        super().__init__()
        self.vectors = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, count, width)))
        self.convolution = nn.Conv1d(1, count, kernel_size=3, padding=1) if from_image else None

    def forward(self, feature: Float[Tensor, "batch width"]) -> Float[Tensor, "batch count width"]:
        """Vectors for each image, from its un-normalised feature."""
        if self.convolution is None:
            return self.vectors.expand(feature.shape[0], -1, -1)
        return self.vectors + self.convolution(feature.unsqueeze(1))
