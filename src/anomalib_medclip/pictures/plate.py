"""One image on a dark card: its panels side by side, a colour bar, and what is said of it."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from anomalib_medclip.pictures import panels
from anomalib_medclip.pictures.heat import OPACITY, HeatScale, table
from anomalib_medclip.pictures.lesions import verdicts
from anomalib_medclip.pictures.outlines import PREDICTION, TRUTH, Colour
from anomalib_medclip.pictures.view import View
from anomalib_medclip.pictures.words import BAD, GOOD, GROUND, INK, SOFT, fitted, font

Panel = Literal["image", "outlines", "heat"]

_EDGE, _LINE, _SAMPLE = 10, 17, 26  # pixels
_BAR = 12
_BAR_WITH_WORDS = 84
_NARROWEST = 330
"""Of a plate, so that its words have room beside a picture that has none."""


def draw_plate(
    view: View,
    scale: HeatScale | None = None,
    side: int = 256,
    shown: Sequence[Panel] = ("image", "outlines", "heat"),
    *,
    bar: bool = True,
) -> Image.Image:
    """Draw what there is: no panel of outlines without a mask, none of heat without a map.

    Args:
        view: The image, and what is said of it.
        scale: Of the heat, where it is shared with others; by default that of this map.
        side: Pixels of the longer side of a panel.
        shown: Which panels, in their order.
        bar: Whether a colour bar stands beside the heat.
    """
    kinds = [kind for kind in shown if _has(view, kind)] or ["image"]
    scale = scale or (HeatScale() if view.heat is None else HeatScale.of(view.heat, None))
    width, height = panels.size_of(view, side)
    bar = bar and "heat" in kinds
    inner = len(kinds) * (width + _EDGE) - _EDGE + bar * _BAR_WITH_WORDS
    lines = _lines(view)
    top = _EDGE + _LINE * len(lines) + 5
    stacked = "outlines" in kinds and width < _key_width(view)
    size = (max(inner, _NARROWEST) + 2 * _EDGE, top + height + 26 + 15 * stacked)
    card = Image.new("RGB", size, GROUND)
    pen = ImageDraw.Draw(card)
    for number, (words, colour) in enumerate(lines):
        of = font(13, bold=True) if number == 0 else font(12)
        at = (_EDGE, _EDGE + _LINE * number)
        pen.text(at, fitted(words, card.width - 2 * _EDGE, of), fill=colour, font=of)
    for number, kind in enumerate(kinds):
        left = _EDGE + number * (width + _EDGE)
        card.paste(Image.fromarray(_panel(view, kind, scale, width, height)), (left, top))
        _draw_key(pen, view, kind, left, top + height + 13, width)
    if bar:
        draw_bar(card, scale, inner + _EDGE - _BAR_WITH_WORDS + _EDGE, top, height)
    return card


def draw_bar(card: Image.Image, scale: HeatScale, left: int, top: int, height: int) -> None:
    """Draw the colours as they lie over grey, the ends in numbers, and a mark at the threshold."""
    colours = table()[np.linspace(255, 0, height).round().astype(int)].astype(np.float32)
    share = OPACITY / 255 * colours[:, 3:]
    mixed = (110 * (1 - share) + colours[:, :3] * share).round().astype(np.uint8)
    card.paste(Image.fromarray(np.repeat(mixed[:, None], _BAR, axis=1)), (left, top))
    pen, right = ImageDraw.Draw(card), left + _BAR
    small = font(10)
    pen.text((right + 5, top), f"{scale.high:.3g}", fill=SOFT, font=small, anchor="lt")
    pen.text((right + 5, top + height - 1), f"{scale.low:.3g}", fill=SOFT, font=small, anchor="ls")
    if scale.threshold is not None:
        y = top + bar_row(scale, height)
        pen.line((left - 2, y, right + 2, y), fill=INK, width=1)
        pen.text((right + 5, y - 5), f"{scale.threshold:.3g}", fill=INK, font=small, anchor="lm")
        pen.text((right + 5, y + 6), "threshold", fill=INK, font=small, anchor="lm")


def bar_row(scale: HeatScale, height: int) -> int:
    """The row of a bar that the threshold is in, from its top.

    >>> bar_row(HeatScale(0, 1, 0.75), 101)
    25
    """
    place = float(scale.place(np.array(scale.threshold, np.float64)))
    return round((1 - place) * (height - 1))


def _has(view: View, kind: Panel) -> bool:
    if kind == "outlines":
        return view.truth is not None or view.called is not None
    return kind == "image" or view.heat is not None


def _panel(view: View, kind: Panel, scale: HeatScale, width: int, height: int) -> panels.Pixels:
    if kind == "outlines":
        return panels.outlined(view, width, height)
    if kind == "heat":
        return panels.heated(view, scale, width, height)
    return panels.plain(view, width, height)


def _lines(view: View) -> list[tuple[str, tuple[int, int, int]]]:
    """The caption: name, decision, lesions."""
    said = {None: ("", SOFT), "right": (" ✓", GOOD)}
    sign, colour = said.get(view.verdict, (f" ✗ {view.verdict}", BAD))
    lines = [(view.name, INK), (view.words + sign, colour)]
    if view.truth is not None and view.called is not None:
        lines.append((verdicts(view.truth, view.called).words, SOFT))
    return [line for line in lines if line[0]]


def _draw_key(
    pen: ImageDraw.ImageDraw, view: View, kind: Panel, left: int, y: int, width: int
) -> None:
    """What a panel shows, below it; colours and lines of the outlines by a piece of each."""
    small = font(11)
    if kind != "outlines":
        words = "image" if kind == "image" else "how abnormal"
        pen.text((left, y), fitted(words, width, small), fill=SOFT, font=small, anchor="lm")
        return
    stacked = width < _key_width(view)
    for words, colour, dashes in _keys(view):
        for begin, end in dashes:
            pen.line((left + begin, y, left + end, y), fill=colour, width=2)
        pen.text((left + _SAMPLE, y), words, fill=SOFT, font=small, anchor="lm")
        if stacked:
            y += 15
        else:
            left += _SAMPLE + round(small.getlength(words)) + _EDGE


def _keys(view: View) -> list[tuple[str, Colour, tuple[tuple[int, int], ...]]]:
    """Words, colour and strokes of each outline that there is."""
    every = (
        (view.truth, "truth", TRUTH, ((0, 20),)),
        (view.called, "prediction", PREDICTION, ((0, 5), (8, 13), (16, 20))),
    )
    return [key for mask, *key in every if mask is not None]  # type: ignore[misc]


def _key_width(view: View) -> float:
    """Of the key in one line."""
    return sum(_SAMPLE + font(11).getlength(words) + _EDGE for words, *_ in _keys(view))
