"""A Gaussian filter as one matrix, so that it is exported like everything else."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn


class GaussianSmoothing(nn.Module):
    """SciPy's Gaussian filter of square maps, mirrored at the edges.

    It is linear and separable, so its answer to the unit matrix is all there is to know.

    Args:
        size: Side of the maps in pixels.
        sigma: Standard deviation in pixels; 0 leaves maps as they are.
    """

    matrix: Tensor

    def __init__(self, size: int, sigma: float) -> None:
        from scipy.ndimage import gaussian_filter  # few models need it

        super().__init__()
        matrix = gaussian_filter(np.eye(size), (sigma, 0.0))
        self.register_buffer("matrix", torch.from_numpy(matrix).float(), persistent=False)

    def forward(self, maps: Float[Tensor, "*batch size size"]) -> Float[Tensor, "*batch size size"]:
        """Smooth along columns and rows."""
        return self.matrix @ maps @ self.matrix.T
