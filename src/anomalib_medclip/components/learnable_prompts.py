"""Prompts whose context words are learnt (CoOp), in front of, after or around fixed phrases."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from anomalib_medclip.clip.towers import TextTower
from anomalib_medclip.components.deep_prompts import OverwritingPrompts
from anomalib_medclip.components.prompts import PromptEncoder
from anomalib_medclip.components.words import PLACE, Words
from anomalib_medclip.errors import ConfigError

Position = Literal["end", "front", "middle"]
"""Where the phrase stands: after the context, before it, or between its halves."""


class LearnablePrompts(PromptEncoder):
    """Two groups of phrases, normal and abnormal, each with context vectors of its own.

    A phrase is tokenised with a trailing full stop after as many placeholders as there are
    context vectors; the vectors then take the place of the placeholders' embeddings. The names of
    the parameters, ``ctx.normal_end`` and so on, are those of the authors' files.

    Args:
        width: Width of the text tower.
        normal: Phrases for normal images, ``{}`` where the object's name goes, if anywhere.
        abnormal: Phrases for abnormal images.
        context: Number of context vectors.
        positions: Where phrases stand; each phrase is encoded once for every position.
        shared: One context for all phrases of a group, instead of one for each.
        causal: Let tokens attend to earlier ones only, as CLIP was trained. The authors of MadCLIP
            and MediCLIP attend to all 77, padding included.
        seed: Seed of the initial vectors, N(0, 0.02^2); the global generator is left alone.
        deep: Vectors that overwrite the first words before later blocks, if any.
    """

    learns: ClassVar[bool] = True

    def __init__(
        self,
        width: int,
        normal: Sequence[str],
        abnormal: Sequence[str],
        context: int = 8,
        positions: Sequence[Position] = ("end",),
        shared: bool = False,
        causal: bool = False,
        seed: int = 0,
        deep: OverwritingPrompts | None = None,
    ) -> None:
        super().__init__()
        self.words = Words(tuple(normal), tuple(abnormal))
        self.phrases = {"normal": self.words.normal, "abnormal": self.words.abnormal}
        self.context = context
        self.positions = tuple(positions)
        self.causal = causal
        self.deep = deep
        generator = torch.Generator().manual_seed(seed)
        self.ctx = nn.ParameterDict()
        for group, phrases in self.phrases.items():
            for position in self.positions:
                shape = (context, width) if shared else (len(phrases), context, width)
                self.ctx[f"{group}_{position}"] = 0.02 * torch.randn(shape, generator=generator)

    def forward(self, tower: TextTower, object_name: str = "") -> Float[Tensor, "2 embed_dim"]:
        """Mean feature of each group over phrases and positions, un-normalised before the mean.

        Args:
            tower: The frozen text tower.
            object_name: What the images show.

        Returns:
            Unit vectors, row 0 normal and row 1 abnormal.
        """
        sequences, ends = zip(
            *(self.sequences(tower, group, object_name) for group in self.phrases), strict=True
        )
        stream = torch.cat(sequences) + tower.positional_embedding
        found = tower.features(stream, torch.cat(ends), self.causal, self.deep)
        groups = found.split([len(rows) for rows in sequences])
        return F.normalize(torch.stack([group.mean(dim=0) for group in groups]), dim=-1)

    def sequences(
        self, tower: TextTower, group: str, object_name: str = ""
    ) -> tuple[Float[Tensor, "prompt token width"], Tensor]:
        """Embeddings before positions are added, and where each prompt ends.

        Args:
            tower: The frozen text tower.
            group: ``"normal"`` or ``"abnormal"``.
            object_name: What the images show.

        Returns:
            Prompts in the order of positions, then phrases; the position of the end-of-text token.

        Raises:
            ConfigError: A phrase does not fit the tower's context length.
        """
        phrases = [phrase.replace(PLACE, object_name).strip() for phrase in self.phrases[group]]
        first = tower.tokenizer.first
        # After a word, since some tokenizers begin a sentence otherwise.
        lengths = tower.ends(tower.tokenize([f"X {phrase}" for phrase in phrases])) - first - 1
        tokens = tower.tokenize([f"{'X ' * self.context}{phrase}." for phrase in phrases])
        longest = first + max(1, self.context) + int(lengths.max()) + 2  # full stop, end
        if longest > tower.context_length:
            msg = f"{longest} tokens of {phrases[int(lengths.argmax())]!r} with its context do not "
            msg += f"fit the text tower's {tower.context_length}; take a shorter object_name, "
            msg += "shorter words in prompts, or less context"
            raise ConfigError(msg)
        embedded = tower.embed(tokens)
        rows = [
            self._assemble(embedded, self.ctx[f"{group}_{position}"], first, lengths, position)
            for position in self.positions
        ]
        return torch.cat(rows), tower.ends(tokens).repeat(len(rows)).to(embedded.device)

    def _assemble(
        self, embedded: Tensor, context: Tensor, first: int, lengths: Tensor, position: Position
    ) -> Tensor:
        """Put the context vectors where ``position`` says, phrase by phrase."""
        before = {"end": self.context, "front": 0, "middle": self.context // 2}[position]
        context = context.expand(len(embedded), -1, -1)
        rows = []
        for row, vectors, length in zip(embedded, context, lengths.tolist(), strict=True):
            start, _, phrase, rest = row.tensor_split(
                [first, first + self.context, first + self.context + length]
            )
            rows.append(torch.cat([start, vectors[:before], phrase, vectors[before:], rest]))
        return torch.stack(rows)
