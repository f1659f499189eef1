"""What is timed when images are scored, by the torch models alone: no anomalib is needed."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from anomalib_medclip.bench.timing import TimedCall
from anomalib_medclip.components.model import ClipModel

RGBImages = Float[Tensor, "batch 3 side side"]
"""RGB in [0, 1] at the model's size."""


def random_images(model: ClipModel, count: int, seed: int = 1) -> RGBImages:
    """Smooth random images at a model's size, the same for the same seed."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 8, 8, generator=random)
    return F.interpolate(coarse, model.clip.size, mode="bilinear", antialias=True)


def know_prompts(model: ClipModel) -> None:
    """Give a model text features to compare with: random ones, which cost what others do."""
    tower, random = model.text_tower, torch.Generator().manual_seed(0)
    if tower is None:
        model.text = F.normalize(torch.randn(2, model.clip.embed_dim, generator=random), dim=-1)
    else:  # its prompts depend on the image, and so not on any object's name
        model.text = model.prompts(tower, "")


@torch.no_grad()
def fill_bank(model: ClipModel, k_shot: int, copies: int) -> None:
    """Put into a model's memory, if it has one, what K normal images would leave there.

    Frozen features of each copy are mixed at random from those of eight smooth random images.

    Args:
        model: On its device.
        k_shot: Images; 0 for zero-shot.
        copies: How many augmented copies a method makes of each, itself included.
    """
    if not (k_shot and model.has_memory):
        return
    random = torch.Generator().manual_seed(0)
    encoded = model.encode(random_images(model, 8, seed=0).to(model.device))
    shares = (3 * torch.randn(copies * k_shot, 8, generator=random)).softmax(dim=1).to(encoded)
    mixed = torch.einsum("ci,i...->c...", shares, encoded).unflatten(0, (copies, k_shot))
    # One normal patient alone has nobody to be compared with, so there is an abnormal one, too.
    support = torch.cat([mixed[0], encoded[:1]])
    owners = torch.arange(k_shot + 1, device=model.device)
    model.fit_support(support, mixed, owners == k_shot, owners)


def encoder(model: ClipModel, images: RGBImages) -> TimedCall:
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
