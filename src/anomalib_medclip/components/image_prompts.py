"""Prompts that depend on the image, with learnable vectors before every block of the text tower."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from anomalib_medclip.clip.partial_attention import Context, context, read
from anomalib_medclip.clip.towers import TextTower
from anomalib_medclip.components.class_tokens import ClassTokens
from anomalib_medclip.components.deep_prompts import InsertedPrompts
from anomalib_medclip.components.prompts import PromptEncoder, check_lengths, sentences
from anomalib_medclip.components.words import Words
from anomalib_medclip.errors import ConfigError


class Templates(PromptEncoder):
    """What no image changes: both sentences up to their class tokens, whatever the images show.

    Args:
        tower: The text tower they are made for.
        words: One state of each class and one template, the object's name in its place.
        length: Number of class tokens, if the end-of-text token follows them; else 0.

    Attributes:
        start: Number of tokens before the class tokens.

    Raises:
        ConfigError: There are more sentences than two, they have another number of tokens, or they
            do not fit the tower.
    """

    words: Words

    def __init__(self, tower: TextTower, words: Words, length: int = 0) -> None:
        super().__init__()
        self.words = words
        counts = {name: len(texts) for name, texts in words.as_plain().items()}
        if set(counts.values()) != {1}:
            said = ", ".join(f"{count} {name}" for name, count in counts.items())
            msg = f"this method has two sentences, and prompts have {said}; give one of each"
            raise ConfigError(msg)
        check_lengths(tower, self.sentences)
        lengths = tower.ends(tower.tokenize(self.sentences)).tolist()
        if len({*lengths}) > 1:
            msg = f"{self.sentences} have {lengths} tokens, and this method goes on from one place "
            msg += "in both; take states of equally many tokens in prompts"
            raise ConfigError(msg)
        self.start = int(lengths[0])
        self.end = self.start + length if length else None

    @property
    def sentences(self) -> list[str]:
        """The normal and the abnormal one."""
        said = self.words
        return [sentences("", one, said.templates)[0] for one in (said.normal, said.abnormal)]

    @torch.no_grad()
    def forward(
        self, tower: TextTower, object_name: str = ""
    ) -> Float[Tensor, "2 token text_width"]:
        """Embeddings of both sentences, with positions; the end-of-text token, if any, is last."""
        del object_name
        embedded = tower.embed(tower.tokenize(self.sentences))
        start = (embedded + tower.positional_embedding)[:, : self.start]
        if self.end is None:
            return start
        end = embedded[:, self.start : self.start + 1] + tower.positional_embedding[self.end]
        return torch.cat([start, end], dim=1)


class ImagePrompts(nn.Module):
    """Two sentences that go on with class tokens of the image, to text features.

    Args:
        tower: The text tower they are made for.
        embed_dim: Width of the space that images and text share.
        words: What the sentences are made of, see ``Templates``; class tokens stand where these
            would end.
        length: Number of class tokens.
        class_prompts: Let class tokens depend on the image.
        deep_length: Number of learnable prompts before each block, or 0.
        deep_depth: Number of blocks that have them; by default all.
        ends: Put the end-of-text token after the class tokens, and read it; else the last class
            token is read.
        dropout: Probability in the learnable prompts.

    Raises:
        ConfigError: The tower is not causal, or its blocks are not CLIP's own.
        ValueError: There is no class token, or not so much room in the tower.
    """

    def __init__(
        self,
        tower: TextTower,
        embed_dim: int,
        words: Words,
        length: int = 2,
        class_prompts: bool = True,
        deep_length: int = 1,
        deep_depth: int | None = None,
        ends: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.templates = Templates(tower, words, length if ends else 0)
        self.start = self.templates.start
        room = len(tower.causal_mask) - self.start - ends
        if not 1 <= length <= room - max(0, deep_length):
            msg = f"{length} class tokens and {deep_length} deep prompts: the first must be 1 or "
            msg += f"more, and both together at most {room}"
            raise ValueError(msg)
        self.class_tokens = ClassTokens(length, embed_dim, class_prompts)
        # None of CLIP's ViTs needs it: their text towers are as wide as the shared space.
        same = tower.width == embed_dim
        self.to_text = nn.Identity() if same else nn.Linear(embed_dim, tower.width)
        deep = deep_length, deep_depth, dropout
        self.deep = InsertedPrompts(tower, *deep) if deep_length else None

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
        last = self.start + classes.shape[1]
        classes = classes + tower.positional_embedding[self.start : last]
        start, end = templates[:, : self.start], templates[:, self.start :]
        own = torch.cat(
            [classes.repeat_interleave(2, dim=0), end.repeat(classes.shape[0], 1, 1)], dim=1
        )
        stream = self._run(tower, start, own)
        if self.deep is not None:
            stream = self.deep.prompt_norm(stream)
        return F.normalize(tower.project(stream[:, -1]), dim=-1).unflatten(0, (-1, 2))

    def _run(
        self, tower: TextTower, start: Tensor, own: Float[Tensor, "sentence own_token width"]
    ) -> Float[Tensor, "sentence 1 width"]:
        """Run both sentences of each image, up to the last token, which is what is read.

        The authors pad them to the tower's 77 positions, which a causal tower does not notice. Nor
        does their start notice the image, so it is run once for all, unless by chance it differs.
        """
        images = own.shape[0] // 2
        starts = images if self.deep is not None and self.deep.differs else 1
        start, shared = start.repeat(starts, 1, 1), images // starts
        *blocks, last = tower.blocks
        for number, block in enumerate(blocks):
            start = self._with_deep(start, number)
            first = context(block, start)
            every = first.repeat(shared).then(context(block, own))
            own = read(block, own, every, _causal(tower, own, every))
            start = read(block, start, first, _causal(tower, start, first))
        start = self._with_deep(start, len(blocks))
        every = context(last, start).repeat(shared).then(context(last, own))
        return read(last, own[:, -1:], every)

    def _with_deep(self, start: Tensor, block: int) -> Tensor:
        return start if self.deep is None else self.deep(start, block)


def _causal(tower: TextTower, stream: Tensor, context: Context) -> Float[Tensor, "reader token"]:
    """Each token reads itself and what stands before it; the stream is the context's end."""
    count = context.key.shape[2]
    return tower.causal_mask[count - stream.shape[1] : count, :count]
