"""Lesions somewhere in a picture, and masks of them by a palette."""

import numpy as np
from PIL import Image as Pillow

SIZE = (48, 64)


def ellipse(random, size=SIZE):
    """A lesion somewhere, of at least some pixels."""
    y, x = np.mgrid[: size[0], : size[1]]
    cy, cx = random.uniform(0.3, 0.7, 2) * size
    ry, rx = random.uniform(0.12, 0.25, 2) * min(size)
    return ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1


def by_palette(path, lesion, colours):
    picture = Pillow.fromarray(lesion.astype(np.uint8), mode="P")
    picture.putpalette(colours)
    picture.save(path)
    return path
