"""Heat maps of what a score depends on, made of its gradient at the input."""

import torch
from jaxtyping import Float
from torch import Tensor


def salience(gradients: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch side side"]:
    """How much a score depends on each pixel: the sizes of its gradients, added over colours."""
    return gradients.abs().sum(dim=1)


def stretched_to_percentile(
    maps: Float[Tensor, "batch side side"], percent: float = 99.0
) -> Float[Tensor, "batch side side"]:
    """Each map moved to [0, 1], so that its minimum is 0 and a percentile, and all above it, 1.

    Maps of different images cannot be compared any more: that of a normal one reaches 1, too.

    Example:
        >>> stretched_to_percentile(torch.tensor([[[2.0, 4.0], [6.0, 6.0]]]))
        tensor([[[0.0000, 0.5000],
                 [1.0000, 1.0000]]])
    """
    flat = maps.flatten(1)
    low = flat.amin(dim=1)
    # Image by image: torch finds quantiles of 16 million values at most.
    high = torch.stack([one.quantile(percent / 100) for one in flat])
    spread = (high - low).clamp(min=torch.finfo(maps.dtype).tiny)
    return ((maps - low[:, None, None]) / spread[:, None, None]).clamp(0, 1)
