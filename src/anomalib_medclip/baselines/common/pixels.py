"""Where images enter a baseline, in the place of CLIP's image tower."""

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from anomalib_medclip.baselines.common.network_source import NetworkSource
from anomalib_medclip.clip.blocks import Precision
from anomalib_medclip.clip.image_tower import refuse_other_size


class Pixels(nn.Module):
    """Images of one size, normalised: all that is frozen where the whole network trains.

    Args:
        source: How they enter.
        fingerprint: Of what is frozen; by default of the images alone.

    Attributes:
        stated: Mean and deviation.
    """

    precision: ClassVar[Precision] = "fp32"
    mean: Tensor
    std: Tensor

    def __init__(self, source: NetworkSource, fingerprint: str | None = None) -> None:
        super().__init__()
        self.backbone, self.stated = source, source.stated
        self.fingerprint = source.fingerprint() if fingerprint is None else fingerprint
        for name, values in (("mean", self.stated.mean), ("std", self.stated.std)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images, and of the maps made of them, in pixels."""
        return self.backbone.image_size, self.backbone.image_size

    def train(self, mode: bool = True) -> Any:  # noqa: ANN401 - itself
        """Stay in evaluation mode: nothing here trains."""
        del mode
        return super().train(mode=False)

    def forward(
        self, images: Float[Tensor, "batch 3 side side"]
    ) -> Float[Tensor, "batch 3 side side"]:
        """Images as networks take them.

        Args:
            images: RGB in [0, 1].

        Raises:
            ConfigError: They are of another size.
        """
        return self._embed(images)

    def _embed(self, images: Tensor) -> Tensor:
        refuse_other_size(images, self.size)
        return (images - self.mean) / self.std if self.backbone.normalize else images
