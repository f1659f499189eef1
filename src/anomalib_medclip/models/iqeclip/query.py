"""The instance-aware query module: two queries that read an image and its text (eq. 6-9)."""

from jaxtyping import Float
from torch import Tensor, nn

from anomalib_medclip.components.class_tokens import ClassTokens
from anomalib_medclip.components.folded_attention import FoldedAttention

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
    ) -> Float[Tensor, "batch query width"]:
        """Queries after they have read the context."""
        return self.norm(self.dropout(self.attend(queries, context)) + queries)


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
    """

    def __init__(
        self,
        width: int,
        heads: int,
        feedforward: int,
        image_attention: bool = True,
        text_attention: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.self_attention = Attention(width, heads, dropout)
        self.image_attention = Attention(width, heads, dropout) if image_attention else None
        self.text_attention = Attention(width, heads, dropout) if text_attention else None
        self.feedforward = nn.Sequential(
            nn.Linear(width, feedforward),
            nn.GELU(),
            nn.Linear(feedforward, width),
            nn.Dropout(dropout),
        )
        self.norm = nn.LayerNorm(width, eps=_EPS)

    def forward(
        self,
        queries: Float[Tensor, "batch query width"],
        image: Float[Tensor, "batch patch width"],
        text: Float[Tensor, "batch 2 width"],
    ) -> Float[Tensor, "batch query width"]:
        """Queries after they have read all that they may."""
        queries = self.self_attention(queries, queries)
        if self.image_attention is not None:
            queries = self.image_attention(queries, image)
        if self.text_attention is not None:
            queries = self.text_attention(queries, text)
        return self.norm(self.feedforward(queries) + queries)


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
    ) -> None:
        super().__init__()
        self.queries = ClassTokens(2, width, class_initialisation)
        self.norm = nn.LayerNorm(width, eps=_EPS)
        self.dropout = nn.Dropout(dropout)
        hidden = feedforward or 4 * width
        self.blocks = nn.ModuleList(
            QueryBlock(width, heads, hidden, image_attention, text_attention, dropout)
            for _ in range(blocks)
        )

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
