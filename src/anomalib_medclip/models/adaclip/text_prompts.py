"""Sentences whose first words are overwritten by prompts of the image, to text features."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from anomalib_medclip.clip.partial_attention import context, read
from anomalib_medclip.clip.towers import TextTower
from anomalib_medclip.components.prompts import (
    ABNORMAL_STATES,
    NORMAL_STATES,
    PromptEncoder,
    check_lengths,
    sentences,
)
from anomalib_medclip.components.words import Words
from anomalib_medclip.errors import ConfigError
from anomalib_medclip.models.adaclip.prompts import static_prompts

TEMPLATES = (
    "a bad photo of a {}.",
    "a low resolution photo of the {}.",
    "a bad photo of the {}.",
    "a cropped photo of the {}.",
)
"""The authors' sentence frames."""

WORDS = Words(NORMAL_STATES, ABNORMAL_STATES, TEMPLATES)
"""What the authors say."""


class FirstBlock(PromptEncoder):
    """What no image changes: all sentences about an object, after the text tower's first block.

    Args:
        length: Number of words that are overwritten from the second block on.
        words: What the sentences are made of.
    """

    words: Words

    def __init__(self, length: int, words: Words) -> None:
        super().__init__()
        self.length, self.words = length, words
        self.counts = [len(words.templates) * len(one) for one in (words.normal, words.abnormal)]

    @torch.no_grad()
    def forward(
        self, tower: TextTower, object_name: str = ""
    ) -> Float[Tensor, "2 sentence token text_width"]:
        """The stream of each group; zero after the end of a sentence, and where there is none.

        Raises:
            ConfigError: A sentence ends within the words that are overwritten, or is too long.
        """
        states = self.words.normal + self.words.abnormal
        said = sentences(object_name, states, self.words.templates)
        check_lengths(tower, said)
        tokens = tower.tokenize(said)
        ends = tower.ends(tokens)
        if (shortest := int(ends.min())) <= self.length:
            msg = f"{self.length} prompts overwrite sentences of {shortest - 1} tokens to their "
            msg += f"end; set prompt_length to at most {shortest - 1}"
            raise ConfigError(msg)
        count = int(ends.max()) + 1
        stream = (tower.embed(tokens) + tower.positional_embedding)[:, :count]
        stream = tower.blocks[0](stream, tower.causal_mask[:count, :count])
        within = torch.arange(count) <= ends[:, None]
        groups = (stream * within.to(stream.device)[..., None]).split(self.counts)
        most = max(self.counts)
        return torch.stack([F.pad(one, (0, 0, 0, 0, 0, most - len(one))) for one in groups])


class TextPrompts(nn.Module):
    """Static prompts of the text tower, and the way of all sentences of an image through it.

    Args:
        tower: The text tower they are made for.
        length: Number of prompts.
        blocks: Number of blocks, the first included, before which they are set anew; the first
            sees the words.
        words: What the sentences are made of.
    """

    def __init__(self, tower: TextTower, length: int, blocks: int, words: Words = WORDS) -> None:
        super().__init__()
        self.first_block = FirstBlock(length, words)
        self.length = length
        self.static = static_prompts(min(blocks, tower.depth) - 1, length, tower.width)

    def forward(
        self,
        tower: TextTower,
        text: Float[Tensor, "2 sentence token text_width"],
        dynamic: Float[Tensor, "batch length text_width"],
    ) -> Float[Tensor, "batch 2 embed_dim"]:
        """Text features of each image, L2-normalised, row 0 normal and row 1 abnormal.

        Args:
            tower: The frozen text tower.
            text: What ``first_block`` gives.
            dynamic: The image's prompts.
        """
        features = F.normalize(self.sentence_features(tower, text, dynamic), dim=-1)
        groups = features.split(self.first_block.counts, dim=1)
        return F.normalize(torch.stack([one.mean(dim=1) for one in groups], dim=1), dim=-1)

    def sentence_features(
        self,
        tower: TextTower,
        text: Float[Tensor, "2 sentence token text_width"],
        dynamic: Float[Tensor, "batch length text_width"],
    ) -> Float[Tensor, "batch sentence embed_dim"]:
        """Features of every sentence of each image, un-normalised, normal ones first.

        A causal tower lets the start and the prompts see nothing of the words after them, so they
        are run once for all sentences of an image.
        """
        counts, images = self.first_block.counts, dynamic.shape[0]
        words = torch.cat([group[:count] for group, count in zip(text, counts, strict=True)])
        ends = words.any(dim=-1).sum(dim=-1) - 1
        first = self.length + 1
        # One sentence of all images after the other.
        stream = words[:, None, first:].expand(-1, images, -1, -1).flatten(0, 1)
        start = words[0, :1].expand(images, -1, -1)
        mask = tower.causal_mask[: words.shape[1], : words.shape[1]]
        for number, block in enumerate(tower.blocks[1:]):
            if number < len(self.static):
                start = torch.cat([start[:, :1], dynamic + self.static[number]], dim=1)
            of_start = context(block, start)
            every = of_start.repeat(len(words)).then(context(block, stream))
            stream = read(block, stream, every, mask[first:])
            start = read(block, start, of_start, mask[:first, :first])
        return self._read(tower, stream.unflatten(0, (-1, images)), ends - first)

    @staticmethod
    def _read(
        tower: TextTower,
        stream: Float[Tensor, "sentence batch token text_width"],
        ends: Int[Tensor, "sentence"],
    ) -> Float[Tensor, "batch sentence embed_dim"]:
        rows = torch.arange(stream.shape[0], device=stream.device)
        return tower.project(stream[rows, :, ends]).transpose(0, 1)
