"""Text for CSV files that a spreadsheet shows and does not run.

A cell that begins with ``=``, ``+``, ``-`` or ``@`` is a formula to Excel and LibreOffice, and
names of files come from anybody. Such a cell gets an apostrophe in front, after OWASP's advice on
CSV injection; numbers are left as they are.
"""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

_T = TypeVar("_T")

_RUNS = re.compile(r"'*[=+\-@\t\r]")
"""What a formula begins with, or one that was quoted already."""

_NUMBERS = re.compile(r"[-+\d.e ]+")


def shown(value: _T) -> _T | str:
    """A cell that shows this value; only texts are changed.

    Example:
        >>> shown("=HYPERLINK(A1)"), shown("-0.5"), shown(-0.5), shown("P4.png")
        ("'=HYPERLINK(A1)", '-0.5', -0.5, 'P4.png')
    """
    if isinstance(value, str) and _RUNS.match(value) and not _NUMBERS.fullmatch(value):
        return f"'{value}"
    return value


def original(cell: str) -> str:
    """The text that ``shown`` was given.

    Example:
        >>> original(shown("=1+A1")), original(shown("'=1+A1")), original("'quoted'")
        ('=1+A1', "'=1+A1", "'quoted'")
    """
    return cell[1:] if cell.startswith("'") and _RUNS.match(cell) else cell


def as_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Rows as CSV, each cell as ``shown`` gives it.

    Example:
        >>> as_table([{"image": "=1.png", "score": 0.5}], ["image", "score"]).split()
        ['image,score', "'=1.png,0.5"]
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=columns)
    writer.writeheader()
    writer.writerows({name: shown(cell) for name, cell in row.items()} for row in rows)
    return text.getvalue()
