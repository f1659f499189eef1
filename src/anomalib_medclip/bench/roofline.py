"""What the machine can do: the rate of a plain product, and how much the encoder has to compute."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from anomalib_medclip.bench.timing import seconds
from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.clip.blocks import DTYPES, Precision

_SIDE = {"cpu": 2048, "cuda": 8192}
"""Rows and columns of the product: large enough for the full rate."""


def encoder_gflop(backbone: Backbone) -> float:
    """Floating-point operations of CLIP's image encoder for an image, in 1e9.

    Two to a multiply-add, counted on tensors without content.
    """
    with torch.device("meta"):
        visual = backbone.build().visual.eval()
        image = torch.empty(1, 3, backbone.image_size, backbone.image_size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        visual(image)
    return counter.get_total_flops() / 1e9


@torch.inference_mode()
def product_gflops(precision: Precision, device: str) -> float:
    """Operations a second of a square matrix product, in 1e9, at its best of three."""
    side = _SIDE[torch.device(device).type]
    square = torch.randn(side, side, device=device).to(DTYPES[precision])
    square @ square  # allocates, and chooses how
    took = min(seconds(lambda: square @ square, 1, device) for _ in range(3))
    return 2 * side**3 / took / 1e9
