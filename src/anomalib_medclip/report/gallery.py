"""The same images under every method, packed for the page: small, and each picture once.

Maps stay numbers, one byte a pixel; the page colours them, by one scale for all methods.
"""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from jaxtyping import UInt8
from PIL import Image
from scipy.stats import rankdata

from anomalib_medclip.compare.cell_record import Arrays, ComparisonGrid, PlannedCell
from anomalib_medclip.compare.dataset_result import DatasetResult, KeptPictures
from anomalib_medclip.compare.store import Store
from anomalib_medclip.report.rows import model_label

GALLERY_BUDGET = 10_000_000
"""Bytes of the page that pictures and maps may take."""

_QUALITY = 85
_KINDS = ("method", "baseline", "trivial")


class Gallery(NamedTuple):
    """Pictures of a comparison, as JSON holds them.

    Attributes:
        pictures: JPEG files in base64, each once.
        maps: JPEG files in base64: a grey value / 255 is the normalised heat, the threshold a half.
        outlines: Outlines of lesions as SVG paths, in pixels of the picture.
        groups: One entry per training set, test set and K, all of one draw: ``trained_on``,
            ``data``, ``k``, ``draw``, ``seed``, ``models``, ``images``, names of ``volumes``, and
            how many images are ``stored`` and were ``tested``. Of a model: its name ``model``, its
            ``label`` in the page, ``kind``, and whether its scores are ``judged`` by a threshold at
            a half.
            Of an image: its ``number`` in the test set, from 1, ``name``, ``label``, ``height``,
            ``width``, position of its ``volume``, ``slice``, positions of ``picture`` and
            ``outline``, and by model ``scores``, ``ranks`` (of the score among all tested images,
            in [0, 1]) and positions of ``maps`` and of ``called``, the outlines of what is called
            abnormal. ``None`` is what there is not. Without names, numbers stand for them.
    """

    pictures: Sequence[str] = ()
    maps: Sequence[str] = ()
    outlines: Sequence[str] = ()
    groups: Sequence[dict[str, Any]] = ()


class _View(NamedTuple):
    """What one record shows of one test set."""

    key: str
    cell: PlannedCell
    test: DatasetResult
    kept: KeptPictures
    k: int | None  # None where K changes nothing

    @property
    def draw(self) -> tuple[int, int]:
        return self.cell.draw, self.cell.seed

    @property
    def names(self) -> list[str]:
        return [self.test.images.name[position] for position in self.kept.image]


class _Images(NamedTuple):
    """Encoded images of a view; ``""`` for an outline or a map that there is not."""

    pictures: list[str]
    outlines: list[str]
    maps: list[str]
    called: list[str]
    sizes: list[tuple[int, int]]
    ranks: list[float]


_Encoded = Mapping[tuple[str, str], _Images]
"""By key of the record and name of the test set."""


def pack(
    grid: ComparisonGrid, store: Store, names: bool = False, budget: int = GALLERY_BUDGET
) -> Gallery:
    """Pictures and maps of all finished cells that have any, of the lowest draw of each K.

    Where they would take more than the budget, images are left out evenly, the same ones for
    every K and method; ``stored`` still counts them.

    Args:
        grid: What was planned.
        store: Where records and arrays lie.
        names: Whether names of files and volumes may be shown.
        budget: Bytes for pictures, outlines and maps together.
    """
    groups = list(_groups(_views(grid, store)))
    views = list({_id(view): view for of_group in groups for view in of_group}.values())
    encoded = {_id(view): _encode(view, store.arrays(view.key)) for view in views}
    kept = _kept(views, encoded, budget)
    packer = _Packer(encoded, kept, names)
    packed = [packer.group(of_group) for of_group in groups]
    return Gallery(packer.pictures.items, packer.maps.items, packer.outlines.items, packed)


def _views(grid: ComparisonGrid, store: Store) -> Iterable[_View]:
    for planned in grid.cells:
        record = store.record(planned.key)
        if record is None or record.facts is None:
            continue
        cell = record.cell
        k = None if cell.normals == "train" or record.facts.zero_shot else cell.k_shot
        for test in record.tests:
            if test.gallery:
                yield _View(planned.key, cell, test, test.gallery, k)


