"""Rows of a table file, CSV or JSON lines, each with the place where it stands."""

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from anomalib_medclip.errors import DataRootError
from anomalib_medclip.files import MISSING, fault_of, from_json

_SPLITS = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation"),
    "test": ("test", "testing"),
    "support": ("support",),
}


class TableRow(NamedTuple):
    """One row of a table.

    Attributes:
        cells: What stands under each column, or key.
        place: File and line, for error messages.
    """

    cells: Mapping[str, str]
    place: str

    def cell(self, column: str) -> str | None:
        """The cell of a column, or a pattern of columns filled in; ``None`` where one lacks.

        >>> row = TableRow({"folder": "AMD", "name": "1"}, "table a.csv, line 2,")
        >>> row.cell("name"), row.cell("{folder}/{name}.jpg"), row.cell("eye")
        ('1', 'AMD/1.jpg', None)
        """
        try:
            return column.format_map(self.cells) if "{" in column else self.cells[column]
        except (LookupError, ValueError, AttributeError):
            return None


def read_rows(path: Path) -> list[TableRow]:
    """Read a CSV file with a header or, if its name ends so, JSON lines.

    Raises:
        DataRootError: The file cannot be read, is not UTF-8, has no rows, or a line is not JSON.
    """
    if fault_of(path) is MISSING:
        msg = f"no table {path}; correct --data.table"
        raise DataRootError(msg)
    is_json = path.suffix.lower() in (".json", ".jsonl")
    rows = list((_json_rows if is_json else _csv_rows)(read_utf8(path), f"table {path}"))
    if not rows:
        msg = f"table {path} has no rows; complete it"
        raise DataRootError(msg)
    for row in rows:
        if any("\0" in cell for cell in row.cells.values()):
            msg = f"{row.place} holds a NUL byte, which no path and no label has; write it again"
            raise DataRootError(msg)
    return rows


def _csv_rows(text: str, table: str) -> Iterator[TableRow]:
    reader = csv.DictReader(io.StringIO(text))
    try:
        for cells in reader:
            named = {name: (cell or "").strip() for name, cell in cells.items() if name is not None}
            yield TableRow(named, f"{table}, line {reader.line_num},")
    except csv.Error as error:
        msg = f"{table} cannot be read behind line {reader.line_num}: {error}; is a quote missing?"
        raise DataRootError(msg) from error


def _json_rows(text: str, table: str) -> Iterator[TableRow]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            place = f"{table}, line {number},"
            cells = _json_object(line, place)
            yield TableRow(
                {key: "" if v is None else str(v).strip() for key, v in cells.items()}, place
            )


def _json_object(line: str, place: str) -> dict[str, object]:
    try:
        cells = from_json(line)
    except ValueError as error:
        msg = f"{place} is not JSON: {error}; write one object a line, and null for what is unknown"
        raise DataRootError(msg) from error
    if not isinstance(cells, dict):
        msg = f"{place} is {line.strip()[:20]!r} and not an object; write one object a line"
        raise DataRootError(msg)
    return cells


def read_utf8(path: Path) -> str:
    """Text of a list file or table.

    Raises:
        DataRootError: It cannot be read, or is of another encoding, which would misread names.
    """
    if fault := fault_of(path):
        raise DataRootError(fault.about(path))
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        msg = f"{path} is not UTF-8 text: {error}; save it as UTF-8"
        raise DataRootError(msg) from error


def split_name(word: str, place: str) -> str:
    """The split that a word means: train, valid, test or support.

    Raises:
        DataRootError: None of them.
    """
    for split, words in _SPLITS.items():
        if word.lower() in words:
            return split
    msg = f"{place} has split {word!r}, which is none of {', '.join(_SPLITS)}; correct it"
    raise DataRootError(msg)
