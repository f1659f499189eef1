"""Learnable prompts that enter the text tower anew before several of its blocks."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from anomalib_medclip.clip.towers import TextTower
from anomalib_medclip.option_checks import checked


class InsertedPrompts(nn.Module):
    """Learnable prompts after the start token, anew before each block; the words move right.

    The names of the parameters are those of the files of IQE-CLIP's and VCP-CLIP's authors.

    Args:
        tower: The text tower they are made for.
        length: Number of prompts.
        depth: Number of blocks that have prompts of their own; later ones go on with what became
            of the last. By default all.
        dropout: Probability of each of their numbers to be 0 in training, anew for each sentence.

    Raises:
        ConfigError: The tower has not so many blocks.
    """

    def __init__(
        self,
        tower: TextTower,
        length: int = 1,
        depth: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        most = tower.depth
        asked = most if depth is None else depth
        self.depth = checked("deep_prompt_depth", asked, 1, most, whole=True)
        width, later = tower.width, self.depth - 1
        self.prompt_embeddings = nn.Parameter(torch.empty(1, length, width).uniform_(-1, 1))
        self.deep_prompt_embeddings = nn.Parameter(
            torch.empty(later, length, width).uniform_(-1, 1)
        )
        self.prompt_proj = nn.Linear(width, width)
        nn.init.kaiming_normal_(self.prompt_proj.weight, mode="fan_out")
        self.prompt_norm = nn.LayerNorm(width, eps=1e-6)
        self.dropout = nn.Dropout(dropout)

    @property
    def differs(self) -> bool:
        """Whether each sentence has prompts of its own, by chance."""
        return self.training and self.dropout.p > 0

    def forward(
        self, stream: Float[Tensor, "sentence token width"], block: int
    ) -> Float[Tensor, "sentence deep_token width"]:
        """Put a block's prompts in the place of those of the block before; they have no positions.

        Args:
            stream: Sentences, without any prompts before the first block.
            block: Number of the block they are to enter, from 0.
        """
        if block >= self.depth:
            return stream
        prompts = self.deep_prompt_embeddings[block - 1] if block else self.prompt_embeddings[0]
        own = self.dropout(self.prompt_proj(prompts).expand(stream.shape[0], -1, -1))
        rest = stream[:, 1 + (own.shape[1] if block else 0) :]
        return torch.cat([stream[:, :1], own, rest], dim=1)


class OverwritingPrompts(nn.Module):
    """Learnable prompts in the place of the first words, anew before some blocks.

    The first block sees the words; what has been overwritten is gone from then on.

    Args:
        width: Width of the text tower.
        length: Number of prompts; 0 for none.
        blocks: Number of blocks, the first included, that are prompted so far.
        seed: Seed of the initial vectors, N(0, 0.02^2); the global generator is left alone.
    """

    def __init__(self, width: int, length: int, blocks: int, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        shape = (length, width)
        self.vectors = nn.ParameterList(
            0.02 * torch.randn(shape, generator=generator)
            for _ in range(blocks - 1 if length else 0)
        )

    def forward(
        self, block: int, stream: Float[Tensor, "sentence token width"]
    ) -> Float[Tensor, "sentence token width"]:
        """The stream as it is to enter a block, counted from 0."""
        if not 0 < block <= len(self.vectors):
            return stream
        own = self.vectors[block - 1].expand(stream.shape[0], -1, -1)
        return torch.cat([stream[:, :1], own, stream[:, 1 + own.shape[1] :]], dim=1)
