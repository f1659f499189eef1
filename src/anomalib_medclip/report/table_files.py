"""The rows as tables to work with: CSV, JSON and LaTeX."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pandas import DataFrame, MultiIndex

from anomalib_medclip.compare.cell_record import ComparisonGrid
from anomalib_medclip.files import as_json, write_whole
from anomalib_medclip.provenance import NOTICE
from anomalib_medclip.report.columns import COSTS, METRICS, PROTOCOLS
from anomalib_medclip.report.redaction import without_paths
from anomalib_medclip.report.rows import ReportRow
from anomalib_medclip.spreadsheet import shown

_ABOUT = (
    "model", "kind", "normals", "note", "untrained", "cut", "trained_on", "tested_on", "k_shot",
    "draws", "failed", "epoch", "caveats", "aggregated",
)  # fmt: skip
_FIGURE = (
    "metric", "protocol", "mean", "low", "high", "interval_source", "values", "best", "published",
)  # fmt: skip
_PRINTED = ("patient_AUROC", "image_AUROC", "pixel_AUROC")
_SPECIAL = str.maketrans({
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "†": r"\textdagger{}", **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    **{letter: f"{{{letter}}}" for letter in "[]*"},
})  # fmt: skip
"""The last ones are arguments of the end of the line before."""

_PREAMBLE = f"% {NOTICE}\n% needs \\usepackage{{booktabs}} and \\usepackage{{xcolor}}\n\n"


def write_tables(
    folder: Path, grid: ComparisonGrid, rows: Sequence[ReportRow], names: bool = False
) -> list[Path]:
    """Write ``table.csv``, ``table.json`` and ``table.tex``, each whole or not at all.

    ==============  ===========================================================================
    ``table.csv``   a line for each row, metric and protocol (``honest``, ``oracle``, ``gap``), in
                    [0, 1]; ``values`` are those of the draws; ``published`` is in percent. A row
                    without any figure has one line, so that what failed is not lost
    ``table.json``  the same by row, with the command and the versions
    ``table.tex``   a table for each test set, AUROC in percent, for LaTeX's ``input``
    ==============  ===========================================================================

    Args:
        folder: It is made where it does not exist; tables that are there are replaced.
        grid: What was planned.
        rows: What ``summarise`` gives.
        names: Whether the command in ``table.json`` may hold paths.
    """
    lines = [line for row in rows for line in _lines(row)]
    columns = [*_ABOUT, *_FIGURE, *(one.name for one in COSTS), "notice"]
    command = grid.command if names else without_paths(grid.command)
    about = {"title": grid.title, "command": command, "versions": grid.versions}
    whole = {"notice": NOTICE, **about, "rows": [_as_dict(row) for row in rows]}
    texts = {
        "table.csv": _csv(DataFrame(lines, columns=columns, dtype=object)),
        "table.json": as_json(whole, indent=1, ensure_ascii=False) + "\n",
        "table.tex": _PREAMBLE + "\n".join(_latex(rows)),
    }
    for name, text in texts.items():
        write_whole(folder / name, text)
    return [folder / name for name in texts]


def _csv(table: DataFrame) -> str:
    """A table as text, in which nothing is a formula."""
    return table.map(shown).to_csv(index=False, lineterminator="\n")


def _lines(row: ReportRow) -> Iterator[dict[str, Any]]:
    plain = asdict(row)
    about = {name: plain[name] for name in _ABOUT} | row.cost | {"notice": NOTICE}
    about["caveats"], about["aggregated"] = " ".join(row.caveats), "; ".join(row.aggregated)
    if not row.honest and not row.oracle:
        yield about
    for metric in METRICS:
        for protocol in PROTOCOLS:
            estimate = row.estimates[protocol].get(metric)
            if estimate is not None:
                yield {
                    **about,
                    "metric": metric,
                    "protocol": protocol,
                    "mean": estimate.mean,
                    "low": estimate.low,
                    "high": estimate.high,
                    "interval_source": estimate.source,
                    "values": " ".join(map(repr, estimate.values)),
                    "best": protocol == "honest" and metric in row.best,
                    "published": "; ".join(_cited(row, metric)) if protocol != "gap" else "",
                }


def _cited(row: ReportRow, metric: str) -> Iterator[str]:
    for cell in row.published:
        if cell["metric"] == metric:
            yield f"{cell['value']} ({cell['paper']}, table {cell['table']})"


def _as_dict(row: ReportRow) -> dict[str, Any]:
    estimates = {
        protocol: {metric: found._asdict() for metric, found in by_metric.items()}
        for protocol, by_metric in row.estimates.items()
    }
    return {**asdict(row), **estimates, "best": sorted(row.best)}


def _latex(rows: Sequence[ReportRow]) -> Iterator[str]:
    """A table for each test set: its rows by K and metric."""
    for test in dict.fromkeys(row.tested_on for row in rows):
        here = [row for row in rows if row.tested_on == test]
        known = sorted({row.k_shot for row in here if row.k_shot is not None})
        shots = [*known, *([None] if any(row.k_shot is None for row in here) else [])]
        metrics = [m for m in _PRINTED if any(m in row.honest for row in here)] or _PRINTED[1:2]
        columns = [(k, metric) for k in shots for metric in metrics]
        cells: dict[str, list[str]] = {}
        for row in here:
            line = cells.setdefault(_escaped(row.label), ["--"] * len(columns))
            for place, (k, metric) in enumerate(columns):
                if k == row.k_shot:
                    line[place] = _cell(row, metric)
        heads = [("no $K$" if k is None else f"$K = {k}$", METRICS[m]) for k, m in columns]
        index = MultiIndex.from_tuples(heads)
        frame = DataFrame(list(cells.values()), list(cells), index)
        yield frame.style.to_latex(
            hrules=True,
            multicol_align="c",
            column_format="l" + "r" * len(columns),
            position="htbp",
            position_float="centering",
            caption=_caption(test, here),
        )


def _cell(row: ReportRow, metric: str) -> str:
    """Honest mean, half its interval, and the oracle mean, in percent."""
    if not row.honest and row.failed:
        return "failed"
    if metric not in row.honest:
        return "--"
    honest, oracle = row.honest[metric], row.oracle.get(metric)
    text = f"{100 * honest.mean:.1f}"
    if metric in row.best:
        text = rf"\textbf{{{text}}}"
    if honest.low is not None and honest.high is not None:
        text += rf" $\pm$ {50 * (honest.high - honest.low):.1f}"
    if oracle is not None:
        text += rf" {{\scriptsize\color{{gray}}({100 * oracle.mean:.1f})}}"
    return text


def _caption(test: str, rows: Sequence[ReportRow]) -> str:
    counts = sorted({len(found.values) for row in rows for found in row.honest.values()}) or [0]
    draws = " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
    epochs = " or ".join(dict.fromkeys(row.epoch for row in rows if row.epoch))
    daggers = " †: backbone with random weights." if any(row.untrained for row in rows) else ""
    caveats = "".join(f" {one}" for one in dict.fromkeys(c for row in rows for c in row.caveats))
    text = (
        f"{test}: AUROC in %, mean over draws ({draws}) by the honest protocol ({epochs}), and "
        "half of its 95 % interval over patients and draws. In brackets: the oracle protocol, the "
        "epoch that was best on the test images. Bold: best of its K, where patients and draws "
        f"support it.{daggers}{caveats} {NOTICE.capitalize()}."
    )
    return _escaped(text)


def _escaped(text: str) -> str:
    return text.translate(_SPECIAL)
