"""Text towers taken apart: embeddings of tokens, blocks over them, one feature of each sentence."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from anomalib_medclip.clip.blocks import Block, own_blocks
from anomalib_medclip.clip.partial_attention import context, read
from anomalib_medclip.clip.tokens import Tokenizer

BeforeBlock = Callable[[int, Tensor], Tensor]
"""Called before each block of the text tower with its number (from 0) and the stream ``(sentence,
token, width)``; what it returns enters the block."""


class OpenClipText(nn.Module):
    """open_clip's text transformer, causal or not, however it reads its sentences.

    Args:
        text: A ``CLIP``, whose text tower's parts lie beside the image tower, or a
            ``TextTransformer``. Its blocks are replaced by ours, which have the same weights.
        tokenizer: Knows where sentences end.
    """

    causal_mask: Tensor | None
    cls_emb: Tensor | None

    def __init__(self, text: Any, tokenizer: Tokenizer) -> None:  # noqa: ANN401 - of any version
        super().__init__()
        self.tokenizer = tokenizer
        self.token_embedding = text.token_embedding
        self.positional_embedding = text.positional_embedding
        self.transformer = text.transformer
        own_blocks(self.transformer)
        self.ln_final = text.ln_final
        self.text_projection = text.text_projection
        self.cls_emb = getattr(text, "cls_emb", None)
        self.pool_type = str(getattr(text, "text_pool_type", getattr(text, "pool_type", "argmax")))
        self.eos_id = int(getattr(text, "text_eos_id", getattr(text, "eos_id", 2)))
        self.register_buffer("causal_mask", text.attn_mask, persistent=False)

    @property
    def width(self) -> int:
        """Width of the token stream."""
        return int(self.positional_embedding.shape[1])

    @property
    def vocabulary(self) -> int:
        """Number of tokens that it has an embedding of."""
        return int(self.token_embedding.weight.shape[0])

    @property
    def positions(self) -> Float[Tensor, "context width"]:
        """What is added to embeddings of tokens."""
        length = self.positional_embedding.shape[0] - (self.cls_emb is not None)
        return self.positional_embedding[:length]

    @property
    def blocks(self) -> Sequence[Block]:
        """The residual blocks."""
        return cast("Sequence[Block]", self.transformer.resblocks)

    @property
    def reads_ends(self) -> bool:
        """Whether it reads the token that ends a sentence, and nothing after it."""
        by_end = self.pool_type in ("argmax", "eos") and self.cls_emb is None
        return by_end and self.causal_mask is not None

    def embed(self, tokens: Tensor) -> Float[Tensor, "sentence context width"]:
        """Embeddings of tokens, without their positions."""
        return self.token_embedding(tokens)

    def ends(self, tokens: Int[Tensor, "sentence context"]) -> Int[Tensor, "sentence"]:
        """Where sentences end, as the tower itself finds it where it looks."""
        if self.pool_type == "eos":
            return (tokens == self.eos_id).int().argmax(dim=-1)
        return self.tokenizer.ends(tokens)

    def encode(
        self, tokens: Int[Tensor, "sentence context"]
    ) -> Float[Tensor, "sentence embed_dim"]:
        """Features of tokens."""
        return self.features(self.embed(tokens) + self.positions, self.ends(tokens), causal=True)

    def run(self, blocks: Iterable[nn.Module], stream: Tensor, causal: bool) -> Tensor:
        """The stream after some blocks."""
        length = stream.shape[1]
        mask = None
        if causal and self.causal_mask is not None:
            mask = self.causal_mask[:length, :length]
        for block in blocks:
            stream = block(stream, mask)
        return stream

    def features(
        self,
        stream: Float[Tensor, "sentence token width"],
        ends: Int[Tensor, "sentence"],
        causal: bool,
        before_block: BeforeBlock | None = None,
    ) -> Float[Tensor, "sentence embed_dim"]:
        """Features of embeddings with positions; see ``TextTower.features``."""
        mask = self.causal_mask if causal else None
        hidden: Tensor | float = 0.0
        if self.cls_emb is not None:
            stream, hidden = self._with_class_token(stream, ends)
        at = self._read_at(stream, ends)
        length = stream.shape[1] if mask is None else int(at.max()) + 1
        stream, rows = stream[:, :length], torch.arange(stream.shape[0], device=stream.device)
        *blocks, last = self.blocks
        every = None if mask is None else mask[:length, :length] + hidden
        change = before_block or _nothing
        for number, block in enumerate(blocks):
            stream = block(change(number, stream), every if every is not None else _mask(hidden))
        stream = change(len(blocks), stream)
        own = _mask(hidden) if mask is None else mask[at, None, None, :length] + hidden
        readers = stream[rows, at].unsqueeze(1)
        return self.project(read(last, readers, context(last, stream), own)[:, 0])

    def project(self, tokens: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch embed_dim"]:
        """The last norm, and the projection into the shared space, if there is one."""
        tokens = self.ln_final(tokens)
        if self.text_projection is None:
            return tokens
        if isinstance(self.text_projection, nn.Linear):
            return self.text_projection(tokens)
        return tokens @ self.text_projection

    def _read_at(self, stream: Tensor, ends: Tensor) -> Int[Tensor, "sentence"]:
        """Where each sentence is read."""
        if self.cls_emb is not None or self.pool_type == "last":
            return torch.full_like(ends, stream.shape[1] - 1)
        return torch.zeros_like(ends) if self.pool_type == "first" else ends

    def _with_class_token(self, stream: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
        """CoCa's class token behind the sentence, and what is hidden from it: the padding.

        As open_clip's, and as the weights were trained: shifted by one, so that the class token
        reads the first token of the padding, and itself only where there is no padding.
        """
        assert self.cls_emb is not None
        sentences, length, _ = stream.shape
        own = (self.cls_emb + self.positional_embedding[length]).expand(sentences, 1, -1)
        places = torch.arange(length + 1, device=stream.device) - 1
        hidden = torch.zeros(sentences, 1, 1, length + 1, device=stream.device, dtype=stream.dtype)
        padding = (places > ends[:, None])[:, None, None]
        return torch.cat([stream, own], dim=1), hidden.masked_fill(padding, float("-inf"))


def _nothing(_number: int, stream: Tensor) -> Tensor:
    return stream


def _mask(hidden: Tensor | float) -> Tensor | None:
    return hidden if isinstance(hidden, Tensor) else None


class HuggingFaceText(nn.Module):
    """A text tower of Hugging Face in open_clip's ``HFTextEncoder``; it is asked by embeddings.

    Args:
        text: The tower.
        tokenizer: Knows where sentences end.
    """

    no_positions: Tensor

    def __init__(self, text: Any, tokenizer: Tokenizer) -> None:  # noqa: ANN401 - of any version
        super().__init__()
        self.text = text
        self.tokenizer = tokenizer
        self.register_buffer("no_positions", torch.zeros(1, self.width), persistent=False)

    @property
    def width(self) -> int:
        """Width of the token stream."""
        return int(self.text.transformer.get_input_embeddings().weight.shape[1])

    @property
    def vocabulary(self) -> int:
        """Number of tokens that it has an embedding of."""
        return int(self.text.transformer.get_input_embeddings().weight.shape[0])

    @property
    def positions(self) -> Float[Tensor, "1 width"]:
        """Zeros: the tower adds positions, or what is in their place, itself."""
        return self.no_positions

    def embed(self, tokens: Tensor) -> Float[Tensor, "sentence context width"]:
        """Embeddings of tokens."""
        return self.text.transformer.get_input_embeddings()(tokens)

    def ends(self, tokens: Int[Tensor, "sentence context"]) -> Int[Tensor, "sentence"]:
        """Where sentences end."""
        return self.tokenizer.ends(tokens)

    def encode(
        self, tokens: Int[Tensor, "sentence context"]
    ) -> Float[Tensor, "sentence embed_dim"]:
        """Features of tokens, by open_clip's own forward."""
        found = self.text(tokens)
        return found[0] if isinstance(found, tuple) else found

    def features(
        self,
        stream: Float[Tensor, "sentence token width"],
        ends: Int[Tensor, "sentence"],
        causal: bool,
    ) -> Float[Tensor, "sentence embed_dim"]:
        """Features of embeddings; padding stays hidden, and nothing else ever was."""
        del causal
        length = int(ends.max()) + 1
        shown = (torch.arange(length, device=ends.device) <= ends[:, None]).long()
        found = self.text.transformer(inputs_embeds=stream[:, :length], attention_mask=shown)
        return self.text.proj(self.text.pooler(found, shown))
