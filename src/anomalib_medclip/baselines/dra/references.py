"""What DRA's residual head compares images with: the mean of normal ones."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from anomalib_medclip.baselines.common.owners import others
from anomalib_medclip.components.buffers import SizedByState
from anomalib_medclip.errors import NotReadyError


class References(SizedByState):
    """Maps of normal images, scale by scale.

    Args:
        scales: How many.
    """

    def __init__(self, scales: int) -> None:
        super().__init__()
        for scale in range(scales):
            self.register_buffer(f"scale_{scale}", torch.empty(0))
        self._owners = torch.empty(0, dtype=torch.long)

    def fill(
        self,
        features: list[Float[Tensor, "image width height across"]],
        owners: Int[Tensor, "image"],
    ) -> None:
        """Replace the maps.

        Args:
            features: Of normal images, scale by scale.
            owners: Number of each image's patient or, where unknown, of the image.
        """
        for scale, one in enumerate(features):
            setattr(self, f"scale_{scale}", one)
        self._owners = owners

    def forward(
        self, leave_out: Int[Tensor, "batch"] | None = None
    ) -> list[Float[Tensor, "#batch width height across"]]:
        """Their mean, scale by scale.

        Args:
            leave_out: Owner whose maps each image must not see, -1 for none; only while they are
                those that were filled in here.

        Raises:
            NotReadyError: There are none, or none but those to leave out.
        """
        kept = list(self.buffers(recurse=False))
        if not kept[0].numel():
            msg = "there are no references: train with k_shot > 0, or load a checkpoint"
            raise NotReadyError(msg)
        if leave_out is None:
            return [one.mean(dim=0, keepdim=True) for one in kept]
        seen = others(self._owners, leave_out)
        weights = seen / seen.sum(dim=1, keepdim=True)
        return [torch.tensordot(weights.to(one), one, dims=1) for one in kept]
