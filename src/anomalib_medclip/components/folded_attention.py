"""Attention of few queries to many tokens, of which none is projected."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class FoldedAttention(nn.Module):
    """Multi-head attention of queries to a context, its projections folded around the context.

    Two queries meet hundreds of tokens, so no token is projected: W_q h . (W_k x + b_k) is
    (W_k' W_q h) . x plus what is the same for all tokens and drops out of the softmax, and a
    weighted sum of W_v x is W_v of the weighted sum. The results are those of the plain order,
    but for rounding; b_k has no effect and does not exist.

    Args:
        width: Width of the context, and of what is returned.
        heads: Number of heads.
        query_width: Width of the queries; by default that of the context.
        dropout: Probability, on the attention.
        scaled: Divide the logits by the root of a head's width.

    Raises:
        ValueError: The heads do not divide the width.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        query_width: int | None = None,
        dropout: float = 0.0,
        scaled: bool = True,
    ) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            msg = f"{heads} heads do not divide the width of {width}; take a divisor of it"
            raise ValueError(msg)
        self.heads = heads
        self.scale = (width // heads) ** -0.5 if scaled else 1.0
        self.query = nn.Linear(query_width or width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def attend(
        self,
        queries: Float[Tensor, "batch query query_width"],
        context: Float[Tensor, "batch token width"],
    ) -> Float[Tensor, "batch query width"]:
        """What queries read of the context."""
        heads = (self.heads, -1)
        asked = self.query(queries).unflatten(-1, heads)
        keys = self.key.weight.unflatten(0, heads)
        folded = torch.einsum("bqhd,hde->bhqe", asked, keys).flatten(1, 2)
        attention = (self.scale * folded @ context.transpose(1, 2)).softmax(dim=-1)
        attention = self.dropout(attention)
        read = (attention @ context).unflatten(1, heads)
        values = self.value.weight.unflatten(0, heads)
        found = torch.einsum("bhqe,hde->bqhd", read, values)
        # The weights add up to 1, and the bias comes in whole, but under dropout.
        whole = attention.sum(dim=-1).unflatten(1, heads).transpose(1, 2).unsqueeze(-1)
        found = (found + whole * self.value.bias.unflatten(0, heads)).flatten(2)
        return self.output(found)
