"""One image as it is, with outlines, and under its map: each a panel of pixels."""

from math import floor, log10

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw

from anomalib_medclip.pictures.heat import HeatScale, laid_over
from anomalib_medclip.pictures.lesions import LesionVerdicts, verdicts
from anomalib_medclip.pictures.outlines import (
    PREDICTION,
    TRUTH,
    Colour,
    Line,
    draw_outline,
    resized_mask,
)
from anomalib_medclip.pictures.view import Extent, View
from anomalib_medclip.pictures.words import font, label

Pixels = UInt8[np.ndarray, "row column 3"]
Mask = Bool[np.ndarray, "row column"]

_NARROWEST = 0.2
"""Of the longer side: what is narrower is drawn this wide."""

_MOST_TAGS = 4
"""Of the missed lesions, and of the false alarms, the largest are named."""


def size_of(view: View, side: int) -> tuple[int, int]:
    """Width and height of the panels, in pixels: the longer one is ``side``.

    >>> size_of(View(np.zeros((50, 100, 3), np.uint8), ""), 256)
    (256, 128)
    """
    rows, columns = view.image.shape[:2]
    height, width = (view.extent or Extent(rows, columns))[:2]
    longer = max(height, width)
    return (
        round(side * max(_NARROWEST, width / longer)),
        round(side * max(_NARROWEST, height / longer)),
    )


def plain(view: View, width: int, height: int) -> Pixels:
    """The image, with a scale in millimetres and its sides, where they are known."""
    pixels = resized_image(view.image, width, height)
    if view.extent is None:
        return pixels
    picture = Image.fromarray(pixels)
    _draw_extent(ImageDraw.Draw(picture), view.extent, width, height)
    return np.asarray(picture)


def outlined(view: View, width: int, height: int) -> Pixels:
    """The image with truth and prediction; the thick lines are of what is missed, or found wrongly.

    Without a truth, the prediction is outlined alone, and called nothing.
    """
    pixels = resized_image(view.image, width, height)
    if view.truth is None or view.called is None:
        if view.called is not None:
            draw_outline(pixels, resized_mask(view.called, width, height), PREDICTION, "dashed")
        if view.truth is not None:
            draw_outline(pixels, resized_mask(view.truth, width, height), TRUTH, "solid")
        return pixels
    found = verdicts(view.truth, view.called)
    strokes: list[tuple[Mask, Colour, Line, int]] = [
        (found.hitting, PREDICTION, "dashed", 1),
        (found.alarms, PREDICTION, "dashed", 3),
        (found.hit, TRUTH, "solid", 1),
        (found.missed, TRUTH, "solid", 3),
    ]
    for mask, colour, line, thickness in strokes:
        draw_outline(pixels, resized_mask(mask, width, height), colour, line, thickness)
    return _named(pixels, found)


def heated(view: View, scale: HeatScale, width: int, height: int) -> Pixels:
    """The image under its map."""
    pixels = resized_image(view.image, width, height)
    if view.heat is None:
        return pixels
    heat = cv2.resize(view.heat, (width, height), interpolation=cv2.INTER_LINEAR)
    return laid_over(pixels, heat, scale)


def resized_image(image: Pixels, width: int, height: int) -> Pixels:
    """An image of another size, always a copy."""
    shrinks = width < image.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    found: Pixels = cv2.resize(image, (width, height), interpolation=how)
    return found


def _named(pixels: Pixels, found: LesionVerdicts) -> Pixels:
    """Name missed lesions and false alarms, the largest first, as far as there is room."""
    picture = Image.fromarray(pixels)
    pen, taken = ImageDraw.Draw(picture), list[tuple[float, float, float]]()
    for mask, words, colour in (
        (found.missed, "missed", TRUTH),
        (found.alarms, "false alarm", PREDICTION),
    ):
        wide = font(10).getlength(words)
        across, down = picture.width / mask.shape[1], picture.height / mask.shape[0]
        for x, top, bottom in _places(mask, across, down):
            left = min(max(2.0, x), picture.width - wide - 2)
            spots = [(left, top - 14), (left, bottom + 2)]
            free = [spot for spot in spots if _is_free(spot, wide, taken, picture.height)]
            if free:
                label(pen, free[0], words, colour, size=10)
                taken.append((*free[0], wide))
    return np.asarray(picture)


def _is_free(
    spot: tuple[float, float], wide: float, taken: list[tuple[float, float, float]], height: int
) -> bool:
    """Whether a tag has room within the picture, and beside the others."""
    x, y = spot
    apart = (y + 13 <= b or b + 13 <= y or x + wide + 3 <= a or a + w + 3 <= x for a, b, w in taken)
    return 0 <= y <= height - 13 and all(apart)


def _places(mask: Mask, across: float, down: float) -> list[tuple[float, float, float]]:
    """Left, top and bottom of the largest parts of a mask, in pixels of the panel."""
    _, _, boxes, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    largest = sorted(boxes[1:].tolist(), key=lambda box: -box[cv2.CC_STAT_AREA])[:_MOST_TAGS]
    return [(across * x, down * y, down * (y + tall)) for x, y, _, tall, _ in largest]


def _draw_extent(pen: ImageDraw.ImageDraw, extent: Extent, width: int, height: int) -> None:
    if extent.sides:
        left, right = extent.sides
        label(pen, (5, height / 2), left, size=12, anchor="lm")
        label(pen, (width - 5, height / 2), right, size=12, anchor="rm")
    if extent.in_mm:
        length = round_length(0.4 * extent.width)
        pixels, y = length / extent.width * width, height - 8
        pen.line((6, y, 6 + pixels, y), fill=(16, 18, 22), width=5)
        pen.line((7, y, 5 + pixels, y), fill=(255, 255, 255), width=3)
        label(pen, (7, y - 3), f"{length:g} mm", size=10, anchor="ls")


def round_length(most: float) -> float:
    """The longest of 1, 2 and 5 times a power of ten that is no longer than so much.

    >>> round_length(63.0), round_length(0.4)
    (50.0, 0.2)
    """
    power = 10.0 ** floor(log10(most))
    return float(next(step * power for step in (5, 2, 1) if step * power <= most * (1 + 1e-9)))
