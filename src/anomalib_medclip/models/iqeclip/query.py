"""The instance-aware query module: two queries that read an image and its text (eq. 6-9)."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from anomalib_medclip.components.class_tokens import ClassTokens
from anomalib_medclip.components.folded_attention import FoldedAttention

Reading = Literal["image", "text", "printed"]
"""What queries read first; or all as eq. 7 to 9 are printed, the text before the image."""

FeedForwards = Literal["end", "each"]
"""One network at the end of a block, or one after each attention."""

_EPS = 1e-12  # BERT's


class Attention(FoldedAttention):
    """Multi-head attention of queries to a context, with residual and norm after it, as in BERT.

    Args:
        width: Width of queries and context.
        heads: Number of heads.
        dropout: Probability, on the attention and on what it returns.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__(width, heads, dropout=dropout)
        self.norm = nn.LayerNorm(width, eps=_EPS)

    def forward(
        self,
        queries: Float[Tensor, "batch query width"],
        context: Float[Tensor, "batch token width"],
        onto: Float[Tensor, "batch query width"] | None = None,
    ) -> Float[Tensor, "batch query width"]:
        """Queries after they have read the context.

        Args:
            queries: What asks.
            context: What is read.
            onto: What the answer is added to; by default what asks.
        """
        found = self.dropout(self.attend(queries, context))
        return self.norm(found + (queries if onto is None else onto))


class FeedForward(nn.Sequential):
    """Two layers, without residual and norm.

    Args:
        width: Width of the queries.
        hidden: Width of the hidden layer.
        dropout: Probability after the second.
    """

    def __init__(self, width: int, hidden: int, dropout: float = 0.0) -> None:
        first = nn.Linear(width, hidden)  # before the second, for its seed
        super().__init__(first, nn.GELU(), nn.Linear(hidden, width), nn.Dropout(dropout))


class Refinement(nn.Module):
    """A feed-forward network with residual and norm, after an attention that is not the last.

    Args:
        width: Width of the queries.
        hidden: Width of the hidden layer.
        dropout: Probability in it.
    """

    def __init__(self, width: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.feedforward = FeedForward(width, hidden, dropout)
        self.norm = nn.LayerNorm(width, eps=_EPS)

    def forward(self, queries: Float[Tensor, "batch query width"]) -> Tensor:
        """Queries of the same shape."""
        return self.norm(self.feedforward(queries) + queries)


class QueryBlock(nn.Module):
    """Attention to one another, to the image and to the text, then a feed-forward network.

    As the code; the paper's eq. 7-9 have the text before the image, and a network after each.

    Args:
        width: Width of the queries.
        heads: Number of attention heads.
        feedforward: Width of the hidden layer.
        image_attention: Read the image.
        text_attention: Read the text.
        dropout: Probability after every layer.
        reading: What is read first.
        feedforwards: One network, or one after each attention.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        feedforward: int,
        image_attention: bool = True,
        text_attention: bool = True,
        dropout: float = 0.0,
        reading: Reading = "image",
        feedforwards: FeedForwards = "end",
    ) -> None:
        super().__init__()
        self.reading = reading
        self.self_attention = Attention(width, heads, dropout)
        self.image_attention = Attention(width, heads, dropout) if image_attention else None
        self.text_attention = Attention(width, heads, dropout) if text_attention else None
        self.feedforward = FeedForward(width, feedforward, dropout)
        self.norm = nn.LayerNorm(width, eps=_EPS)
        between = image_attention + text_attention if feedforwards == "each" else 0
        self.refinements = nn.ModuleList(
            Refinement(width, feedforward, dropout) for _ in range(between)
        )

    def forward(
        self,
        queries: Float[Tensor, "batch query width"],
        image: Float[Tensor, "batch patch width"],
        text: Float[Tensor, "batch 2 width"],
    ) -> Float[Tensor, "batch query width"]:
        """Queries after they have read all that they may."""
        queries = self._refined(0, self.self_attention(queries, queries))
        before = queries
        steps = [(self.image_attention, image), (self.text_attention, text)]
        steps = steps if self.reading == "image" else steps[::-1]
        reads = [(one, context) for one, context in steps if one is not None]
        for number, (attention, context) in enumerate(reads, start=1):
            asks = before if self.reading == "printed" else queries
            queries = self._refined(number, attention(asks, context, onto=queries))
        return self.norm(self.feedforward(queries) + queries)

    def _refined(self, number: int, queries: Tensor) -> Tensor:
        """Queries after one of the attentions, from 0; the last has its network at the end."""
        has_own = number < len(self.refinements)
        return self.refinements[number](queries) if has_own else queries


class QueryModule(nn.Module):
    """Two queries, normal and abnormal, begun from the image's class token.

    Args:
        width: Width of the space that images and text share.
        blocks: Number of blocks.
        heads: Number of attention heads.
        feedforward: Width of the hidden layers; by default four times the width.
        class_initialisation: Begin from the class token, and not from learnt vectors alone.
        image_attention: Let queries read the image.
        text_attention: Let queries read the text.
        dropout: Probability after every layer.
        reading: What a block reads first.
        feedforwards: One network a block, or one after each attention.

    Raises:
        ValueError: The heads do not divide the width.
    """

    def __init__(
        self,
        width: int,
        blocks: int = 4,
        heads: int = 8,
        feedforward: int | None = None,
        class_initialisation: bool = True,
        image_attention: bool = True,
        text_attention: bool = True,
        dropout: float = 0.0,
        reading: Reading = "image",
        feedforwards: FeedForwards = "end",
    ) -> None:
        super().__init__()
        self.queries = ClassTokens(2, width, class_initialisation)
        self.norm = nn.LayerNorm(width, eps=_EPS)
        self.dropout = nn.Dropout(dropout)
        hidden = feedforward or 4 * width
        reads = image_attention, text_attention, dropout, reading, feedforwards
        self.blocks = nn.ModuleList(QueryBlock(width, heads, hidden, *reads) for _ in range(blocks))

    def forward(
        self,
        feature: Float[Tensor, "batch width"],
        patches: Float[Tensor, "level batch patch width"],
        text: Float[Tensor, "batch 2 width"],
    ) -> Float[Tensor, "level batch 2 width"]:
        """Queries of each level, un-normalised; every level begins anew from the same ones.

        Args:
            feature: The image's class token in the shared space, un-normalised.
            patches: Adapted patch tokens of each level, un-normalised.
            text: Text features of the image, L2-normalised.
        """
        levels = patches.shape[0]
        queries = self.dropout(self.norm(self.queries(feature))).repeat(levels, 1, 1)
        image, text = patches.flatten(0, 1), text.repeat(levels, 1, 1)
        for block in self.blocks:
            queries = block(queries, image, text)
        return queries.unflatten(0, (levels, -1))
