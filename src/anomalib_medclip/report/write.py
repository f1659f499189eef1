"""Records become a page and tables, in the folder they lie in."""

from pathlib import Path

from anomalib_medclip.compare.store import Record, Store
from anomalib_medclip.files import write_whole
from anomalib_medclip.report import explain, gallery
from anomalib_medclip.report.charts import charts
from anomalib_medclip.report.gallery import Gallery
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
    found = (store.record(cell["key"]) for cell in grid["cells"])
    records = [record for record in found if record is not None]
    rows = summarise(grid, records)
    every = [*charts(rows, records), *explain.charts(store, grid)]
    explained = explain.section(store, grid, names)

    def page(pictures: Gallery) -> str:
        return render(grid, config, records, rows, every, pictures, explained, names)

    room = _LIMIT - len(page(Gallery()).encode())
    pictures = gallery.pack(grid, store, names=names, budget=max(0, min(gallery.BUDGET, room)))
    path = store.folder / "report.html"
    write_whole(path, page(pictures))
    return [path, *write_tables(store.folder, grid, rows, names)]


class _ReadOnce(Store):
    """A store that reads each record once, and holds once what many have in common.

    A grid of thousands of cells has as many lists of the same thousands of images.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._read: dict[str, Record | None] = {}
        self._lists: dict[tuple[object, ...], list[object]] = {}

    def record(self, key: str) -> Record | None:
        """The record of a cell, if it was run."""
        if key not in self._read:
            self._read[key] = found = super().record(key)
            for test in (found or {}).get("tests", []):
                for part in ("name", "patient", "label"):
                    whole = test["images"][part]
                    test["images"][part] = self._lists.setdefault(tuple(whole), whole)
        return self._read[key]
