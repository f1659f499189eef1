"""Many plates on one sheet, all maps by one scale of colours."""

from collections.abc import Sequence
from math import ceil

import numpy as np
from PIL import Image, ImageDraw

from anomalib_medclip.pictures.heat import HeatScale
from anomalib_medclip.pictures.plate import draw_bar, draw_plate
from anomalib_medclip.pictures.view import View
from anomalib_medclip.pictures.words import GROUND, INK, fitted, font

_EDGE, _HEAD, _BAR = 8, 34, 92  # pixels


def draw_sheet(
    views: Sequence[View],
    heading: str,
    threshold: float | None = None,
    side: int = 200,
    columns: int = 3,
) -> Image.Image:
    """Draw plates in rows, in their order, under a heading, with one colour bar for all.

    Args:
        views: What is shown; none gives a sheet of the heading alone.
        heading: What the sheet is of.
        threshold: Of pixels; where none is known, the colours go over the range of these maps.
        side: Pixels of the longer side of a panel.
        columns: Plates in a row.
    """
    heats = [view.heat for view in views if view.heat is not None]
    values = np.array([(heat.min(), heat.max()) for heat in heats])
    scale = HeatScale.of(values, threshold) if heats else HeatScale()
    plates = [
        draw_plate(view, scale, side, ("outlines" if _has_outlines(view) else "image", "heat"),
                   bar=False) for view in views
    ]  # fmt: skip
    columns = max(1, min(columns, len(plates)))
    wide = max((plate.width for plate in plates), default=400)
    tall = max((plate.height for plate in plates), default=0)
    rows = ceil(len(plates) / columns)
    size = (columns * wide + _EDGE * 2 + (_BAR if heats else 0), _HEAD + rows * tall + _EDGE)
    sheet = Image.new("RGB", size, GROUND)
    of = font(14, bold=True)
    words = fitted(heading, size[0] - 4 * _EDGE, of)
    ImageDraw.Draw(sheet).text((2 * _EDGE, _HEAD / 2 + 2), words, fill=INK, font=of, anchor="lm")
    for number, plate in enumerate(plates):
        row, column = divmod(number, columns)
        # Captions are of two lines or three; the pictures of a row stand on one line.
        sheet.paste(plate, (_EDGE + column * wide, _HEAD + (row + 1) * tall - plate.height))
    if heats:
        draw_bar(sheet, scale, size[0] - _BAR + 4, _HEAD + 50, min(tall - 80, 2 * side))
    return sheet


def _has_outlines(view: View) -> bool:
    return view.truth is not None or view.called is not None
