"""Some tokens pass a block of CLIP's, and read others: what is computed once, or is not needed.

A block's keys and values are all that a token learns of others. So where few tokens go on, only
they are asked; and where many sentences begin alike, the beginning is run once for all of them.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from anomalib_medclip.clip.blocks import Block


class Context(NamedTuple):
    """What a block lets tokens read of one another."""

    key: Float[Tensor, "batch head token part"]
    value: Float[Tensor, "batch head token part"]

    def repeat(self, times: int) -> "Context":
        """The same tokens for each of many."""
        return Context(*(p.expand(times, *[-1] * p.ndim).flatten(0, 1) for p in self))

    def then(self, later: "Context") -> "Context":
        """These tokens, and after them others."""
        return Context(*(torch.cat(pair, dim=2) for pair in zip(self, later, strict=True)))


def context(block: Block, stream: Float[Tensor, "batch token width"]) -> Context:
    """Keys and values of tokens before a block."""
    key, value = _heads(block, stream, first=1, last=3)
    return Context(key, value)


def read(
    block: Block,
    stream: Float[Tensor, "batch reader width"],
    context: Context,
    mask: Float[Tensor, "reader token"] | None = None,
) -> Float[Tensor, "batch reader width"]:
    """Tokens after a block, of which the context holds all that they may read, themselves too.

    Args:
        block: The block.
        stream: Those of its tokens that go on.
        context: Of all of its tokens.
        mask: Added to the logits; ``(batch, 1, reader, token)`` where sentences differ.
    """
    (query,) = _heads(block, stream, first=0, last=1)
    return block.after(stream, block.attn.attend(query, *context, mask))


def values_of(
    block: Block, stream: Float[Tensor, "batch token width"]
) -> Float[Tensor, "batch token width"]:
    """What a block's attention would add to tokens whose queries and keys were their values."""
    (value,) = _heads(block, stream, first=2, last=3)
    return block.ls_1(block.attn.attend(value, value, value))


def _heads(block: Block, stream: Tensor, first: int, last: int) -> tuple[Tensor, ...]:
    """Queries (0), keys (1) and values (2) of tokens, from ``first`` to before ``last``."""
    projection, width = block.attn.in_proj, stream.shape[-1]
    rows = slice(first * width, last * width)
    found = F.linear(block.before(stream), projection.weight[rows], projection.bias[rows])
    return block.attn.split(found, last - first)
