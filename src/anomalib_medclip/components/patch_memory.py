"""What is made of a memory bank of patches: maps of distances, and a scale for their maxima."""

import logging
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from anomalib_medclip.components.anomaly_map import stretched, to_map
from anomalib_medclip.components.memory_bank import MemoryBank
from anomalib_medclip.components.model import NearestSupport

logger = logging.getLogger(__name__)


def memory_maps(
    bank: MemoryBank,
    patches: Float[Tensor, "level batch patch width"],
    size: tuple[int, int],
    leave_out: Int[Tensor, "batch"] | None = None,
) -> Float[Tensor, "level batch height width"]:
    """Half the distance of each pixel to the nearest row, level by level, in [0, 1].

    Args:
        bank: Patches of normal images, of as many levels.
        patches: Of the images to score, of any length.
        size: Height and width of the maps in pixels.
        leave_out: See ``MemoryBank.distance``.

    Raises:
        NotReadyError: The bank is empty, or holds nothing but rows to leave out.
    """
    found = [bank.distance(one, level, leave_out) / 2 for level, one in enumerate(patches)]
    return torch.stack([to_map(one.unsqueeze(-1), size)[:, 0] for one in found])


def nearest_patches(
    bank: MemoryBank, patches: Float[Tensor, "level batch patch width"]
) -> NearestSupport:
    """The rows behind these distances, of a bank that holds the patches of images and no more.

    Raises:
        NotReadyError: The bank is empty.
    """
    found = [bank.nearest(one, level) for level, one in enumerate(patches)]
    distances, rows = (torch.stack(part) for part in zip(*found, strict=True))
    count = patches.shape[2]
    return NearestSupport(distances, rows // count, rows % count)


class SupportScale(nn.Module):
    """Moves scores from their extremes on support images to [0, 1]; before any, as they are.

    Published codes take the extremes of the whole test set, so that no image can be scored alone.
    """

    extremes: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("extremes", torch.tensor([0.0, 1.0]))

    def forward(self, scores: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """In [0, 1] for what lies between the extremes, and beyond in the same steps."""
        return stretched(scores, self.extremes)

    @torch.no_grad()
    def fit(self, scores: Float[Tensor, "image"]) -> None:
        """Let these scores range over [0, 1]."""
        self.extremes = torch.stack([scores.amin(), scores.amax()])

    @torch.no_grad()
    def fit_left_out(
        self,
        bank: MemoryBank,
        support: Float[Tensor, "image ..."],
        labels: Bool[Tensor, "image"],
        owners: Int[Tensor, "image"],
        score: Callable[[Tensor, Tensor], Float[Tensor, "part"]],
    ) -> None:
        """Let support images range over [0, 1], each scored against a bank without its owner.

        Where no normal image can be left out, for there is one patient only, scores stay as they
        are, and a warning says so.

        Args:
            bank: What the score compares with, as it was filled here.
            support: What ``encode`` gives of the support images.
            labels: True for abnormal.
            owners: As the bank was told.
            score: Of some images, and of the owners that they are not compared with.
        """
        others = torch.tensor([bank.has_others(int(one)) for one in owners], device=labels.device)
        if not (others & ~labels).any():
            logger.warning("one normal patient only: its own images cannot set the scale")
            self.extremes = torch.tensor([0.0, 1.0], device=self.extremes.device)
            return
        parts = zip(support[others].split(8), owners[others].split(8), strict=True)
        self.fit(torch.cat([score(some, whose) for some, whose in parts]))
