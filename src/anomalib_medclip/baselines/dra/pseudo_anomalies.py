"""Pseudo anomalies: a piece of an image with other colours, pasted elsewhere in the image."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as V

AREA = (0.02, 0.15)
"""Part of the image that the piece takes."""

LONGEST = 1 / 0.3
"""Its sides are in a proportion of this at most."""

JITTER = 0.1
"""How far brightness, contrast, saturation and hue of the piece are changed."""


class Paste(NamedTuple):
    """What goes where, in pixels from the upper left corner.

    Attributes:
        width: Of the piece.
        height: Likewise.
        from_x: Where it is taken, from the left.
        from_y: From above.
        to_x: Where it goes.
        to_y: Likewise.
    """

    width: int
    height: int
    from_x: int
    from_y: int
    to_x: int
    to_y: int

    @classmethod
    def drawn(cls, side: int, random: np.random.Generator) -> "Paste":
        """One of an area, a proportion and two places by chance.

        Args:
            side: Of the square image.
            random: Where chance comes from.
        """
        area = random.uniform(*AREA) * side**2
        proportion = math.exp(random.uniform(-math.log(LONGEST), math.log(LONGEST)))
        sides = round(math.sqrt(area * proportion)), round(math.sqrt(area / proportion))
        width, height = (min(max(one, 1), side) for one in sides)
        places = [side - width, side - height, side - width, side - height]
        return cls(width, height, *(int(random.integers(last + 1)) for last in places))


def cut(image: Float[Tensor, "3 side side"], paste: Paste) -> Float[Tensor, "3 height width"]:
    """The piece that is taken."""
    rows, columns = paste.from_y + paste.height, paste.from_x + paste.width
    return image[:, paste.from_y : rows, paste.from_x : columns]


def pasted(
    image: Float[Tensor, "3 side side"], piece: Float[Tensor, "3 height width"], paste: Paste
) -> Float[Tensor, "3 side side"]:
    """The image with a piece in it, whose edges are hard."""
    found = image.clone()
    rows, columns = paste.to_y + paste.height, paste.to_x + paste.width
    found[:, paste.to_y : rows, paste.to_x : columns] = piece
    return found


def pseudo_anomaly(
    image: Float[Tensor, "3 side side"], random: np.random.Generator
) -> Float[Tensor, "3 side side"]:
    """An anomaly made of a normal image.

    Args:
        image: RGB in [0, 1].
        random: Where chance comes from.
    """
    paste = Paste.drawn(image.shape[-1], random)
    return pasted(image, jittered(cut(image, paste), random), paste)


def jittered(
    image: Float[Tensor, "3 height width"], random: np.random.Generator
) -> Float[Tensor, "3 height width"]:
    """Brightness, contrast, saturation and hue, changed by chance in an order by chance."""
    near_one = 1 - JITTER, 1 + JITTER
    changes = [
        (V.adjust_brightness, random.uniform(*near_one)),
        (V.adjust_contrast, random.uniform(*near_one)),
        (V.adjust_saturation, random.uniform(*near_one)),
        (V.adjust_hue, random.uniform(-JITTER, JITTER)),
    ]
    for number in random.permutation(len(changes)):
        change, amount = changes[number]
        image = change(image, amount)
    return image


def turned(
    image: Float[Tensor, "3 side side"], random: np.random.Generator
) -> Float[Tensor, "3 side side"]:
    """Rotated by any angle, with the nearest pixel, and black where nothing is."""
    angle = random.uniform(-180, 180)
    found: Tensor = V.rotate(image, angle, InterpolationMode.NEAREST)
    return found
