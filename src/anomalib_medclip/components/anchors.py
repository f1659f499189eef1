"""Two learnt vectors in the place of sentences, for image towers without text."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from anomalib_medclip.clip.towers import TextTower
from anomalib_medclip.components.prompts import PromptEncoder


class LearnableAnchors(PromptEncoder):
    """What normal and what abnormal patches are like, learnt from images alone.

    Args:
        embed_dim: Width of the space in which patches are compared with them.
        seed: Seed of the initial vectors, which are two random directions; the global generator is
            left alone.
    """

    learns: ClassVar[bool] = True
    reads_words: ClassVar[bool] = False

    def __init__(self, embed_dim: int, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.anchors = nn.Parameter(torch.randn(2, embed_dim, generator=generator))

    def forward(
        self, tower: TextTower | None = None, object_name: str = ""
    ) -> Float[Tensor, "2 embed_dim"]:
        """Unit vectors, row 0 normal and row 1 abnormal, whatever the images show."""
        del tower, object_name
        return F.normalize(self.anchors, dim=-1)