def _groups(views: Iterable[_View]) -> Iterable[list[_View]]:
    """Views that stand side by side: one draw for each K; what K does not change stands in each."""
    by_set: dict[tuple[str, str], list[_View]] = {}
    for view in views:
        by_set.setdefault((view.cell.data, view.test.data), []).append(view)
    for found in by_set.values():
        always = _of_lowest_draw(view for view in found if view.k is None)
        shots = sorted({view.k for view in found if view.k is not None})
        for k in shots:
            yield _in_order(_of_lowest_draw(view for view in found if view.k == k) + always)
        if not shots:
            yield _in_order(always)


def _of_lowest_draw(views: Iterable[_View]) -> list[_View]:
    found = list(views)
    lowest = min((view.draw for view in found), default=(0, 0))
    return [view for view in found if view.draw == lowest]


def _in_order(views: Sequence[_View]) -> list[_View]:
    """Methods, baselines, trivial ones; the views of a model together."""
    models = list(dict.fromkeys(view.cell.model for view in views))

    def order(view: _View) -> tuple[int, int]:
        return _KINDS.index(view.cell.kind), models.index(view.cell.model)

    return sorted(views, key=order)


def _model(view: _View) -> dict[str, Any]:
    name = model_label(view.cell.model, view.cell.normals)
    kind, judged = view.cell.kind, _is_judged(view)
    return {"model": view.cell.model, "label": name, "kind": kind, "judged": judged}


def _is_judged(view: _View) -> bool:
    """Whether a half is a threshold: not of a trivial score, and not of one beyond [0, 1]."""
    scores = view.test.images.score
    return view.cell.kind != "trivial" and min(scores) >= 0 and max(scores) <= 1


def _id(view: _View) -> tuple[str, str]:
    return view.key, view.test.data


def _encode(view: _View, arrays: Arrays) -> _Images:
    kept = view.kept
    pictures = arrays[kept.pictures]
    masks = arrays[kept.masks] if kept.masks else ()
    maps = arrays[kept.maps] if kept.maps else ()
    scores = np.asarray(view.test.images.score, dtype=float)
    ranks = (rankdata(scores) - 1) / max(1, len(scores) - 1)
    none = [""] * len(pictures)
    return _Images(
        pictures=[_jpeg(picture) for picture in pictures],
        outlines=[outline(mask) for mask in masks] or none,
        maps=[_jpeg(heat) for heat in maps] or none,
        # Without masks nobody knows a threshold of pixels.
        called=[outline(m) for m in maps if len(masks) and _is_judged(view)] or none,
        sizes=[picture.shape[:2] for picture in pictures],
        ranks=ranks[[*kept.image]].round(4).tolist(),
    )


def _jpeg(pixels: npt.NDArray[np.uint8]) -> str:
    packed = io.BytesIO()
    Image.fromarray(pixels).save(packed, "JPEG", quality=_QUALITY, optimize=True)
    return base64.b64encode(packed.getvalue()).decode("ascii")


