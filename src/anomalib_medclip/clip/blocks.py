"""CLIP's residual blocks, run by ourselves: one layout, and bf16 that is fast everywhere.

open_clip turned its blocks from (token, batch) to (batch, token) in 2.26.1, and on processors its
attention in bf16 is many times slower than in fp32 as soon as there are two images. Weights and
modules are open_clip's, and so are the numbers.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from anomalib_medclip.errors import WeightsError

Precision = Literal["fp32", "bf16"]
"""What the products of frozen blocks are computed in."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""Torch's names for them."""


class SelfAttention(nn.Module):
    """Multi-head attention of tokens to one another.

    Args:
        attention: Torch's, or open_clip's with norms; whose weights it takes: the two share them.
    """

    def __init__(self, attention: Any) -> None:  # noqa: ANN401 - one of two
        super().__init__()
        self.heads = attention.num_heads
        width = attention.out_proj.in_features
        self.in_proj = nn.Linear(width, 3 * width, device="meta")  # no memory, no random numbers
        self.in_proj.weight, self.in_proj.bias = attention.in_proj_weight, attention.in_proj_bias
        self.out_proj = attention.out_proj
        self.ln_q: nn.Module = getattr(attention, "ln_q", nn.Identity())
        self.ln_k: nn.Module = getattr(attention, "ln_k", nn.Identity())
        self.ln_inner: nn.Module = getattr(attention, "ln_inner", nn.Identity())
        self.head_scale: Tensor | None = getattr(attention, "head_scale", None)

    def forward(
        self,
        stream: Float[Tensor, "batch token width"],
        mask: Float[Tensor, "token token"] | None = None,
    ) -> Float[Tensor, "batch token width"]:
        """What the tokens tell one another; ``mask`` is added to the logits."""
        query, key, value = self.split(self.in_proj(stream), 3)
        return self.attend(query, key, value, mask)

    def split(
        self, projected: Float[Tensor, "batch token widths"], count: int
    ) -> tuple[Float[Tensor, "batch head token part"], ...]:
        """Queries, keys, values, or some of them, by head, from what lies side by side."""
        return projected.unflatten(-1, (count, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def attend(
        self,
        query: Float[Tensor, "batch head reader part"],
        key: Float[Tensor, "batch head token part"],
        value: Float[Tensor, "batch head token part"],
        mask: Float[Tensor, "reader token"] | None = None,
    ) -> Float[Tensor, "batch reader width"]:
        """What tokens find in the values where keys answer their queries."""
        query, key = self.ln_q(query), self.ln_k(key)
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        if self.head_scale is not None:
            found = found * self.head_scale
        return self.out_proj(self.ln_inner(found.transpose(1, 2).flatten(2)))


class Block(nn.Module):
    """Attention and a feed-forward network, each with a norm before it and a residual around it.

    The stream, its norms and its sums stay in float32; what bf16 saves are the products.

    Args:
        block: open_clip's block, whose parts and weights it takes.
        precision: Of the products; the weights are kept in it.
    """

    def __init__(self, block: Any, precision: Precision = "fp32") -> None:  # noqa: ANN401 - of any version
        super().__init__()
        dtype = DTYPES[precision]
        self.ln_1, self.ln_2 = block.ln_1, block.ln_2
        self.ls_1, self.ls_2 = block.ls_1, block.ls_2
        self.ln_attn: nn.Module = getattr(block, "ln_attn", nn.Identity())
        self.attn = SelfAttention(block.attn).to(dtype)
        self.mlp: Any = block.mlp.to(dtype)

    def forward(
        self,
        stream: Float[Tensor, "batch token width"],
        attn_mask: Float[Tensor, "token token"] | None = None,
    ) -> Float[Tensor, "batch token width"]:
        """The stream after the block."""
        return self.after(stream, self.attn(self.before(stream), attn_mask))

    def before(
        self, stream: Float[Tensor, "batch token width"]
    ) -> Float[Tensor, "batch token width"]:
        """What enters the attention."""
        return self.ln_1(stream).to(self.mlp.c_fc.weight.dtype)

    def after(
        self,
        stream: Float[Tensor, "batch token width"],
        found: Float[Tensor, "batch token width"],
    ) -> Float[Tensor, "batch token width"]:
        """The stream after the block, with what the attention found."""
        stream = stream + self.ls_1(self.ln_attn(found))
        dtype = self.mlp.c_fc.weight.dtype
        return stream + self.ls_2(self.mlp(self.ln_2(stream).to(dtype)))


def own_blocks(transformer: Any, precision: Precision = "fp32") -> None:  # noqa: ANN401
    """Put our blocks in the place of open_clip's; their weights go with them.

    Args:
        transformer: Either tower's, with ``resblocks``.
        precision: See ``Block``.

    Raises:
        WeightsError: The blocks are of a kind that is not run.
    """
    for block in transformer.resblocks:
        if getattr(block.attn, "logit_scale", None) is not None:
            msg = "blocks with scaled_cosine_attn are run by no version of open_clip; take others"
            raise WeightsError(msg)
    transformer.resblocks = nn.ModuleList(Block(b, precision) for b in transformer.resblocks)
