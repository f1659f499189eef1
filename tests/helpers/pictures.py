"""Pictures of noise that the imaging tests share."""

import numpy as np
import torch
from PIL import Image as Pillow


def noise(*shape, top=255, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, top, shape, dtype=dtype, endpoint=True)


def save(path, pixels, mode=None, **options):
    """Write with Pillow; ``mode`` converts first."""
    picture = Pillow.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(path, **options)
    return path


def channels_first(pixels):
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
