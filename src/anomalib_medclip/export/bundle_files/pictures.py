"""How pictures come to the network, and how its maps are kept."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps


def as_trained(image: ImageFile.ImageFile, side: int, resample: str) -> Image.Image:
    """A picture of 8 bits as in training: the way up that viewers show it, in RGB, a square.

    Args:
        image: As Pillow has opened it.
        side: Side of the square that it becomes.
        resample: Name of Pillow's filter.

    Raises:
        ValueError: It is neither grey nor RGB, or has more than 8 bits.
    """
    is_deep = any(";16" in str(tile[3]) for tile in image.tile)
    if image.mode not in ("L", "RGB") or is_deep:
        kind = f"{image.mode}, 16 bits" if is_deep else image.mode
        name = str(image.filename)
        msg = f"{name} is of the kind {kind}; save it as grey or RGB of 8 bits"
        raise ValueError(msg)
    upright = ImageOps.exif_transpose(image).convert("RGB")
    return upright.resize((side, side), Image.Resampling[resample.upper()])


def save_map(heat: NDArray[np.float32], file: str) -> None:
    """Write a map ``(side, side)`` as TIFF in float32, with the folders that it lies in."""
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(heat).save(file)
