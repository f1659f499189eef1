"""Words in pictures: one typeface, which has the signs of most alphabets, cut to fit."""

from functools import cache
from pathlib import Path

from PIL import ImageDraw, ImageFont

INK = (232, 235, 238)
SOFT = (163, 172, 182)
GOOD = (124, 201, 162)
BAD = (240, 147, 127)
GROUND = (21, 24, 28)
"""Of the picture: dark, as those who read images have it, and a card of its own on any page."""

Rgb = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@cache
def font(size: int = 12, *, bold: bool = False) -> Font:
    """Matplotlib's DejaVu Sans, in pixels; Pillow's own where that cannot be drawn."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name
    return ImageFont.truetype(str(path), size)


def fitted(words: str, width: float, of: Font) -> str:
    """Words that are no wider than so many pixels, the middle left out of longer ones.

    >>> fitted("patient_0123456789_slice_7.png", 90, font(12))
    'patien…7.png'
    """
    if of.getlength(words) <= width:
        return words
    kept = len(words) - 1
    while kept > 0:
        head = (kept + 1) // 2
        short = f"{words[:head]}…{words[len(words) - (kept - head) :]}"
        if of.getlength(short) <= width:
            return short
        kept -= 1
    return "…"


def label(
    pen: ImageDraw.ImageDraw,
    at: tuple[float, float],
    words: str,
    colour: Rgb = INK,
    size: int = 11,
    anchor: str = "la",
) -> None:
    """Words on an image, with a dark edge so that they are read on any."""
    pen.text(at, words, fill=colour, font=font(size), anchor=anchor, stroke_width=2,
             stroke_fill=GROUND)  # fmt: skip
