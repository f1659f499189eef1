"""MVFA's two branches on one scale (eq. 6), with constants from support images."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from anomalib_medclip.components.anomaly_map import stretched


class Branches(NamedTuple):
    """Scores of the two branches, each the mean over levels, not yet on one scale."""

    text_map: Float[Tensor, "batch height width"]
    memory_map: Float[Tensor, "batch height width"]
    text_score: Float[Tensor, "batch"]
    memory_score: Float[Tensor, "batch"]


class Fusion(nn.Module):
    """Average of the branches, each moved from its extremes on support images to [0, 1].

    The authors take the extremes of the whole test set, so that no image can be scored alone.

    Args:
        memory_weight: Of the memory branch; the text branch has the rest to 1.
    """

    scales: Tensor

    def __init__(self, memory_weight: float = 0.5) -> None:
        super().__init__()
        self.memory_weight = memory_weight
        # Lowest and highest value of (pixels, images) x (text, memory).
        self.register_buffer("scales", torch.tensor([0.0, 1.0]).repeat(2, 2, 1))

    def forward(
        self, branches: Branches, by_map: bool
    ) -> tuple[Float[Tensor, "batch"], Float[Tensor, "batch height width"]]:
        """Image scores and maps, in [0, 1] for what lies between the extremes.

        Args:
            branches: Scores of some images.
            by_map: Whether the score is the map's maximum, as in the authors' code for sets with
                masks, or the average of the branches' own image scores.
        """
        pixel, image = self.scales
        fused = self._average(branches.text_map, branches.memory_map, pixel)
        if by_map:
            return fused.amax(dim=(-2, -1)), fused
        return self._average(branches.text_score, branches.memory_score, image), fused

    def scaled(
        self, branch: int, maps: Float[Tensor, "*any height width"]
    ) -> Float[Tensor, "*any height width"]:
        """Maps of the text (0) or the memory branch (1), as they enter the average."""
        return stretched(maps, self.scales[0, branch])

    def fit(self, batches: Iterable[Branches]) -> None:
        """Let each branch range over [0, 1] on these images."""
        extremes = torch.stack(
            [torch.stack([torch.stack([b.amin(), b.amax()]) for b in batch]) for batch in batches]
        )
        low, high = extremes[..., 0].amin(dim=0), extremes[..., 1].amax(dim=0)
        self.scales = torch.stack([low, high], dim=-1).view(2, 2, 2)

    def _average(self, text: Tensor, memory: Tensor, scale: Tensor) -> Tensor:
        text, memory = stretched(text, scale[0]), stretched(memory, scale[1])
        return (1 - self.memory_weight) * text + self.memory_weight * memory
