"""Records become a page and tables, in the folder they lie in."""

from pathlib import Path

from anomalib_medclip.compare.store import Store
from anomalib_medclip.files import write_whole
from anomalib_medclip.report import explain, gallery
from anomalib_medclip.report.charts import charts
from anomalib_medclip.report.page import render
from anomalib_medclip.report.summary import summarise
from anomalib_medclip.report.tables import write_tables


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
    grid = store.grid()
    found = (store.record(cell["key"]) for cell in grid["cells"])
    records = [record for record in found if record is not None]
    rows = summarise(grid, records)
    page = store.folder / "report.html"
    html = render(
        grid,
        store.config(),
        records,
        rows,
        [*charts(grid, rows, records), *explain.charts(store, grid)],
        gallery.pack(grid, store, names=names),
        explain.section(store, grid, names),
        names,
    )
    write_whole(page, html)
    return [page, *write_tables(store.folder, grid, rows, names)]
