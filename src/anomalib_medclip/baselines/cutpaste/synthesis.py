"""CutPaste's two kinds of pasted images: a rectangle, and a scar."""

import math
from collections.abc import Callable
from typing import NamedTuple

from numpy.random import Generator
from PIL import Image
from torchvision.transforms.v2 import functional as tv

AREA = 0.02, 0.15
"""Share of the image that a rectangle takes."""

LONGEST = 1 / 0.3
"""Of a rectangle, the longer side by the shorter at most."""

SCAR_WIDTH, SCAR_HEIGHT, SCAR_ANGLE = (2.0, 16.0), (10.0, 25.0), (-45.0, 45.0)
"""Sides of a scar in pixels, and how far it is turned in degrees."""

JITTER = 0.1
"""Most that brightness, contrast and saturation change by, and hue as a share of its circle."""

Change = Callable[[Image.Image], Image.Image]


class Place(NamedTuple):
    """Upper left pixel of what is cut out or pasted."""

    row: int
    column: int


def rectangle(
    image: Image.Image,
    size: tuple[int, int],
    source: Place,
    target: Place,
    change: Change = lambda part: part,
) -> Image.Image:
    """An image with a rectangle of it pasted elsewhere.

    Args:
        image: RGB.
        size: Width and height of the rectangle in pixels.
        source: Where it is cut out.
        target: Where it is pasted.
        change: What is done to it between.
    """
    width, height = size
    box = source.column, source.row, source.column + width, source.row + height
    pasted = image.copy()
    pasted.paste(change(image.crop(box)), (target.column, target.row))
    return pasted


def scar(
    image: Image.Image,
    size: tuple[float, float],
    source: Place,
    target: Place,
    angle: float,
    change: Change = lambda part: part,
) -> Image.Image:
    """An image with a narrow part of it turned and pasted elsewhere; arguments as of ``rectangle``.

    Args:
        image: RGB.
        size: Width and height in pixels; Pillow rounds them.
        source: Where it is cut out.
        target: Where the upper left of what is turned comes to lie.
        angle: Degrees, counter-clockwise.
        change: What is done to it before it is turned.
    """
    width, height = size
    # Pillow takes fractions of pixels here, and rounds them; its stubs know whole ones only.
    box: tuple[int, int, int, int] = (
        source.column, source.row, source.column + width, source.row + height,
    )  # type: ignore[assignment]  # fmt: skip
    part = change(image.crop(box)).convert("RGBA").rotate(angle, expand=True)
    pasted = image.copy()
    pasted.paste(part, (target.column, target.row), mask=part.getchannel("A"))
    return pasted


def random_rectangle(image: Image.Image, random: Generator) -> Image.Image:
    """An image with a rectangle of it, of other colours, pasted by chance."""
    area = image.width * image.height * random.uniform(*AREA)
    aspect = math.exp(random.uniform(-math.log(LONGEST), math.log(LONGEST)))
    size = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    size = min(size[0], image.width), min(size[1], image.height)
    source, target = _place(image, size, random), _place(image, size, random)
    return rectangle(image, size, source, target, lambda part: jittered(part, random))


def random_scar(image: Image.Image, random: Generator) -> Image.Image:
    """An image with a scar pasted by chance."""
    size = random.uniform(*SCAR_WIDTH), random.uniform(*SCAR_HEIGHT)
    source, target = _place(image, size, random), _place(image, size, random)
    angle = random.uniform(*SCAR_ANGLE)
    return scar(image, size, source, target, angle, lambda part: jittered(part, random))


def jittered(image: Image.Image, random: Generator) -> Image.Image:
    """An image whose brightness, contrast, saturation and hue are changed a little, in any order.

    Grey images have neither saturation nor hue.
    """
    changes = tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue
    for number in random.permutation(len(changes)):
        change, around = changes[number], 0.0 if changes[number] is tv.adjust_hue else 1.0
        image = change(image, around + random.uniform(-JITTER, JITTER))
    return image


def _place(image: Image.Image, size: tuple[float, float], random: Generator) -> Place:
    """Where a part of this width and height fits in."""
    width, height = size
    row, column = random.uniform(0, image.height - height), random.uniform(0, image.width - width)
    return Place(int(row), int(column))