def outline(mask: UInt8[np.ndarray, "height width"]) -> str:
    """The edge of a mask's lesions as an SVG path, in pixels; empty where it has none.

    >>> outline(np.pad(np.full((2, 3), 255, dtype=np.uint8), 1))
    'M1,1 1,3 4,3 4,1Z'
    """
    binary = (mask > 127).astype(np.uint8)
    # Contours run through the middles of pixels; of thrice the size, those round to the edges.
    larger = cv2.resize(binary, None, fx=3, fy=3, interpolation=cv2.INTER_NEAREST)
    found, _ = cv2.findContours(larger, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    edges = [np.rint(contour[:, 0] / 3).astype(int) for contour in found]
    return "".join("M" + " ".join(f"{x},{y}" for x, y in edge) + "Z" for edge in edges)


def _kept(views: Sequence[_View], encoded: _Encoded, budget: int) -> dict[str, set[str]]:
    """Names to show of each test set: all, or evenly spread ones that keep to the budget."""
    pieces: dict[str, dict[str, set[str]]] = {}
    for view in views:
        images = encoded[_id(view)]
        of_set = pieces.setdefault(view.test.data, {})
        drawn = images.pictures, images.outlines, images.maps, images.called
        for name, *several in zip(view.names, *drawn, strict=True):
            of_set.setdefault(name, set()).update(several)
    sizes = {
        data: {name: sum(map(len, several)) for name, several in of_set.items()}
        for data, of_set in pieces.items()
    }
    share = 1.0
    while True:
        kept = {data: _spread(list(of_set), share) for data, of_set in sizes.items()}
        if sum(sizes[data][name] for data, names in kept.items() for name in names) <= budget:
            return kept
        share *= 0.95


def _spread(names: Sequence[str], share: float) -> set[str]:
    places = np.linspace(0, len(names) - 1, int(len(names) * share))
    return {names[int(place)] for place in places}


class _Pool:
    """Texts, each kept once and known by its position."""

    def __init__(self) -> None:
        self._positions: dict[str, int] = {}

    def add(self, text: str) -> int | None:
        return self._positions.setdefault(text, len(self._positions)) if text else None

    @property
    def items(self) -> list[str]:
        return list(self._positions)


class _Packer:
    """Puts views side by side, image by image."""

    def __init__(self, encoded: _Encoded, kept: Mapping[str, set[str]], names: bool) -> None:
        self.encoded, self.kept, self.names = encoded, kept, names
        self.pictures, self.maps, self.outlines = _Pool(), _Pool(), _Pool()

    def group(self, views: Sequence[_View]) -> dict[str, Any]:
        """One entry of ``Gallery.groups``."""
        cell, test = views[0].cell, views[0].test
        rows: dict[str, dict[str, Any]] = {}
        for column, view in enumerate(views):
            for i, name in enumerate(view.names):
                if name in self.kept[test.data]:
                    row = rows.setdefault(name, self._row(view, i, len(views)))
                    self._fill(row, column, view, i)
        images = sorted(rows.values(), key=lambda row: row["number"])
        return {
            "data": test.data,
            "trained_on": cell.data,
            "k": views[0].k,
            "draw": cell.draw,
            "seed": cell.seed,
            "models": [_model(view) for view in views],
            "images": images,
            "volumes": self._number_volumes(images),
            "stored": len({name for view in views for name in view.names}),
            "tested": len(test.images.name),
        }

    def _row(self, view: _View, i: int, columns: int) -> dict[str, Any]:
        images, position = self.encoded[_id(view)], view.kept.image[i]
        height, width = images.sizes[i]
        return {
            "number": position + 1,
            "name": view.names[i] if self.names else f"image {position + 1}",
            "label": view.test.images.label[position],
            "height": height,
            "width": width,
            "volume": view.kept.volume[i] or None,
            "slice": view.kept.slice[i],
            "picture": self.pictures.add(images.pictures[i]),
            "outline": self.outlines.add(images.outlines[i]),
            "scores": [None] * columns,
            "ranks": [None] * columns,
            "maps": [None] * columns,
            "called": [None] * columns,
        }

    def _fill(self, row: dict[str, Any], column: int, view: _View, i: int) -> None:
        images = self.encoded[_id(view)]
        score = view.test.images.score[view.kept.image[i]]
        row["scores"][column] = round(score, 4)
        row["ranks"][column] = images.ranks[i]
        row["maps"][column] = self.maps.add(images.maps[i])
        row["called"][column] = self.outlines.add(images.called[i])

    def _number_volumes(self, images: Sequence[dict[str, Any]]) -> list[str]:
        """Names of the volumes, or what stands for them; images then hold positions among them."""
        names = list(dict.fromkeys(row["volume"] for row in images if row["volume"]))
        for row in images:
            row["volume"] = names.index(row["volume"]) if row["volume"] else None
        return names if self.names else [f"volume {i + 1}" for i in range(len(names))]
