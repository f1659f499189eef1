"""CLIP's two frozen towers: images to tokens at several levels, sentences to features."""

from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.clip.blocks import Block, Precision
from anomalib_medclip.clip.source import differences
from anomalib_medclip.clip.texts import BeforeBlock, HuggingFaceText, OpenClipText
from anomalib_medclip.clip.timm_trunk import family_of
from anomalib_medclip.clip.tokens import tokenizer_of
from anomalib_medclip.clip.trunks import OpenClipTrunk, Trunk
from anomalib_medclip.errors import ConfigError

AfterBlock = Callable[[int, Tensor], Tensor]
"""Called after each tapped block with its level (from 0) and the token stream ``(batch, token,
width)``; what it returns enters the next block."""


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
        stated: How images entered when it was trained.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone, precision: Precision = "fp32") -> None:
        super().__init__()
        self.backbone = backbone
        self.precision = precision
        clip, self.fingerprint, self.stated = backbone.load()
        self.visual = clip.visual.requires_grad_(requires_grad=False).eval()
        self._trunk = self._taken_apart()
        for name, values in (("mean", self.stated.mean), ("std", self.stated.std)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    @property
    def width(self) -> int:
        """Width of the token stream."""
        return self._trunk.width

    @property
    def embed_dim(self) -> int:
        """Width of the space that images and text share."""
        return self._trunk.embed_dim

    @property
    def blocks(self) -> Sequence[Block]:
        """The residual blocks, frozen.

        Raises:
            ConfigError: They are not CLIP's own, and nobody else's can be looked into.
        """
        if isinstance(self._trunk, OpenClipTrunk):
            return cast("Sequence[Block]", self._trunk.blocks)
        msg = (
            f"{self.backbone.name} has an image tower of timm's, into whose blocks nothing can be "
        )
        msg += "put; take a ViT of open_clip's own, or a method that only reads its tokens"
        raise ConfigError(msg)

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self._trunk.blocks)

    @property
    def prefix(self) -> int:
        """Number of tokens before the patches in the stream: class token and registers, or none."""
        return self._trunk.prefix

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images, and of the maps made of them, in pixels."""
        return self.backbone.image_size, self.backbone.image_size

    def entry_differences(self, interpolation: str) -> Sequence[str]:
        """In what images enter otherwise than when the weights were trained, in words.

        Args:
            interpolation: The filter by which images are resized before.
        """
        if self.backbone.pretrained is None:
            return ()
        quick_gelu = self.backbone.config()["quick_gelu"]
        return differences(self.stated, quick_gelu, self.backbone.normalize, interpolation)

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
        """The token stream after each level, un-normalised; ``prefix`` tokens, then the patches.

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
        """The image's feature in the shared space, un-normalised, as CLIP pools the last block.

        Raises:
            ConfigError: This tower gives no single feature of an image.
        """
        return self._trunk.pool(stream)

    def project(
        self, tokens: Float[Tensor, "*batch width"], norm: bool = True
    ) -> Float[Tensor, "*batch embed_dim"]:
        """Take any tokens where CLIP takes the class token: into the shared space, un-normalised.

        Args:
            tokens: Of the stream after the last block or an earlier one.
            norm: Apply the tower's last layer norm first, as CLIP does.

        Raises:
            ConfigError: The tower pools by attention, and takes no single token.
        """
        return self._trunk.project(tokens, norm)

    def _taken_apart(self) -> Trunk:
        if hasattr(self.visual, "trunk"):
            family = family_of(self.backbone.name, self.visual.trunk)
            return family(self.visual, self.precision)
        return OpenClipTrunk(self.visual, self.precision)

    def _embed(self, images: Tensor) -> Tensor:
        if images.shape[1:] != (3, *self.size):
            came, wanted = (" x ".join(map(str, shape)) for shape in (images.shape[1:], self.size))
            msg = f"images of {came} came (channels, rows, columns), and this tower takes 3 x "
            msg += f"{wanted}; resize them as the model's pre_processor does, or set image_size"
            raise ConfigError(msg)
        if self.backbone.normalize:
            images = (images - self.mean) / self.std
        return self._trunk.embed(images)

    def _run(
        self, stream: Tensor, start: int, levels: Sequence[int], after_block: AfterBlock
    ) -> Tensor:
        """Run the blocks after number ``start``, up to the last level."""
        for level, number in enumerate(levels):
            stream = self._trunk.run(stream, start, number)
            stream, start = after_block(level, stream), number
        return stream


