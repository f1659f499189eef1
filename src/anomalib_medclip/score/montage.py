"""The worst slices on one sheet, outlined and under their maps."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from anomalib_medclip.data.slice_places import place_of
from anomalib_medclip.data.slicing import Sliced
from anomalib_medclip.pictures.sheet import draw_sheet
from anomalib_medclip.pictures.view import View
from anomalib_medclip.provenance import NOTICE
from anomalib_medclip.score.batches import SliceScores


def draw_montage(path: Path, views: Sequence[View], *, has_threshold: bool = True) -> None:
    """Draw slices on one sheet, in one scale of colours.

    Args:
        path: The PNG file.
        views: At least one.
        has_threshold: Whether 0.5 is a threshold of pixels, and colours go from 0 to 1; without one
            they go over the range of these maps.
    """
    words = "pixels above 0.5 are taken for abnormal; the verdict is in scores.json"
    words = words if has_threshold else "no threshold of pixels is known"
    sheet = draw_sheet(views, f"{NOTICE}: {words}", 0.5 if has_threshold else None)
    sheet.save(path, compress_level=6)


def worst_slices(sliced: Sliced, found: SliceScores, count: int, known: bool) -> list[View]:
    """The slices with the highest scores, the highest first."""
    order = np.argsort(-found.scores.numpy(), kind="stable")[:count].tolist()
    views = []
    for index in order:
        number = found.numbers[index]
        place = place_of(sliced, number)
        pixels = sliced.images[number, ..., None].expand(-1, -1, 3)
        view = view_of(place.words, pixels, found, index, found.maps[number], known)
        views.append(replace(view, extent=place.extent))
    return views


def view_of(
    name: str, pixels: Tensor, found: SliceScores, index: int, heat: Tensor, known: bool
) -> View:
    """What is drawn of one image: pixels ``(row, column, 3)`` in [0, 1], and what was found."""
    label = None if found.labels is None else bool(found.labels[index])
    return View(
        image=(pixels.clamp(0, 1) * 255).round().byte().numpy(),
        name=name,
        heat=heat.numpy(),
        called=heat.numpy() > 0.5 if known else None,
        score=float(found.scores[index]),
        decision=label,
        threshold=None if label is None else 0.5,
    )
