"""Rows of a table file, CSV or JSON, each with the place where it stands."""

import csv
import io
import logging
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from anomalib_medclip.errors import DataRootError
from anomalib_medclip.files import MISSING, fault_of, from_json
from anomalib_medclip.readers.file_kind import kind_by
from anomalib_medclip.readers.picture import IMAGE_SUFFIXES
from anomalib_medclip.readers.unpacked import Unpacked

logger = logging.getLogger(__name__)

_SPLITS = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation"),
    "test": ("test", "testing"),
    "support": ("support",),
}
_SEPARATORS = ",;\t|"
_BLANKS = " \t\r\n\N{NO-BREAK SPACE}\N{ZERO WIDTH SPACE}\N{ZERO WIDTH NO-BREAK SPACE}"
_LONGEST = 2**28  # bytes
_ROWS = '[{"image": "a.png", "label": 1}, ...]'
_WORKBOOKS = (b"PK\3\4", b"\xd0\xcf\x11\xe0")
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
"""How files begin, by which Excel's workbooks and its "Unicode text" are known."""


class TableRow(NamedTuple):
    """One row of a table.

    Attributes:
        cells: What stands under each column, or key.
        place: File and line, for error messages.
    """

    cells: Mapping[str, str]
    place: str

    def cell(self, column: str, whole: bool = False) -> str | None:
        """The cell of a column, or a pattern of columns filled in; ``None`` where one lacks.

        Letters of a column's name may be in another case, if only one column's are.

        Args:
            column: The column, or the pattern.
            whole: Whether numbers of a pattern lose the zeros of their fraction, as ids get them
                where one is missing.

        Example:
            >>> row = TableRow({"folder": "AMD", "Name": "1.0"}, "table a.csv, line 2,")
            >>> row.cell("name"), row.cell("{folder}/{Name}.jpg", whole=True), row.cell("eye")
            ('1.0', 'AMD/1.jpg', None)
        """
        cells = _InAnyCase(self.cells)
        if whole and "{" in column:
            cells = _InAnyCase({n: re.sub(r"^(\d+)\.0+$", r"\1", c) for n, c in cells.items()})
        try:
            return column.format_map(cells) if "{" in column else cells[column]
        except (LookupError, ValueError, AttributeError):
            return None

    def lacks(self, column: str, remedy: str) -> DataRootError:
        """The error that says that there is no such column, and what there is.

        Args:
            column: The column, or a pattern of columns.
            remedy: What to do where nothing better is known.
        """
        there = {name.lower(): name for name in self.cells}
        near = get_close_matches(column.strip("{}").lower(), there, n=1)
        if any(Path(name).suffix in IMAGE_SUFFIXES for name in there):
            remedy = "write a line with the names of the columns above the first"
        elif len(there) == 1 and re.search(r"\W", "".join(there)):
            remedy = (
                "name the columns in the first line, parted by commas, semicolons, tabs or bars"
            )
        elif near:
            remedy = f"{remedy}, such as {there[near[0]]!r}"
        msg = f"{self.place} has no column {column!r} but {', '.join(self.cells)}; {remedy}"
        return DataRootError(msg)


class _InAnyCase(dict[str, str]):
    """Cells by column; letters of the name may be in another case, if only one column's are."""

    def __missing__(self, column: str) -> str:
        like = [name for name in self if name.lower() == column.lower()]
        if len(like) != 1:
            raise KeyError(column)
        return self[like[0]]


def read_rows(path: Path) -> list[TableRow]:
    """Read a CSV file with a header, or JSON: a list, or an object a line.

    Cells of a CSV file are separated by commas, semicolons, tabs or bars: by what gives most rows
    as many cells as the header has.

    Raises:
        DataRootError: The file cannot be read, is no text, has no rows, a line is not JSON, or a
            row has more cells than the header.
    """
    if fault_of(path) is MISSING:
        msg = f"no table {path}; correct --data.table"
        raise DataRootError(msg)
    text = read_text(path)
    is_json = path.suffix.lower() in (".json", ".jsonl") or text.lstrip().startswith(("{", "["))
    rows = list((_json_rows if is_json else _csv_rows)(text, f"table {path}"))
    if not rows:
        msg = f"table {path} has no rows; complete it"
        raise DataRootError(msg)
    for row in rows:
        if any("\0" in cell for cell in row.cells.values()):
            msg = f"{row.place} holds a NUL byte, which no path and no label has; save it as UTF-8"
            raise DataRootError(msg)
    return rows


