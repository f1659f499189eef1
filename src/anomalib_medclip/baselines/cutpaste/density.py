"""A Gaussian of features, and how far others lie from it."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int
from torch import Tensor

from anomalib_medclip.baselines.common.owners import others
from anomalib_medclip.components.buffers import SizedByState
from anomalib_medclip.errors import NotReadyError

_LEAST = 1e-6
"""Mean variance of a number at least: one image alone has none."""


def ledoit_wolf(
    centred: Float64[Tensor, "sample width"],
) -> tuple[Float64[Tensor, "width width"], float]:
    """Covariance of centred samples drawn to a multiple of the unit matrix, and by how much.

    Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004;
    as scikit-learn has it.

    Example:
        >>> samples = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
        >>> ledoit_wolf(samples)[0]
        tensor([[1., 0.],
                [0., 0.]], dtype=torch.float64)
    """
    count, width = centred.shape
    covariance = centred.T @ centred / count
    mean = covariance.trace() / width
    squares = centred.square()
    of_products = squares.sum(dim=1).square().sum()  # of all products of two numbers of a sample
    size = covariance.square().sum()
    beta = (of_products / count - size) / (width * count)
    delta = (size - 2 * mean * covariance.trace()) / width + mean**2
    shrinkage = float((torch.minimum(beta, delta) / delta).clamp(min=0)) if beta > 0 else 0.0
    drawn = (1 - shrinkage) * covariance
    drawn.diagonal().add_(shrinkage * mean)
    return drawn, shrinkage


class Gaussian(SizedByState):
    """Mean and covariance of unit vectors, and the Mahalanobis distance of others."""

    mean: Tensor
    whitening: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("mean", "whitening"):
            self.register_buffer(name, torch.empty(0))
        self._samples = torch.empty(0, 0, 0)
        self._owners = torch.empty(0, dtype=torch.long)

    def fill(
        self, vectors: Float[Tensor, "image vector width"], owners: Int[Tensor, "image"]
    ) -> None:
        """Take the Gaussian of the vectors of normal images.

        Args:
            vectors: Of any length.
            owners: Number of the patient, or of the image, that each image came from.
        """
        self._samples, self._owners = F.normalize(vectors.detach(), dim=-1), owners
        self.mean, self.whitening = _fitted(self._samples.flatten(0, 1))

    def distance(
        self,
        vectors: Float[Tensor, "batch vector width"],
        leave_out: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch vector"]:
        """Mahalanobis distance of each vector.

        Args:
            vectors: Of any length.
            leave_out: Owner of each image, of whose vectors its Gaussian must not be; -1 for none.

        Raises:
            NotReadyError: There is no Gaussian, or none without that owner.
        """
        if self.mean.numel() == 0:
            msg = "there is no Gaussian of normal images: train with k_shot > 0, or load a "
            msg += "checkpoint"
            raise NotReadyError(msg)
        units = F.normalize(vectors, dim=-1)
        if leave_out is None:
            return _distance(units, self.mean, self.whitening)
        fits = {owner: self._without(owner) for owner in set(leave_out.tolist())}
        pairs = zip(units, leave_out.tolist(), strict=True)
        return torch.stack([_distance(one, *fits[owner]) for one, owner in pairs])

    def __getstate__(self) -> dict[str, object]:
        """Without the vectors of single images."""
        return self.__dict__ | {"_samples": torch.empty(0, 0, 0), "_owners": torch.empty(0)}

    def _without(self, owner: int) -> tuple[Tensor, Tensor]:
        if owner < 0:
            return self.mean, self.whitening
        [seen] = others(self._owners, torch.tensor([owner]))
        return _fitted(self._samples[seen].flatten(0, 1))


def _fitted(
    samples: Float[Tensor, "sample width"],
) -> tuple[Float[Tensor, "width"], Float[Tensor, "width width"]]:
    """Mean, and a matrix that makes of the covariance the unit matrix."""
    precise = samples.cpu().double()  # not every device knows float64
    mean = precise.mean(dim=0)
    covariance, _ = ledoit_wolf(precise - mean)
    variances, axes = torch.linalg.eigh(covariance)
    # Where there are few samples, or one, directions in which nothing varies tell nothing apart.
    least = max(_LEAST, 1e-6 * float(variances[-1]))
    whitening = axes / variances.clamp(min=least).sqrt()
    return mean.float().to(samples.device), whitening.float().to(samples.device)


def _distance(vectors: Tensor, mean: Tensor, whitening: Tensor) -> Tensor:
    return ((vectors - mean) @ whitening).norm(dim=-1)
