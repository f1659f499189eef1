"""A torch model that nothing is trained of."""

from jaxtyping import Bool, Float
from torch import Tensor

from anomalib_medclip.components.losses import LossTerms, without_masks
from anomalib_medclip.components.model import ClipModel


class FrozenModel(ClipModel):
    """A model in which nothing learns."""

    def loss_terms(
        self,
        encoded: Tensor,
        masks: Float[Tensor, "batch 1 side side"] | None,
        labels: Bool[Tensor, "batch"],
        text: Float[Tensor, "2 *feature"],
    ) -> LossTerms:
        """No terms."""
        del masks, labels, text
        return without_masks(encoded.new_zeros(0))
