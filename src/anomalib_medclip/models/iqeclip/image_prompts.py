"""Prompts that depend on the image, with learnable vectors before every block of the text tower."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from anomalib_medclip.clip.partial_attention import Context, context, read
from anomalib_medclip.clip.towers import TextTower
from anomalib_medclip.components.prompts import PromptEncoder, check_lengths, sentences
from anomalib_medclip.components.words import Words
from anomalib_medclip.errors import ConfigError
from anomalib_medclip.models.iqeclip.class_tokens import ClassTokens
from anomalib_medclip.option_checks import checked

WORDS = Words(("normal {}",), ("abnormal {}",), ("a photo of a {}.",))
"""As the authors', letter by letter."""

OBJECT = "<|class|>"
"""No word of CLIP's; it stays as it is."""

_OWN = WORDS.about(OBJECT)


class Templates(PromptEncoder):
    """What no image changes: both sentences up to their end, whatever the images show.

    Args:
        tower: The text tower they are made for.
        words: One state of each class and one template, the object's name in its place.

    Attributes:
        length: Number of tokens before the end.

    Raises:
        ConfigError: There are more sentences than two, they have another number of tokens, or they
            do not fit the tower.
    """

    words: Words

    def __init__(self, tower: TextTower, words: Words) -> None:
        super().__init__()
        self.words = words
        counts = {name: len(texts) for name, texts in words.as_plain().items()}
        if set(counts.values()) != {1}:
            said = ", ".join(f"{count} {name}" for name, count in counts.items())
            msg = f"IQE-CLIP has two sentences, and prompts have {said}; give one of each"
            raise ConfigError(msg)
        check_lengths(tower, self.sentences)
        lengths = tower.tokenize(self.sentences).argmax(dim=-1).tolist()
        if len({*lengths}) > 1:
            msg = f"{self.sentences} have {lengths} tokens, and IQE-CLIP goes on from one place in "
            msg += "both; take states of equally many tokens in prompts"
            raise ConfigError(msg)
        self.length = int(lengths[0])

    @property
    def sentences(self) -> list[str]:
        """The normal and the abnormal one."""
        said = self.words
        return [sentences("", one, said.templates)[0] for one in (said.normal, said.abnormal)]

    @torch.no_grad()
    def forward(
        self, tower: TextTower, object_name: str = ""
    ) -> Float[Tensor, "2 token text_width"]:
        """Embeddings of both sentences, with positions."""
        del object_name
        embedded = tower.embed(tower.tokenize(self.sentences))
        return (embedded + tower.positional_embedding)[:, : self.length]


