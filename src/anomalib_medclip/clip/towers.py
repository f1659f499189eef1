"""CLIP's two frozen towers: images to tokens at several levels, sentences to features."""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import cast

import open_clip
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor, nn

from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.clip.blocks import Block, Precision, own_blocks
from anomalib_medclip.clip.partial_attention import context, read
from anomalib_medclip.errors import ConfigError

AfterBlock = Callable[[int, Tensor], Tensor]
"""Called after each tapped block with its level (from 0) and the token stream ``(batch, token,
width)``; what it returns enters the next block."""

BeforeBlock = Callable[[int, Tensor], Tensor]
"""Called before each block of the text tower with its number (from 0) and the stream ``(sentence,
token, width)``; what it returns enters the block."""


class ImageTower(nn.Module):
    """CLIP's vision transformer, frozen: tokens after some of its blocks.

    What no training changes is ``taps``; a method that feeds something back into the stream goes
    on from the first of them by ``resume``.

    Args:
        backbone: Which weights, at which image size.
        precision: What its blocks compute their products in. The stream between them, and so what
            they give, is float32.

    Attributes:
        fingerprint: That of ``LoadedClip``.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone, precision: Precision = "fp32") -> None:
        super().__init__()
        self.backbone = backbone
        self.precision = precision
        clip, self.fingerprint = backbone.load()
        self.visual = clip.visual.requires_grad_(requires_grad=False).eval()
        own_blocks(self.visual.transformer, precision)
        statistics = (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
        for name, values in zip(("mean", "std"), statistics, strict=True):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    @property
    def width(self) -> int:
        """Width of the token stream."""
        return int(self.visual.conv1.out_channels)

    @property
    def embed_dim(self) -> int:
        """Width of the space that images and text share."""
        return int(self.visual.proj.shape[1])

    @property
    def blocks(self) -> Sequence[Block]:
        """The residual blocks, frozen."""
        return cast("Sequence[Block]", self.visual.transformer.resblocks)

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    @property
    def prefix(self) -> int:
        """Number of tokens that stand before the patches in the stream: the class token."""
        return 1

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images, and of the maps made of them, in pixels."""
        return self.backbone.image_size, self.backbone.image_size

    def train(self, mode: bool = True) -> "ImageTower":
        """Stay in evaluation mode: a frozen tower has nothing to train."""
        del mode
        return super().train(mode=False)

    def checked(self, levels: Sequence[int]) -> tuple[int, ...]:
        """The levels, if the tower has them.

        Raises:
            ValueError: They do not ascend from 1 to the tower's depth.
        """
        ascend = bool(levels) and list(levels) == sorted(set(levels))
        if not ascend or levels[0] < 1 or levels[-1] > self.depth:
            msg = f"levels {list(levels)} do not ascend from 1 to at most {self.depth}, the "
            msg += "tower's depth"
            raise ValueError(msg)
        return tuple(levels)

    @torch.no_grad()
    def taps(
        self, images: Float[Tensor, "batch 3 side side"], levels: Sequence[int]
    ) -> Float[Tensor, "batch level token width"]:
        """The token stream after each level, un-normalised; the class token comes first.

        Args:
            images: RGB in [0, 1] at the tower's image size.
            levels: Block numbers counted from 1, in ascending order.

        Raises:
            ConfigError: They are of another size.
        """
        found: list[Tensor] = []

        def keep(_level: int, stream: Tensor) -> Tensor:
            found.append(stream)
            return stream

        self._run(self._embed(images), 0, levels, keep)
        return torch.stack(found, dim=1)

    def resume(
        self,
        stream: Float[Tensor, "batch token width"],
        levels: Sequence[int],
        after_block: AfterBlock,
    ) -> Float[Tensor, "batch token width"]:
        """Go on from the stream after the first level, acting on it after every level.

        Args:
            stream: Tokens after block ``levels[0]``, as ``taps`` gives them.
            levels: Block numbers counted from 1, in ascending order.
            after_block: What to do to the token stream.

        Returns:
            The token stream after the last level, un-normalised.
        """

        def after(level: int, stream: Tensor) -> Tensor:
            return after_block(level + 1, stream)

        return self._run(after_block(0, stream), levels[0], levels[1:], after)

    @torch.no_grad()
    def go_on(
        self, stream: Float[Tensor, "batch token width"], start: int, end: int
    ) -> Float[Tensor, "batch token width"]:
        """The stream after a later block, of the one after an earlier one; nothing is fed back."""
        return self._run(stream, start, [end], lambda _level, stream: stream)

    def patches(
        self, tokens: Float[Tensor, "*batch token width"]
    ) -> Float[Tensor, "*batch patch width"]:
        """The patches among the tokens of a stream, row by row of the image."""
        return tokens[..., self.prefix :, :]

    def pool(self, stream: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch embed_dim"]:
        """Project the class token of the last block into the shared space, un-normalised."""
        return self.project(stream[:, 0])

    def project(
        self, tokens: Float[Tensor, "*batch width"], norm: bool = True
    ) -> Float[Tensor, "*batch embed_dim"]:
        """Take any tokens where CLIP takes the class token: into the shared space, un-normalised.

        Args:
            tokens: Of the stream after the last block or an earlier one.
            norm: Apply the tower's last layer norm first, as CLIP does.
        """
        return (self.visual.ln_post(tokens) if norm else tokens) @ self.visual.proj

    def _embed(self, images: Tensor) -> Tensor:
        visual = self.visual
        if images.shape[1:] != (3, *self.size):
            came, wanted = (" x ".join(map(str, shape)) for shape in (images.shape[1:], self.size))
            msg = f"images of {came} came (channels, rows, columns), and this tower takes 3 x "
            msg += f"{wanted}; resize them as the model's pre_processor does, or set image_size"
            raise ConfigError(msg)
        if self.backbone.normalize:
            images = (images - self.mean) / self.std
        patches = visual.conv1(images).flatten(2).transpose(1, 2)
        # Not len(patches), which would fix the batch size of a traced graph.
        token = visual.class_embedding.expand(patches.shape[0], 1, -1)
        return visual.ln_pre(torch.cat([token, patches], dim=1) + visual.positional_embedding)

    def _run(
        self, stream: Tensor, start: int, levels: Sequence[int], after_block: AfterBlock
    ) -> Tensor:
        """Run the blocks after number ``start``, up to the last level."""
        for level, number in enumerate(levels):
            for block in self.blocks[start:number]:
                stream = block(stream)
            stream, start = after_block(level, stream), number
        return stream


class TextTower(nn.Module):
    """CLIP's text transformer, frozen: sentences to features in the shared space.

    For methods whose prompts are not plain sentences: ``embed`` tokens, ``run`` them through the
    blocks and ``read`` a position, or, which is the same and cheaper, ask for its ``features``.

    Args:
        backbone: The same one as the image tower's.
    """

    causal_mask: Tensor

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        clip = backbone.load().clip.requires_grad_(requires_grad=False).eval()
        self.token_embedding = clip.token_embedding
        self.positional_embedding = clip.positional_embedding
        self.transformer = clip.transformer
        own_blocks(self.transformer)
        self.ln_final = clip.ln_final
        self.text_projection = clip.text_projection
        self.context_length = int(clip.positional_embedding.shape[0])
        self.register_buffer("causal_mask", clip.attn_mask, persistent=False)

    @property
    def width(self) -> int:
        """Width of the token stream."""
        return int(self.positional_embedding.shape[1])

    @property
    def blocks(self) -> Sequence[Block]:
        """The residual blocks, frozen."""
        return cast("Sequence[Block]", self.transformer.resblocks)

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    def train(self, mode: bool = True) -> "TextTower":
        """Stay in evaluation mode: a frozen tower has nothing to train."""
        del mode
        return super().train(mode=False)

    def tokenize(self, sentences: Sequence[str]) -> Int[Tensor, "sentence context"]:
        """CLIP's byte-pair tokens, padded to the context length; not to be changed."""
        return _tokens(tuple(sentences), self.context_length)

    def embed(
        self, tokens: Int[Tensor, "sentence context"]
    ) -> Float[Tensor, "sentence context width"]:
        """Embeddings of tokens, without their positions."""
        return self.token_embedding(tokens.to(self.positional_embedding.device))

    def run(
        self,
        stream: Float[Tensor, "sentence token width"],
        causal: bool = True,
    ) -> Float[Tensor, "sentence token width"]:
        """Run all blocks on embeddings whose positions have been added.

        Args:
            stream: As many tokens as there are to read; a causal tower sees nothing after them.
            causal: Each token attends only to those before it, as CLIP was trained.
        """
        return self._run(self.blocks, stream, causal)

    def read(
        self, stream: Float[Tensor, "sentence token width"], positions: Int[Tensor, "sentence"]
    ) -> Float[Tensor, "sentence embed_dim"]:
        """Project one position of each sentence into the shared space, un-normalised."""
        rows = torch.arange(stream.shape[0], device=stream.device)
        return self._project(stream[rows, positions])

    def features(
        self,
        stream: Float[Tensor, "sentence token width"],
        positions: Int[Tensor, "sentence"],
        causal: bool = True,
        before_block: BeforeBlock | None = None,
    ) -> Float[Tensor, "sentence embed_dim"]:
        """What ``run`` and ``read`` give, without what is not read.

        Nothing after the last position enters a causal tower, and the last block is left by the
        positions alone. Before each block ``before_block`` may change the stream.
        """
        length = int(positions.max()) + 1 if causal else stream.shape[1]
        *blocks, last = self.blocks
        stream = self._run(blocks, stream[:, :length], causal, before_block)
        if before_block is not None:
            stream = before_block(len(blocks), stream)
        rows = torch.arange(stream.shape[0], device=stream.device)
        mask = self.causal_mask[positions, None, None, :length] if causal else None
        readers = stream[rows, positions].unsqueeze(1)
        return self._project(read(last, readers, context(last, stream), mask)[:, 0])

    def forward(
        self, tokens: Int[Tensor, "sentence context"]
    ) -> Float[Tensor, "sentence embed_dim"]:
        """Encode tokens and read the end-of-text position; un-normalised."""
        stream = self.embed(tokens) + self.positional_embedding
        return self.features(stream, tokens.argmax(dim=-1).to(stream.device))

    @torch.no_grad()
    def encode(
        self, sentences: Sequence[str], chunk: int = 64
    ) -> Float[Tensor, "sentence embed_dim"]:
        """L2-normalised features of sentences, a chunk at a time."""
        tokens = self.tokenize(sentences).to(self.positional_embedding.device)
        return F.normalize(torch.cat([self(part) for part in tokens.split(chunk)]), dim=-1)

    def _run(
        self,
        blocks: Iterable[nn.Module],
        stream: Tensor,
        causal: bool,
        before_block: BeforeBlock | None = None,
    ) -> Tensor:
        length = stream.shape[1]
        mask = self.causal_mask[:length, :length] if causal else None
        for number, block in enumerate(blocks):
            if before_block is not None:
                stream = before_block(number, stream)
            stream = block(stream, mask)
        return stream

    def _project(self, tokens: Tensor) -> Tensor:
        return self.ln_final(tokens) @ self.text_projection


@lru_cache(maxsize=64)
def _tokens(sentences: tuple[str, ...], length: int) -> Tensor:
    """Kept, because prompts that learn read the same words at every step."""
    with torch.inference_mode(mode=False):  # whoever asks first, others may learn with them
        return open_clip.tokenize(list(sentences), length)