def _csv_rows(text: str, table: str) -> Iterator[TableRow]:
    first, _, rest = text.partition("\n")
    said = first.strip('"')
    told = said[4:5] if said.lower().startswith("sep=") else ""  # as Excel writes and reads it
    text = rest if told else text
    separator = told or max(_SEPARATORS, key=lambda one: _fit(text, one))
    reader = _reader(text, separator)
    try:
        header = [name.strip(_BLANKS) for name in next((row for row in reader if any(row)), [])]
        _check_header(header, table)
        for row in reader:
            place = f"{table}, line {reader.line_num + bool(told)},"
            cells = [cell.strip(_BLANKS) for cell in row]
            if any(cells[len(header) :]):
                msg = (
                    f"{place} has {len(cells)} cells, and the header names {len(header)} columns; "
                    f"put a cell that holds {separator!r} in quotes"
                )
                raise DataRootError(msg)
            if any(cells):
                full = cells + [""] * (len(header) - len(cells))
                yield TableRow(dict(zip(header, full, strict=False)), place)
    except csv.Error as error:
        msg = f"{table} cannot be read behind line {reader.line_num}: {error}; is a quote missing?"
        raise DataRootError(msg) from error


def _reader(text: str, separator: str) -> Any:  # noqa: ANN401 - csv keeps the type to itself
    return csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True)


def _fit(text: str, separator: str) -> tuple[bool, int, int]:
    """How well a separator cuts the first rows: into columns at all, evenly, and into many."""
    try:
        rows = [len(row) for row in islice(_reader(text, separator), 20) if any(row)]
    except csv.Error:
        return False, 0, 0
    columns = rows[0] if rows else 0
    return columns > 1, rows.count(columns), columns


def _check_header(names: Sequence[str], table: str) -> None:
    for name in names:
        if name and names.count(name) > 1:
            msg = f"{table} names the column {name!r} twice; give each column a name of its own"
            raise DataRootError(msg)


def _json_rows(text: str, table: str) -> Iterator[TableRow]:
    if text.lstrip().startswith("["):
        whole = _json(text, table, "write a list of objects, and null for what is unknown")
        numbered = [(f"{table}, object {number},", one) for number, one in enumerate(whole, 1)]
    else:
        lines = [(f"{table}, line {n},", line) for n, line in enumerate(text.splitlines(), 1)]
        remedy = "write one object a line, and null for what is unknown"
        numbered = [(place, _json(line, place, remedy)) for place, line in lines if line.strip()]
    for place, cells in numbered:
        if not isinstance(cells, dict):
            msg = f"{place} is {str(cells)[:20]!r} and not an object; write one object a line"
            raise DataRootError(msg)
        if cells and all(isinstance(value, list | dict) for value in cells.values()):
            msg = f"{place} holds lists and no values; write one object a row, as {_ROWS}"
            raise DataRootError(msg)
        if any(Path(key).suffix.lower() in IMAGE_SUFFIXES for key in cells):
            msg = f"{place} has files as keys; write a list of rows, as {_ROWS}"
            raise DataRootError(msg)
        named = {key: "" if v is None else str(v).strip(_BLANKS) for key, v in cells.items()}
        yield TableRow(named, place)


def _json(text: str, place: str, remedy: str) -> Any:  # noqa: ANN401 - whatever JSON has
    try:
        return from_json(text)
    except ValueError as error:
        msg = f"{place} is not JSON: {error}; {remedy}"
        raise DataRootError(msg) from error


def read_text(path: Path) -> str:
    """Text of a list file or table, in UTF-8, in UTF-16 that says so, or in Windows' own.

    It may be packed by gzip. Windows' own (cp1252, which Excel's plain CSV is in) has letters of
    western Europe, and is taken, with a warning, where nothing else is likely.

    Raises:
        DataRootError: It cannot be read, or is of another encoding, which would misread names.
    """
    if fault := fault_of(path):
        raise DataRootError(fault.about(path))
    with Unpacked(path) as file:
        kind = kind_by(path, file.head)
        try:
            content = file.read(_LONGEST + 1)
        except (EOFError, OSError, zlib.error) as error:
            msg = f"{path} cannot be unpacked: {error}; restore it"
            raise DataRootError(msg) from error
    if len(content) > _LONGEST:
        msg = f"{path} is of more than {_LONGEST >> 20} MiB, and no table; correct the path"
        raise DataRootError(msg)
    if content.startswith(_WORKBOOKS):
        msg = f"{path} is a workbook or an archive and no text; save its table as 'CSV UTF-8'"
        raise DataRootError(msg)
    if kind and kind.family == "foreign":
        raise DataRootError(kind.about(path))
    try:
        text = content.decode("utf-16" if content.startswith(_UTF_16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        text = _of_windows(content)
        if not text:
            msg = f"{path} is not UTF-8 text: {error}; save it as UTF-8, in Excel as 'CSV UTF-8'"
            raise DataRootError(msg) from error
        line = 1 + next(n for n, line in enumerate(text.splitlines()) if not line.isascii())
        logger.warning(
            "%s is not UTF-8 text, and is read as that of Windows (cp1252); see that its letters "
            "are right, first in line %d, or save it as UTF-8", path, line,
        )  # fmt: skip
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _of_windows(content: bytes) -> str:
    """The text in Windows' western encoding; empty where it is hardly in that one.

    Texts of other encodings would be its letters and signs in long runs.
    """
    try:
        text = content.decode("cp1252")
    except UnicodeDecodeError:
        return ""
    return "" if re.search(r"[^\x00-\x7f]{3}", text) else text


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
