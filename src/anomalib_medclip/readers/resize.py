"""The one resize of images and masks, in training, testing and prediction."""

from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from torchvision.transforms.v2 import InterpolationMode, Resize
from torchvision.tv_tensors import Image, Mask

from anomalib_medclip.readers.lesion import IGNORED, LESION
from anomalib_medclip.readers.picture import lesion_parts

Resample = Literal["bicubic", "bilinear"]
"""Filters that images are resized with."""

MaskRule = Literal["nearest", "area"]
"""Which pixels of a resized mask are lesion: where the nearest one was, or by their area."""


class MethodResize(Resize):
    """The one resize: antialiased to a square, with Pillow's arithmetic.

    The published numbers come from Pillow's resize of 8-bit images (bilinear for MediCLIP, bicubic
    for the others), so images whose values are whole 255ths take that path to the bit; finer ones
    keep their precision. Masks are resized to the nearest neighbour, as for the published numbers,
    which may leave nothing of a small lesion; or by area: a pixel is lesion if at least half of it
    is, and of a lesion that covers no pixel by half, the one it covers most (and likewise ignored
    by at least half of what is left). Being a ``Resize``,
    anomalib hands it to every dataset that meets the model.

    Args:
        side: Side of the square in pixels; the aspect ratio is not kept, as in the papers.
        resample: Filter for images.
        masks: Rule for masks.
    """

    masks: MaskRule = "nearest"  # pickles of former versions have none

    def __init__(
        self, side: int, resample: Resample = "bicubic", masks: MaskRule = "nearest"
    ) -> None:
        super().__init__((side, side), InterpolationMode(resample), antialias=True)
        self.side = side
        self.resample = resample
        self.masks = masks

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:  # noqa: ANN401 - torchvision's
        """Resize one image, mask or batch of either; anything of the right size passes."""
        del params
        if tuple(inpt.shape[-2:]) == (self.side, self.side):
            return inpt
        image = partial(_resize_image, filter_=Pillow.Resampling[self.resample.upper()])
        by_area = _resize_by_area if self.masks == "area" else _resize_mask
        one = by_area if isinstance(inpt, Mask) else image
        single = inpt.ndim == (2 if isinstance(inpt, Mask) else 3)
        plain = inpt.as_subclass(torch.Tensor)
        resized = torch.stack([one(x, self.side) for x in (plain[None] if single else plain)])
        resized = (resized[0] if single else resized).to(inpt.device)
        return Mask(resized) if isinstance(inpt, Mask) else Image(resized)


def _resize_image(image: torch.Tensor, side: int, filter_: Pillow.Resampling) -> torch.Tensor:
    """Resize ``(3, height, width)`` in [0, 1] to ``(3, side, side)`` in [0, 1]."""
    steps = image.detach().cpu().double().numpy() * 255
    whole = np.rint(steps)
    if np.abs(steps - whole).max() < 1e-3:
        picture = Pillow.fromarray(whole.astype(np.uint8).transpose(1, 2, 0))
        pixels = np.array(picture.resize((side, side), filter_))
        return torch.from_numpy(pixels).permute(2, 0, 1).float().div(255).contiguous()
    channels = [
        np.array(Pillow.fromarray(c.astype(np.float32)).resize((side, side), filter_))
        for c in image.detach().cpu().numpy()
    ]
    return torch.from_numpy(np.stack(channels)).clamp(0, 1)


def _resize_mask(mask: torch.Tensor, side: int) -> torch.Tensor:
    picture = Pillow.fromarray(mask.cpu().numpy().astype(np.int32))  # which may number lesions
    resized = np.array(picture.resize((side, side), Pillow.Resampling.NEAREST))
    return torch.from_numpy(resized).to(mask.dtype)


def _resize_by_area(mask: torch.Tensor, side: int) -> torch.Tensor:
    marks = mask.cpu().numpy()
    ignored = marks == IGNORED
    lesion = (marks > 0) & ~ignored
    resized = _covered(lesion, side) >= 0.5
    for part in lesion_parts(lesion):
        share = _covered(part, side)
        if not resized[share > 0].any():
            resized.flat[share.argmax()] = True
    made = resized * np.uint8(LESION)
    made[~resized & (_covered(ignored, side) >= 0.5)] = IGNORED
    return torch.from_numpy(made).to(mask.dtype)


def _covered(lesion: NDArray[np.bool_], side: int) -> NDArray[np.float32]:
    """How much of each new pixel is lesion, in [0, 1]."""
    picture = Pillow.fromarray(lesion.astype(np.float32))
    return np.array(picture.resize((side, side), Pillow.Resampling.BOX))
