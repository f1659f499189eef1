"""What ``compare --explain`` found, as a part of the page: strips of pictures, embedding plots."""

import base64
import io
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from jinja2 import Environment, PackageLoader
from matplotlib import colormaps
from PIL import Image, ImageDraw
from plotly import graph_objects
from plotly.subplots import make_subplots
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import cdist

from anomalib_medclip.compare.store import Store
from anomalib_medclip.files import from_json
from anomalib_medclip.report.rows import Chart

BUDGET = 3_000_000
"""Characters of pictures that the section may add to the page."""

_SIDE = 120  # of a picture, in pixels; it is shown a little smaller
_COLOURS = colormaps["inferno"]
_TRUTH, _BOX = "#00e5ff", "#ffd400"
_CLASSES = ("normal", "abnormal")
_MARKS = (("#0072b2", "circle"), ("#d55e00", "diamond"))  # told apart without colours, too


class _Found(NamedTuple):
    """The explanation of a model on one test set, for one K: that of the first draw that has one.

    Attributes:
        heading: Model, set and K in words.
        draw: Draw and seed in words.
        part: ``explain`` of the record.
        images: ``images`` of the record's test: names, labels and scores.
        arrays: Those of the cell.
    """

    heading: str
    draw: str
    part: dict[str, Any]
    images: dict[str, list[Any]]
    arrays: dict[str, np.ndarray]


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