class TextTower(nn.Module):
    """CLIP's text transformer, frozen: sentences to features in the shared space.

    For methods whose prompts are not plain sentences: ``embed`` tokens, add positions, and ask for
    their ``features``. What looks into the blocks needs CLIP's own, and is refused elsewhere.

    Args:
        backbone: The same one as the image tower's.

    Raises:
        ConfigError: The backbone has no text.
        RuntimeMissingError: It needs transformers, which is not installed.
        WeightsError: It cannot be read.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.name = backbone.name
        self.tokenizer = tokenizer_of(backbone.text_source())
        clip = backbone.load().clip.requires_grad_(requires_grad=False).eval()
        text = getattr(clip, "text", clip)
        kind = OpenClipText if hasattr(text, "token_embedding") else HuggingFaceText
        self.parts: OpenClipText | HuggingFaceText = kind(text, self.tokenizer)

    @property
    def width(self) -> int:
        """Width of the token stream."""
        return self.parts.width

    @property
    def context_length(self) -> int:
        """Tokens of each sentence, padding included."""
        return self.tokenizer.context_length

    @property
    def positional_embedding(self) -> Float[Tensor, "context width"]:
        """What is added to embeddings; one row of zeros, where the tower adds its own."""
        return self.parts.positions

    @property
    def own(self) -> OpenClipText:
        """The parts of CLIP's own text transformer.

        Raises:
            ConfigError: It is one of Hugging Face.
        """
        if isinstance(self.parts, OpenClipText):
            return self.parts
        msg = (
            f"{self.name} has a text tower of Hugging Face, into whose blocks nothing can be put; "
        )
        msg += "take a CLIP with a text tower of its own, or a method that only reads features"
        raise ConfigError(msg)

    @property
    def blocks(self) -> Sequence[Block]:
        """The residual blocks, frozen.

        Raises:
            ConfigError: They are not CLIP's own.
        """
        return self.own.blocks

    @property
    def depth(self) -> int:
        """Number of blocks.

        Raises:
            ConfigError: They are not CLIP's own.
        """
        return len(self.own.blocks)

    @property
    def causal_mask(self) -> Float[Tensor, "token token"]:
        """Added to the logits of CLIP's own blocks.

        Raises:
            ConfigError: The tower is not causal, or reads elsewhere than where a sentence ends.
        """
        if self.own.causal_mask is None or not self.own.reads_ends:
            msg = f"the text tower of {self.name} reads no sentence up to its end and no further, "
            msg += "which this needs; take a model with CLIP's plain text tower"
            raise ConfigError(msg)
        return self.own.causal_mask

    def train(self, mode: bool = True) -> "TextTower":
        """Stay in evaluation mode: a frozen tower has nothing to train."""
        del mode
        return super().train(mode=False)

    def tokenize(self, sentences: Sequence[str]) -> Int[Tensor, "sentence context"]:
        """Tokens, padded to the context length; not to be changed."""
        return self.tokenizer(sentences)

    def ends(self, tokens: Int[Tensor, "sentence context"]) -> Int[Tensor, "sentence"]:
        """Position of the token that ends each sentence."""
        return self.parts.ends(tokens)

    def embed(
        self, tokens: Int[Tensor, "sentence context"]
    ) -> Float[Tensor, "sentence context width"]:
        """Embeddings of tokens, without their positions."""
        return self.parts.embed(tokens.to(self.positional_embedding.device))

    def run(
        self,
        stream: Float[Tensor, "sentence token width"],
        causal: bool = True,
    ) -> Float[Tensor, "sentence token width"]:
        """Run all blocks on embeddings whose positions have been added.

        Args:
            stream: As many tokens as there are to read; a causal tower sees nothing after them.
            causal: Each token attends only to those before it, where the tower was trained so.

        Raises:
            ConfigError: The blocks are not CLIP's own.
        """
        return self.own.run(self.blocks, stream, causal)

    def read(
        self, stream: Float[Tensor, "sentence token width"], positions: Int[Tensor, "sentence"]
    ) -> Float[Tensor, "sentence embed_dim"]:
        """Project one position of each sentence into the shared space, un-normalised."""
        rows = torch.arange(stream.shape[0], device=stream.device)
        return self.project(stream[rows, positions])

    def project(self, tokens: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch embed_dim"]:
        """Take any tokens where CLIP takes the one that it reads, un-normalised.

        Raises:
            ConfigError: The tower is not CLIP's own.
        """
        return self.own.project(tokens)

    def features(
        self,
        stream: Float[Tensor, "sentence token width"],
        positions: Int[Tensor, "sentence"],
        causal: bool = True,
        before_block: BeforeBlock | None = None,
    ) -> Float[Tensor, "sentence embed_dim"]:
        """One feature of each sentence in the shared space, un-normalised.

        Args:
            stream: Embeddings, to which ``positional_embedding`` has been added. Nothing after the
                last position enters a causal tower, and the last block is left by what is read.
            positions: Where each sentence ends. CLIP reads there; towers that read elsewhere, or
                the mean of a sentence, do so.
            causal: Each token attends only to those before it, where the tower was trained so;
                otherwise to all, padding included, but to what Hugging Face's towers hide.
            before_block: What may change the stream before each block.

        Raises:
            ConfigError: ``before_block``, and the blocks are not CLIP's own.
        """
        if before_block is None:
            return self.parts.features(stream, positions, causal)
        return self.own.features(stream, positions, causal, before_block)

    def forward(
        self, tokens: Int[Tensor, "sentence context"]
    ) -> Float[Tensor, "sentence embed_dim"]:
        """Features of tokens in the shared space, un-normalised, as ``encode_text`` gives them."""
        return self.parts.encode(tokens.to(self.positional_embedding.device))

    @torch.no_grad()
    def encode(
        self, sentences: Sequence[str], chunk: int = 64
    ) -> Float[Tensor, "sentence embed_dim"]:
        """L2-normalised features of sentences, a chunk at a time."""
        tokens = self.tokenize(sentences)
        return F.normalize(torch.cat([self(part) for part in tokens.split(chunk)]), dim=-1)
