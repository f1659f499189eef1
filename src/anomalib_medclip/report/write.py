"""Records become a page and tables, in the folder they lie in."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from anomalib_medclip.compare.cell_record import CellRecord
from anomalib_medclip.compare.dataset_result import DatasetResult
from anomalib_medclip.compare.store import Store
from anomalib_medclip.files import write_whole
from anomalib_medclip.report.charts import charts_of
from anomalib_medclip.report.embedding_charts import embedding_charts
from anomalib_medclip.report.explain import section
from anomalib_medclip.report.gallery import GALLERY_BUDGET, Gallery, pack
from anomalib_medclip.report.page import render
from anomalib_medclip.report.summary import summarise
from anomalib_medclip.report.table_files import write_tables

_LIMIT = 18_000_000
"""Bytes of the page with its pictures; 2 MB are left for what is said of them."""


def write_report(store: Store, *, names: bool = False) -> list[Path]:
    """Write ``report.html``, ``table.csv``, ``table.json`` and ``table.tex``.

    Args:
        store: Records, of which some cells may have none yet.
        names: Whether the page may name files; see ``page.render``.

    Returns:
        The files, the page first.

    Raises:
        ResultsError: The folder holds no comparison.
    """
    store = _ReadOnce(store.folder)
    grid, config = store.grid(), store.config()
    records = store.records(grid)
    rows = summarise(grid, records)
    every = [*charts_of(rows, records), *embedding_charts(store, grid)]
    explained = section(store, grid, names)

    def page(pictures: Gallery) -> str:
        return render(grid, config, records, rows, every, pictures, explained, names)

    room = _LIMIT - len(page(Gallery()).encode())
    budget = max(0, min(GALLERY_BUDGET, room))
    pictures = pack(grid, store, names=names, budget=budget)
    path = store.folder / "report.html"
    write_whole(path, page(pictures))
    return [path, *write_tables(store.folder, grid, rows, names)]


class _ReadOnce(Store):
    """A store that reads each record once, and holds once what many have in common.

    A grid of thousands of cells has as many lists of the same thousands of images.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._read: dict[str, CellRecord | None] = {}
        self._lists: dict[tuple[Any, ...], tuple[Any, ...]] = {}

    def record(self, key: str) -> CellRecord | None:
        """The record of a cell, if it was run."""
        if key not in self._read:
            found = super().record(key)
            self._read[key] = found and replace(found, tests=tuple(map(self._shared, found.tests)))
        return self._read[key]

    def _shared(self, test: DatasetResult) -> DatasetResult:
        parts = test.images.name, test.images.patient, test.images.label
        name, patient, label = (self._lists.setdefault(part, part) for part in parts)
        images = replace(test.images, name=name, patient=patient, label=label)
        return replace(test, images=images)
