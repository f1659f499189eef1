"""What ``compare --explain`` found, as a part of the page: strips of pictures."""

import base64
import io
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from jinja2 import Environment, PackageLoader
from PIL import Image, ImageDraw
from scipy.ndimage import binary_erosion

from anomalib_medclip.compare.cell_record import ComparisonGrid
from anomalib_medclip.compare.dataset_result import (
    KeptExplanation,
    NearestPatch,
)
from anomalib_medclip.compare.store import Store
from anomalib_medclip.pictures.heat import table
from anomalib_medclip.pictures.outlines import TRUTH
from anomalib_medclip.report.explanations import (
    CLASSES,
    FoundExplanation,
    explained_tests,
    explanations_in,
)

EXPLANATION_BUDGET = 3_000_000
"""Characters of pictures that the section may add to the page."""

_SIDE = 120  # of a picture, in pixels; it is shown a little smaller
_BOX = "#ffd400"


class _Picture(NamedTuple):
    """A picture of the page: address that holds it, words for it, and what stands below."""

    source: str
    alt: str
    caption: str


class _Strip(NamedTuple):
    """All pictures of one image, those together that belong together.

    Attributes:
        heading: Which image it is.
        maps: The image and its final map, then the maps of each branch.
        pairs: Of each level, the hottest patch and the support patch nearest to it.
    """

    heading: str
    maps: list[list[_Picture]]
    pairs: list[list[_Picture]]

    @property
    def size(self) -> int:
        """Characters of its pictures."""
        return sum(len(one.source) for part in (*self.maps, *self.pairs) for one in part)


def section(store: Store, grid: ComparisonGrid, names: bool) -> str:
    """Pictures of each model, set and K that was explained, as HTML below a heading of level 2.

    Each gets its share of ``EXPLANATION_BUDGET``; a sentence says how many images there are
    besides.

    Args:
        store: The comparison.
        grid: Its plan.
        names: Whether to say file names, which may name patients.

    Returns:
        A part of a page with its own style, which needs no other file; empty if no record has an
        explanation.
    """
    explained = len([*explained_tests(store, grid)])
    if not explained:
        return ""
    groups = []
    for found in explanations_in(store, grid):
        count = len(found.part.image)
        strips = [_strip(found, place, names) for place in range(count)]
        sizes = np.cumsum([strip.size for strip in strips])
        fitting = int(np.sum(sizes <= EXPLANATION_BUDGET // explained))
        groups.append({"found": found, "strips": strips[:fitting], "left_out": count - fitting})
    templates = PackageLoader("anomalib_medclip", "report/templates")
    pages = Environment(loader=templates, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    ramp = _encoded(_heat(np.tile(np.arange(256, dtype=np.uint8), (12, 1))))
    return pages.get_template("explain.html").render(groups=groups, ramp=ramp)


def _strip(found: FoundExplanation, place: int, names: bool) -> _Strip:
    """Pictures of one image: itself, each level's heat map, the final one, its nearest patches."""
    part, number = found.part, found.part.image[place]
    label, score = CLASSES[found.images.label[number]], found.images.score[number]
    heading = f"Image {number + 1}, {label}, score {score:.2f}"
    heading += f": {found.images.name[number]}" if names else ""
    picture = found.arrays[part.pictures][place]
    mask = found.arrays[part.masks][place] > 0 if part.masks else np.zeros(0, bool)

    def heat(values: UInt8[np.ndarray, "height width"], words: str) -> _Picture:
        alt = f"Heat map of image {number + 1}, {words}: {_in_words(values / 255, mask)}"
        return _Picture(_encoded(_heat(values), mask), alt, words)

    outlined = "with the outline of its lesion" if mask.any() else "without an outline"
    alt = f"Image {number + 1}, {label}, {outlined}"
    final = heat(found.arrays[part.maps][place], "all levels")
    branches = [
        [
            heat(found.arrays[name][place, n], f"{branch}, level {level}")
            for n, level in enumerate(part.levels)
        ]
        for branch, name in part.level_maps.items()
    ]
    matches = part.nearest[place] if part.nearest else ()
    support = found.arrays[part.support_pictures] if part.support_pictures else ()
    return _Strip(
        heading,
        maps=[[_Picture(_encoded(picture, mask), alt, "image"), final], *branches],
        pairs=[_pair(part, match, picture, support[match.picture], names) for match in matches],
    )


def _in_words(values: Float[np.ndarray, "height width"], mask: Bool[np.ndarray, "*any"]) -> str:
    """What a heat map shows, for those who cannot see it."""
    if not mask.any():
        return f"mean {values.mean():.2f}, highest {values.max():.2f}"
    inside, outside = values[mask].mean(), values[~mask].mean() if not mask.all() else np.nan
    return f"mean {inside:.2f} inside the outline, {outside:.2f} outside"


def _pair(
    part: KeptExplanation,
    match: NearestPatch,
    picture: UInt8[np.ndarray, "height width 3"],
    support: UInt8[np.ndarray, "height width 3"],
    names: bool,
) -> list[_Picture]:
    """The hottest patch of a level in its image, and the patch nearest to it in the support."""
    source = f"support image {match.support + 1}"
    source += f" ({part.support[match.support]})" if names else ""
    source += f", copy {match.copy}" if match.copy else ""
    distance = f"distance {match.distance:.3f}, mean of all patches {match.mean:.3f}"
    query = _Picture(
        _encoded(picture, box=match.patch, grid=part.grid),
        f"Level {match.level}: the patch with the largest distance is in {_place(match.patch)}",
        f"level {match.level}: {distance}",
    )
    nearest = _Picture(
        _encoded(support, box=match.support_patch, grid=part.grid),
        f"The nearest of all support patches is in {_place(match.support_patch)} of {source}",
        source if match.support_patch else f"{source}, as a whole (its class token)",
    )
    return [query, nearest]


def _place(patch: tuple[int, int] | None) -> str:
    return f"row {patch[0] + 1}, column {patch[1] + 1}" if patch else "no place, the class token,"


def _heat(values: UInt8[np.ndarray, "height width"]) -> UInt8[np.ndarray, "height width 3"]:
    """Colours of a heat map; 0 and 255 are the ends of the scale for every map."""
    return table()[values, :3]


def _encoded(
    pixels: UInt8[np.ndarray, "height width 3"],
    mask: Bool[np.ndarray, "*any"] | None = None,
    box: tuple[int, int] | None = None,
    grid: int = 1,
) -> str:
    """A small picture as the address that holds it, with the outline of a mask or a patch's box."""
    size = (_SIDE, max(1, round(_SIDE * pixels.shape[0] / pixels.shape[1])))
    small = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    if mask is not None and mask.any():
        inside = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
        edge = Image.fromarray(inside & ~binary_erosion(inside))
        small.paste(TRUTH, mask=edge)
    if box is not None:
        (row, column), (width, height) = box, (size[0] / grid, size[1] / grid)
        left, top = column * width, row * height
        corners = (left, top, left + width - 1, top + height - 1)
        ImageDraw.Draw(small).rectangle(corners, outline=_BOX, width=2)
    packed = io.BytesIO()
    small.save(packed, "WEBP", quality=85)
    return f"data:image/webp;base64,{base64.b64encode(packed.getvalue()).decode()}"