def section(store: Store, grid: Mapping[str, Any], names: bool) -> str:
    """Pictures of each model, set and K that was explained, as HTML below a heading of level 2.

    Each gets its share of ``BUDGET``; a sentence says how many images there are besides.

    Args:
        store: The comparison.
        grid: Its plan, as ``Store.grid`` gives it.
        names: Whether to say file names, which may name patients.

    Returns:
        A part of a page with its own style, which needs no other file; empty if no record has an
        explanation.
    """
    keys = list(_explained(store, grid))
    if not keys:
        return ""
    groups = []
    for found in _all_found(store, keys):
        count = len(found.part["image"])
        strips = [_strip(found, place, names) for place in range(count)]
        sizes = np.cumsum([strip.size for strip in strips])
        fitting = int(np.sum(sizes <= BUDGET // len(keys)))
        groups.append({"found": found, "strips": strips[:fitting], "left_out": count - fitting})
    templates = PackageLoader("anomalib_medclip", "report/templates")
    pages = Environment(loader=templates, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    ramp = _encoded(_heat(np.tile(np.arange(256, dtype=np.uint8), (12, 1))))
    return pages.get_template("explain.html").render(groups=groups, ramp=ramp)


def charts(store: Store, grid: Mapping[str, Any]) -> list[Chart]:
    """A chart for each model, set and K with embeddings: a panel for each kind of vectors.

    A point is an image, blue if normal; methods with a vector for what is normal and one for what
    is abnormal have two points an image. Places are those of ``compare``'s t-SNE.
    """
    found = _all_found(store, list(_explained(store, grid)))
    return [_chart(f"explain_{n}", one) for n, one in enumerate(found) if one.part["embeddings"]]


def _explained(store: Store, grid: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Key and number of the test, of the first explanation of each model, set and K."""
    seen = set()
    for cell in grid["cells"]:
        record = store.record(cell["key"])
        for number, test in enumerate((record or {}).get("tests", [])):
            what = (cell["model"], cell["normals"], cell["data"], test["data"], cell["k_shot"])
            if test.get("explain") and what not in seen:
                seen.add(what)
                yield cell["key"], number


def _all_found(store: Store, keys: list[tuple[str, int]]) -> Iterator[_Found]:
    for key, number in keys:
        record: dict[str, Any] = store.record(key) or {}
        cell, test = record["cell"], record["tests"][number]
        shots = "zero-shot" if cell["k_shot"] is None else f"K = {cell['k_shot']}"
        trained = "" if cell["data"] == test["data"] else f" (trained on {cell['data']})"
        normals = ", all normal images" if cell["normals"] == "train" else ""
        heading = f"{cell['model']} on {test['data']}{trained}, {shots}{normals}"
        draw = f"draw {cell['draw']}, seed {cell['seed']}"
        yield _Found(heading, draw, test["explain"], test["images"], store.arrays(key))


def _strip(found: _Found, place: int, names: bool) -> _Strip:
    """Pictures of one image: itself, each level's heat map, the final one, its nearest patches."""
    part, number = found.part, found.part["image"][place]
    label, score = _CLASSES[found.images["label"][number]], found.images["score"][number]
    heading = f"Image {number + 1}, {label}, score {score:.2f}"
    heading += f": {found.images['name'][number]}" if names else ""
    picture = found.arrays[part["pictures"]][place]
    mask = found.arrays[part["masks"]][place] > 0 if part["masks"] else np.zeros(0, bool)

    def heat(values: UInt8[np.ndarray, "height width"], words: str) -> _Picture:
        alt = f"Heat map of image {number + 1}, {words}: {_in_words(values / 255, mask)}"
        return _Picture(_encoded(_heat(values), mask), alt, words)

    outlined = "with the outline of its lesion" if mask.any() else "without an outline"
    alt = f"Image {number + 1}, {label}, {outlined}"
    final = heat(found.arrays[part["maps"]][place], "all levels")
    branches = [
        [
            heat(found.arrays[name][place, n], f"{branch}, level {level}")
            for n, level in enumerate(part["levels"])
        ]
        for branch, name in part["level_maps"].items()
    ]
    matches = part["nearest"][place] if part["nearest"] else []
    return _Strip(
        heading,
        maps=[[_Picture(_encoded(picture, mask), alt, "image"), final], *branches],
        pairs=[_pair(found, picture, match, names) for match in matches],
    )


def _in_words(values: Float[np.ndarray, "height width"], mask: Bool[np.ndarray, "*any"]) -> str:
    """What a heat map shows, for those who cannot see it."""
    if not mask.any():
        return f"mean {values.mean():.2f}, highest {values.max():.2f}"
    inside, outside = values[mask].mean(), values[~mask].mean() if not mask.all() else np.nan
    return f"mean {inside:.2f} inside the outline, {outside:.2f} outside"


def _pair(
    found: _Found, picture: UInt8[np.ndarray, "height width 3"], match: dict[str, Any], names: bool
) -> list[_Picture]:
    """The hottest patch of a level in its image, and the patch nearest to it in the support."""
    part, level = found.part, match["level"]
    support = found.arrays[part["support_pictures"]][match["picture"]]
    source = f"support image {match['support'] + 1}"
    source += f" ({part['support'][match['support']]})" if names else ""
    source += f", copy {match['copy']}" if match["copy"] else ""
    distance = f"distance {match['distance']:.3f}, mean of all patches {match['mean']:.3f}"
    query = _Picture(
        _encoded(picture, box=match["patch"], grid=part["grid"]),
        f"Level {level}: the patch with the largest distance is in {_place(match['patch'])}",
        f"level {level}: {distance}",
    )
    nearest = _Picture(
        _encoded(support, box=match["support_patch"], grid=part["grid"]),
        f"The nearest of all support patches is in {_place(match['support_patch'])} of {source}",
        source if match["support_patch"] else f"{source}, as a whole (its class token)",
    )
    return [query, nearest]


def _place(patch: list[int] | None) -> str:
    return f"row {patch[0] + 1}, column {patch[1] + 1}" if patch else "no place, the class token,"


def _heat(values: UInt8[np.ndarray, "height width"]) -> UInt8[np.ndarray, "height width 3"]:
    """Colours of a heat map; 0 and 255 are the ends of the scale for every map."""
    coloured: UInt8[np.ndarray, "height width 4"] = _COLOURS(values, bytes=True)
    return coloured[..., :3]


def _encoded(
    pixels: UInt8[np.ndarray, "height width 3"],
    mask: Bool[np.ndarray, "*any"] | None = None,
    box: list[int] | None = None,
    grid: int = 1,
) -> str:
    """A small picture as the address that holds it, with the outline of a mask or a patch's box."""
    size = (_SIDE, max(1, round(_SIDE * pixels.shape[0] / pixels.shape[1])))
    small = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    if mask is not None and mask.any():
        inside = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
        edge = Image.fromarray(inside & ~binary_erosion(inside))
        small.paste(_TRUTH, mask=edge)
    if box is not None:
        (row, column), (width, height) = box, (size[0] / grid, size[1] / grid)
        left, top = column * width, row * height
        corners = (left, top, left + width - 1, top + height - 1)
        ImageDraw.Draw(small).rectangle(corners, outline=_BOX, width=2)
    packed = io.BytesIO()
    small.save(packed, "WEBP", quality=85)
    return f"data:image/webp;base64,{base64.b64encode(packed.getvalue()).decode()}"


def _chart(name: str, found: _Found) -> Chart:
    """Panels of points, an image each or two, and in words how many lie beside their own class."""
    part = found.part
    label = np.array([found.images["label"][number] for number in part["embedded"]])
    places = {words: found.arrays[array] for words, array in part["embeddings"].items()}
    columns = min(2, len(places))
    figure = make_subplots(-(-len(places) // columns), columns, subplot_titles=list(places))
    for panel, points in enumerate(places.values()):
        row, column = divmod(panel, columns)
        for trace in _traces(points, label, part["embedded"]):
            known = {other.name for other in figure.data}
            trace.showlegend = trace.name not in known
            figure.add_trace(trace, row + 1, column + 1)
    figure.update_xaxes(showticklabels=False, zeroline=False)
    figure.update_yaxes(showticklabels=False, zeroline=False)
    figure.update_annotations(font_size=13)
    figure.update_layout(
        template=None,  # the page's own, light or dark
        height=120 + 320 * -(-len(places) // columns),
        legend={"orientation": "h", "y": -0.05},
    )
    return Chart(
        name=name,
        section="explain",
        title=f"Embeddings of {found.heading}",
        caption=f"t-SNE of {len(label)} test images ({found.draw}), with the same options in "
        "each panel. Points that lie close are alike; axes, and distances between groups, mean "
        "nothing.",
        alt=" ".join(_neighbours(words, points, label) for words, points in places.items()),
        figure=from_json(figure.to_json()),
    )


def _traces(
    points: Float[np.ndarray, "image vector 2"], label: np.ndarray, numbers: list[int]
) -> Iterator[graph_objects.Scatter]:
    """Points by class of the image and, where there are two, by what their vector stands for."""
    for vector in range(points.shape[1]):
        for of_class, (colour, symbol) in enumerate(_MARKS):
            chosen = np.flatnonzero(label == of_class)
            two = points.shape[1] > 1
            name = f"{_CLASSES[of_class]} image" + two * f", its {_CLASSES[vector]} vector"
            x, y = points[chosen, vector].round(3).T.tolist()
            yield graph_objects.Scatter(
                x=x,
                y=y,
                mode="markers",
                name=name,
                legendgroup=name,
                marker={"color": colour, "symbol": symbol + "-open" * (two and not vector)},
                text=[f"image {numbers[n] + 1}" for n in chosen],
                hovertemplate="%{text}",
            )


def _neighbours(words: str, points: Float[np.ndarray, "image vector 2"], label: np.ndarray) -> str:
    """How many images lie nearest to one of their own class, all vectors of an image counted."""
    own = []
    for vector in range(points.shape[1]):
        distance = cdist(points[:, vector], points[:, vector])
        np.fill_diagonal(distance, np.inf)
        own.append(label[distance.argmin(axis=1)] == label)
    counts = [
        f"{np.sum(np.array(own)[:, label == n])} of {len(own) * np.sum(label == n)} {word}"
        for n, word in enumerate(_CLASSES)
    ]
    return f"{words}: {' and '.join(counts)} points lie nearest to a point of their own class."