class ImagePrompts(nn.Module):
    """Two sentences that go on with class tokens of the image, to text features.

    Args:
        tower: The text tower they are made for.
        embed_dim: Width of the space that images and text share.
        length: Number of class tokens (r in eq. 1); they stand where the sentence would end.
        class_prompts: Let class tokens depend on the image (eq. 3).
        deep_length: Number of learnable prompts before each block (M in eq. 4), or 0.
        deep_depth: Number of blocks that have them (D); by default all.
        words: What the sentences are made of; see ``Templates``.

    Raises:
        ValueError: There is no class token, or not so much room in the tower.
    """

    def __init__(
        self,
        tower: TextTower,
        embed_dim: int,
        length: int = 2,
        class_prompts: bool = True,
        deep_length: int = 1,
        deep_depth: int | None = None,
        words: Words = _OWN,
    ) -> None:
        super().__init__()
        self.templates = Templates(tower, words)
        self.start = self.templates.length
        room = tower.context_length - self.start
        if not 1 <= length <= room - max(0, deep_length):
            msg = f"{length} class tokens and {deep_length} deep prompts: the first must be 1 or "
            msg += f"more, and both together at most {room}"
            raise ValueError(msg)
        self.class_tokens = ClassTokens(length, embed_dim, class_prompts)
        # None of CLIP's ViTs needs it: their text towers are as wide as the shared space.
        same = tower.width == embed_dim
        self.to_text = nn.Identity() if same else nn.Linear(embed_dim, tower.width)
        self.deep = DeepPrompts(tower, deep_length, deep_depth) if deep_length else None

    def forward(
        self,
        tower: TextTower,
        templates: Float[Tensor, "2 token text_width"],
        feature: Float[Tensor, "batch embed_dim"],
    ) -> Float[Tensor, "batch 2 embed_dim"]:
        """Text features of each image, L2-normalised, row 0 normal and row 1 abnormal.

        Args:
            tower: The frozen text tower.
            templates: What ``templates`` gives.
            feature: The image's class token in the shared space, un-normalised.
        """
        classes = self.to_text(self.class_tokens(feature))
        end = self.start + classes.shape[1]
        classes = classes + tower.positional_embedding[self.start : end]
        stream = self._run(tower, templates, classes.repeat_interleave(2, dim=0))
        if self.deep is not None:
            stream = self.deep.prompt_norm(stream)
        features = tower.ln_final(stream[:, -1]) @ tower.text_projection
        return F.normalize(features, dim=-1).unflatten(0, (-1, 2))

    def _run(
        self, tower: TextTower, start: Tensor, classes: Float[Tensor, "sentence class_token width"]
    ) -> Float[Tensor, "sentence 1 width"]:
        """Run both sentences of each image, up to the last class token, which is what is read.

        The authors pad them to the tower's 77 positions, which a causal tower does not notice. Nor
        does their start notice the image, so it is run once for all.
        """
        images = classes.shape[0] // 2
        *blocks, last = tower.blocks
        for number, block in enumerate(blocks):
            start = self._with_deep(start, number)
            first = context(block, start)
            every = first.repeat(images).then(context(block, classes))
            classes = read(block, classes, every, _causal(tower, classes, every))
            start = read(block, start, first, _causal(tower, start, first))
        start = self._with_deep(start, len(blocks))
        every = context(last, start).repeat(images).then(context(last, classes))
        return read(last, classes[:, -1:], every)

    def _with_deep(self, start: Tensor, block: int) -> Tensor:
        return start if self.deep is None else self.deep(start, block)


def _causal(tower: TextTower, stream: Tensor, context: Context) -> Float[Tensor, "reader token"]:
    """Each token reads itself and what stands before it; the stream is the context's end."""
    count = context.key.shape[2]
    return tower.causal_mask[count - stream.shape[1] : count, :count]


class DeepPrompts(nn.Module):
    """Learnable prompts after the start token, anew before each of the first blocks (eq. 4).

    The names of the parameters are those of the authors' files.

    Args:
        tower: The text tower they are made for.
        length: Number of prompts (M).
        depth: Number of blocks that have prompts of their own (D); later ones go on with what
            became of the last. By default all.

    Raises:
        ConfigError: The tower has not so many blocks.
    """

    def __init__(self, tower: TextTower, length: int = 1, depth: int | None = None) -> None:
        super().__init__()
        most = tower.depth
        self.depth = checked(
            "deep_prompt_depth", most if depth is None else depth, 1, most, whole=True
        )
        width, later = tower.width, self.depth - 1
        self.prompt_embeddings = nn.Parameter(torch.empty(1, length, width).uniform_(-1, 1))
        self.deep_prompt_embeddings = nn.Parameter(
            torch.empty(later, length, width).uniform_(-1, 1)
        )
        self.prompt_proj = nn.Linear(width, width)
        nn.init.kaiming_normal_(self.prompt_proj.weight, mode="fan_out")
        self.prompt_norm = nn.LayerNorm(width, eps=1e-6)

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
        own = self.prompt_proj(prompts).expand(stream.shape[0], -1, -1)
        rest = stream[:, 1 + (own.shape[1] if block else 0) :]
        return torch.cat([stream[:, :1], own, rest], dim=1)
