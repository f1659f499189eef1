"""What is timed when images are scored, by the torch models alone; see ``bare``."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from anomalib_medclip.bench.timing import TimedCall

RGBImages = Float[Tensor, "batch 3 side side"]
"""RGB in [0, 1] at the model's size."""


def random_images(model: Any, count: int, seed: int = 1) -> RGBImages:  # noqa: ANN401 - any method's
    """Smooth random images at a model's size, the same for the same seed."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 8, 8, generator=random)
    return F.interpolate(coarse, model.clip.size, mode="bilinear", antialias=True)


def know_prompts(model: Any) -> None:  # noqa: ANN401 - any method's
    """Give a model text features to compare with: random ones, which cost what others do."""
    tower = getattr(model, "text_tower", None)
    random = torch.Generator().manual_seed(0)
    if tower is None:
        model.text = F.normalize(torch.randn(2, model.clip.embed_dim, generator=random), dim=-1)
    else:  # its prompts depend on the image, and so not on any object's name
        model.text = model.prompts(tower, "")


@torch.no_grad()
def fill_bank(model: Any, k_shot: int, copies: int) -> None:  # noqa: ANN401 - any method's
    """Put into the memory bank, if there is one, what K images would leave there.

    Tokens of each are mixed at random from those of eight smooth random images.

    Args:
        model: On its device.
        k_shot: RGBImages; 0 for zero-shot.
        copies: How many augmented copies a method makes of each, itself included.
    """
    if not (k_shot and hasattr(model, "memory_bank")):
        return
    random = torch.Generator().manual_seed(0)
    count = k_shot * copies
    images = random_images(model, 8, seed=0).to(model.text.device)
    tokens = model.bank_tokens(model.encode(images))
    shares = (3 * torch.randn(count, 8, generator=random)).softmax(dim=1).to(tokens)
    mixed = torch.einsum("ci,litw->lctw", shares, tokens)
    model.memory_bank.fill(mixed, torch.arange(count))


def encoder(model: Any, images: RGBImages) -> TimedCall:  # noqa: ANN401 - any method's
    """open_clip's image encoder as open_clip runs it, with weights like the model's, in fp32."""
    visual = model.clip.backbone.load().clip.visual.eval().to(images.device)

    def work() -> Tensor:
        with torch.inference_mode():
            return visual(images)

    return work


def scorer(model: Any, device: str, *, compiled: bool) -> Callable[[Tensor], Any]:  # noqa: ANN401
    """A model in torch, from images at its size to scores and maps, which stay on its device."""
    # Each batch size for itself: one graph for all sizes would be a slower one.
    run_model = torch.compile(model, dynamic=False) if compiled else model

    def run(images: Tensor) -> Any:  # noqa: ANN401 - anomalib's InferenceBatch
        with torch.inference_mode():
            return run_model(images.to(device))

    return run
