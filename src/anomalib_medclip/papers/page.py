"""Theirs and ours as a page, as a table for programs, and in lines for a terminal."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from anomalib_medclip.papers.beside import Beside, Figure
from anomalib_medclip.papers.inputs import Missing
from anomalib_medclip.papers.otherwise import otherwise
from anomalib_medclip.papers.tables import PaperTable
from anomalib_medclip.provenance import NOTICE
from anomalib_medclip.spreadsheet import shown

METRICS = {
    "image_AUROC": "image", "pixel_AUROC": "pixel", "image_and_pixel_AUROC": "image and pixel",
}  # fmt: skip
"""Figures of the papers, and their names: all are AUROC in percent."""

_MEANS = {"mean_BMAD": "Mean of BMAD", "mean_cross_dataset": "Mean"}

_COLUMNS = (
    "paper", "table", "row", "model", "setting", "dataset", "trained_on", "k", "metric", "theirs",
    "spread", "protocol", "fixed", "low", "high", "authors_epoch", "difference", "difference_low",
    "difference_high", "untrained", "transductive", "state", "note", "notice",
)  # fmt: skip


def as_page(
    table: PaperTable,
    found: Sequence[Beside],
    lacking: Missing,
    command: str,
    authors_epoch_choice: bool,
) -> str:
    """HTML: the rows of the paper, a column for each of its figures.

    Args:
        table: The table.
        found: Its figures with ours.
        lacking: What is missing.
        command: What was called.
        authors_epoch_choice: Which of our epochs the differences are of.
    """
    environment = Environment(
        loader=PackageLoader("anomalib_medclip.papers"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    columns = list(dict.fromkeys(_column(one) for one in found))
    rows: dict[tuple[str, str, int | None], dict[Any, Beside]] = {}
    for one in found:
        key = one.model, one.printed.setting, one.printed.k
        rows.setdefault(key, {})[_column(one)] = one
    return environment.get_template("paper.html").render(
        notice=NOTICE, table=table, columns=columns, rows=rows, lacking=lacking, command=command,
        authors_epoch_choice=authors_epoch_choice, metrics=METRICS, means=_MEANS,
        counts=counts(found), printed=printed_figures(found), within=_within, points=points,
        untrained=_models(one for one in found if one.untrained),
        transductive=_models(one for one in found if one.transductive),
        otherwise=otherwise(table.name),
    )  # fmt: skip


def _models(found: Iterable[Beside]) -> list[str]:
    return [*dict.fromkeys(one.model for one in found)]


def _column(one: Beside) -> tuple[str, str, str]:
    return one.printed.dataset, one.printed.trained_on, one.printed.metric


def printed_figures(found: Sequence[Beside]) -> int:
    """How many figures are printed; several models of ours may stand beside one."""
    return len({one.printed for one in found})


def counts(found: Sequence[Beside]) -> dict[str, int]:
    """How many figures are in each state, ``done`` first."""
    words = sorted({one.state for one in found}, key=lambda word: (word != "done", word))
    return {word: sum(one.state == word for one in found) for word in words}


def _within(difference: Figure) -> str:
    """Whether a difference may be none, for its colour."""
    if difference.low is None or difference.high is None:
        return "unknown"
    if difference.low <= 0 <= difference.high:
        return "within"
    return "above" if difference.low > 0 else "below"


def points(figure: Figure) -> str:
    """A difference in points, with its interval.

    >>> points(Figure(-1.25, -2.0, 0.5)), points(Figure(0.5))
    ('-1.2 (-2.0 to +0.5)', '+0.5')
    """
    if figure.low is None or figure.high is None:
        return f"{figure.value:+.1f}"
    return f"{figure.value:+.1f} ({figure.low:+.1f} to {figure.high:+.1f})"


def as_csv(table: PaperTable, found: Sequence[Beside]) -> str:
    """A line for each printed figure; numbers in percent, and points of differences."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for one in found:
        line = _line(table, one)
        writer.writerow({name: shown(line[name]) for name in _COLUMNS})
    return text.getvalue()


def _line(table: PaperTable, one: Beside) -> dict[str, Any]:
    printed, none = one.printed, Figure(float("nan"))
    fixed, difference = one.fixed or none, one.difference or none
    return {
        **printed._asdict(),
        "paper": table.paper,
        "table": table.number,
        "model": one.model,
        "theirs": printed.value,
        "fixed": one.fixed and fixed.value,
        "low": fixed.low,
        "high": fixed.high,
        "authors_epoch": one.authors and one.authors.value,
        "difference": one.difference and difference.value,
        "difference_low": difference.low,
        "difference_high": difference.high,
        "untrained": one.untrained if one.fixed else None,
        "transductive": one.transductive if one.fixed else None,
        "state": one.state,
        "notice": NOTICE,
    }


def as_lines(found: Sequence[Beside]) -> Iterator[list[str]]:
    """Words for a terminal: model, K, set, figure, theirs, ours, theirs' epoch, difference."""
    for one in found:
        printed = one.printed
        source = f" from {printed.trained_on}" if printed.trained_on else ""
        k = {"full-shot": "all", "zero-shot": "0"}.get(printed.setting, "")
        spread = "" if printed.spread is None else f" ± {printed.spread:.1f}"
        yield [
            f"{one.model}{'†' * one.untrained}{'‡' * one.transductive}",
            k if printed.k is None else str(printed.k),
            f"{printed.dataset}{source}",
            METRICS[printed.metric],
            f"{printed.value:.1f}{spread}",
            f"{one.fixed.value:.1f}" if one.fixed else one.state,
            f"{one.authors.value:.1f}" if one.authors else "",
            points(one.difference) if one.difference else "",
        ]
