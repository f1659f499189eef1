"""Distances of patches to the nearest of normal images, and the maps made of them."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from anomalib_medclip.baselines.common.owners import others
from anomalib_medclip.components.buffers import SizedByState
from anomalib_medclip.errors import NotReadyError

_AT_ONCE = 8192
"""Rows that are compared at once: all products together would need gigabytes."""


class VectorBank(SizedByState):
    """Vectors of normal patches, and the Euclidean distance to the nearest of them; exact."""

    rows: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rows", torch.empty(0))
        self._owners = torch.empty(0, dtype=torch.long)

    def fill(
        self, vectors: Float[Tensor, "image patch width"], owners: Int[Tensor, "image"]
    ) -> None:
        """Replace the rows.

        Args:
            vectors: Of the patches of normal images.
            owners: Number of the patient, or of the image, that each image came from.
        """
        self.rows = vectors.flatten(0, 1).detach().clone()
        self._owners = owners.repeat_interleave(vectors.shape[1]).to(vectors.device)

    def distance(
        self,
        vectors: Float[Tensor, "batch patch width"],
        leave_out: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch patch"]:
        """Distance of each patch to the nearest row.

        Args:
            vectors: Of the patches of images.
            leave_out: Owner whose rows each image must not see; -1 for none.

        Raises:
            NotReadyError: The bank is empty, or holds nothing but rows to leave out.
        """
        if self.rows.numel() == 0:
            msg = "memory of patches is empty: train with k_shot > 0, or load a checkpoint"
            raise NotReadyError(msg)
        if leave_out is None:
            return self._nearest(vectors.flatten(0, 1), self.rows).view(vectors.shape[:2])
        pairs = zip(vectors, others(self._owners, leave_out), strict=True)
        return torch.stack([self._nearest(one, self.rows[seen]) for one, seen in pairs])

    @staticmethod
    def _nearest(
        queries: Float[Tensor, "query width"], rows: Float[Tensor, "row width"]
    ) -> Float[Tensor, "query"]:
        """A product finds the nearest row, and a second look its distance, which rounds less."""
        centre = rows.mean(dim=0)
        queries, best, number = queries - centre, None, None
        for start in range(0, len(rows), _AT_ONCE):
            part = rows[start : start + _AT_ONCE] - centre
            found, place = (part.square().sum(dim=1) - 2 * queries @ part.T).min(dim=1)
            if best is None or number is None:
                best, number = found, place
            else:
                number = torch.where(found < best, place + start, number)
                best = torch.minimum(found, best)
        return (queries - (rows[number] - centre)).norm(dim=1)


class Spread(nn.Module):
    """What is known of patches to what is known of pixels: each has the mean of those on it.

    Args:
        side: Side of the images in pixels.
        patch: Side of the patches in pixels.
        stride: Step from a patch to the next in pixels; they fill the image.
    """

    matrix: Tensor

    def __init__(self, side: int, patch: int, stride: int) -> None:
        super().__init__()
        starts = torch.arange(0, side - patch + 1, stride)
        away = torch.arange(side)[:, None] - starts
        covered = ((away >= 0) & (away < patch)).float()
        self.register_buffer("matrix", covered / covered.sum(dim=1, keepdim=True), persistent=False)

    def forward(
        self, patches: Float[Tensor, "batch rows rows"]
    ) -> Float[Tensor, "batch side side"]:
        """Maps of the images."""
        return self.matrix @ patches @ self.matrix.T
