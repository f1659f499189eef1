"""Records become a page and tables, in the folder they lie in."""

from pathlib import Path

from anomalib_medclip.compare.store import Store


def write_report(store: Store, *, names: bool = False) -> list[Path]:
    """Write ``report.html``, ``table.csv``, ``table.json`` and ``table.tex``."""
    return []
