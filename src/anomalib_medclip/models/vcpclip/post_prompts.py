"""Sentences that have read the patches that they are compared with (Post-VCP)."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from anomalib_medclip.components.folded_attention import FoldedAttention


class PostPrompts(FoldedAttention):
    """One attention of text to patches for all levels, in the width of the image tower.

    Args:
        width: Width of the patches.
        embed_dim: Width of the text features.
        heads: Number of heads; they divide the width.

    Raises:
        ValueError: They do not.
    """

    def __init__(self, width: int, embed_dim: int, heads: int = 8) -> None:
        # As the code, whose logits are not divided by the root of a head's width.
        super().__init__(width, heads, embed_dim, scaled=False)

    def forward(
        self,
        text: Float[Tensor, "batch 2 embed_dim"],
        patches: Float[Tensor, "level batch patch width"],
    ) -> Float[Tensor, "level batch 2 width"]:
        """Text features of each level, L2-normalised.

        Args:
            text: Those of the images, L2-normalised.
            patches: Frozen patch tokens, un-normalised.
        """
        levels = patches.shape[0]
        context = F.normalize(patches, dim=-1).flatten(0, 1)
        found = self.attend(text.repeat(levels, 1, 1), context)
        return F.normalize(found, dim=-1).unflatten(0, (levels, -1))
