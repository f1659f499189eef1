"""The worst slices on one sheet: image, and map laid over it, in one scale of colours."""

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomalib_medclip.provenance import NOTICE

_COLOURS = "inferno"
_PAIRS = 3  # in a row


class Panel(NamedTuple):
    """One picture of the sheet.

    Attributes:
        image: Values in [0, 1], ``(row, column)``, or ``(row, column, 3)`` in colour.
        heat: How abnormal each pixel is, ``(row, column)``; in [0, 1] if a threshold is known.
        words: What stands above it.
    """

    image: NDArray[np.float32]
    heat: NDArray[np.float32]
    words: str


def draw_montage(
    path: Path, panels: Sequence[Panel], aspect: float = 1.0, *, has_threshold: bool = True
) -> None:
    """Draw panels, each as image and as image with map, and a bar of the colours.

    Args:
        path: The PNG file.
        panels: At least one.
        aspect: Height of a pixel, where its width is 1.
        has_threshold: Whether 0.5 is a threshold, and colours go from 0 to 1; without one they go
            over the range of these maps.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    heats = [panel.heat for panel in panels]
    lowest, highest = (0.0, 1.0) if has_threshold else (float(np.min(heats)), float(np.max(heats)))
    words = "pixels above 0.5 are taken for abnormal; the verdict is in scores.json"
    words = words if has_threshold else "no threshold of pixels is known"
    columns = min(_PAIRS, len(panels))
    rows = ceil(len(panels) / columns)
    tall = np.clip(panels[0].heat.shape[0] / panels[0].heat.shape[1] * aspect, 0.3, 3)
    # A figure of its own, without pyplot, which keeps figures in memory and may want a screen.
    figure = Figure(figsize=(4 * columns + 1, (2 * tall + 0.35) * rows + 0.6), dpi=110)
    grid: Any = figure.subplots(rows, 2 * columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        plain, laid_over = grid[row, 2 * column : 2 * column + 2]
        for axes in (plain, laid_over):
            axes.imshow(panel.image, cmap="gray", vmin=0, vmax=1, aspect=aspect)
        laid_over.imshow(
            panel.heat, cmap=_COLOURS, vmin=lowest, vmax=highest, aspect=aspect, alpha=0.5
        )
        plain.set_title(panel.words, fontsize=9, loc="left")
    right = 1 - 0.8 / figure.get_figwidth()
    figure.subplots_adjust(0.01, 0.01, right, 1 - 0.7 / figure.get_figheight(), 0.03, 0.15)
    scale = ScalarMappable(cmap=_COLOURS)
    scale.set_clim(lowest, highest)
    bar = figure.add_axes((right + 0.2 / figure.get_figwidth(), 0.05, 0.015, 0.85))
    figure.colorbar(scale, cax=bar)
    figure.suptitle(f"{NOTICE}: {words}", fontsize=10)
    figure.savefig(path)
    figure.clear()  # it refers to itself, and would wait for the garbage collector with its arrays
