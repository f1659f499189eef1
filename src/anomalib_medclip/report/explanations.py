"""Which explanations of a comparison the page shows."""

from collections.abc import Iterator
from typing import NamedTuple

from anomalib_medclip.compare.cell_record import Arrays, ComparisonGrid, PlannedCell
from anomalib_medclip.compare.dataset_result import DatasetResult, ImageScores, KeptExplanation
from anomalib_medclip.compare.store import Store

CLASSES = ("normal", "abnormal")
"""Of images, by their label."""


class FoundExplanation(NamedTuple):
    """The explanation of a model on one test set, for one K: that of the first draw that has one.

    Attributes:
        heading: Model, set and K in words.
        draw: Draw and seed in words.
        part: What the record says of it.
        images: Names, labels and scores of the images tested.
        arrays: Those of the cell.
    """

    heading: str
    draw: str
    part: KeptExplanation
    images: ImageScores
    arrays: Arrays


def explained_tests(
    store: Store, grid: ComparisonGrid
) -> Iterator[tuple[PlannedCell, DatasetResult, KeptExplanation]]:
    """The first explanation of each model, set and K, with its cell and its test."""
    seen = set()
    for cell in grid.cells:
        record = store.record(cell.key)
        for test in () if record is None else record.tests:
            what = (cell.model, cell.normals, cell.data, test.data, cell.k_shot)
            if test.explain and what not in seen:
                seen.add(what)
                yield cell, test, test.explain


def explanations_in(store: Store, grid: ComparisonGrid) -> Iterator[FoundExplanation]:
    """The explanations of ``explained_tests``, whose arrays are read one after another."""
    for cell, test, explanation in explained_tests(store, grid):
        arrays = store.arrays(cell.key)
        yield FoundExplanation(*_headings(cell, test), explanation, test.images, arrays)


def _headings(cell: PlannedCell, test: DatasetResult) -> tuple[str, str]:
    """Model, set and K in words; draw and seed in words."""
    shots = "zero-shot" if cell.k_shot is None else f"K = {cell.k_shot}"
    trained = "" if cell.data == test.data else f" (trained on {cell.data})"
    normals = ", all normal images" if cell.normals == "train" else ""
    heading = f"{cell.model} on {test.data}{trained}, {shots}{normals}"
    return heading, f"draw {cell.draw}, seed {cell.seed}"
