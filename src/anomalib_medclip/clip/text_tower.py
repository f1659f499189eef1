"""CLIP's frozen text tower: sentences to features in the space that images share."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.clip.blocks import Block
from anomalib_medclip.clip.hugging_face import no_blocks_of
from anomalib_medclip.clip.texts import BeforeBlock, HuggingFaceText, OpenClipText
from anomalib_medclip.clip.tokens import tokenizer_of
from anomalib_medclip.errors import ConfigError, WeightsError


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
        if kind is HuggingFaceText:
            self._check_reads()

    @torch.no_grad()
    def _check_reads(self) -> None:
        """Read one word: of two files of two libraries, neither knows what the other says."""
        tokens = self.tokenize(["x"])
        try:
            self.parts.encode(tokens)
        except Exception as error:  # of open_clip, transformers or torch, on what files say
            msg = f"the text tower of {self.name} cannot read {self.context_length} tokens: "
            msg += f"{error}; correct its text_cfg, or copy its config.json there again"
            raise WeightsError(msg) from error

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
        raise no_blocks_of(self.name)

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
        """Tokens, padded to the context length; not to be changed.

        Raises:
            WeightsError: The tower has no embedding of one of them.
        """
        tokens = self.tokenizer(sentences)
        if tokens.numel() and int(tokens.max()) >= self.parts.vocabulary:
            msg = f"the tokenizer of {self.name} has a token {int(tokens.max())}, and its text "
            msg += f"tower knows {self.parts.vocabulary}, from 0; give it its own "
            msg += "tokenizer, or correct vocab_size"
            raise WeightsError(msg)
        return tokens

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
