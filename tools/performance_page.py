"""Writes the table and the charts of docs/performance.md from the results beside it.

    PYTHONPATH=src python tools/performance_page.py

Where several rows are of one setting, the first is taken: others were measured on real images.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anomalib_medclip.files import read_json

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "performance.md"
RESULTS = DOCS / "performance" / "amd_epyc_2_cores.json"
BEGIN, END = "<!-- written by tools/performance_page.py -->", "<!-- end of table -->"

NAMES = {"mvfa": "MVFA", "madclip": "MadCLIP", "mediclip": "MediCLIP", "iqeclip": "IQE-CLIP"}
RUNS = {
    "torch, fp32": ("eager", "fp32"),
    "torch, bf16": ("eager", "bf16"),
    "OpenVINO, bf16": ("openvino-bf16", "bf16"),
    "OpenVINO, int8": ("openvino-int8", "int8"),
}
EPOCHS = {"first epoch": "first-epoch", "each later epoch": "later-epoch"}
COLOURS = ("#0072b2", "#56b4e9", "#009e73", "#e69f00")  # told apart by the colour-blind, too
GREY = "#767676"  # read on a white page and on a dark one

Row = dict[str, Any]


def results() -> list[Row]:
    """All rows that were measured."""
    found: list[Row] = read_json(RESULTS)["rows"]
    return found


def of(rows: Sequence[Row], **wanted: str | int) -> Row | None:
    """The first row of a setting, if it was measured."""
    return next((row for row in rows if all(row[k] == v for k, v in wanted.items())), None)


def scored(rows: Sequence[Row], method: str, run: str, k_shot: int = 0) -> Row | None:
    """The row of scoring with a method in a runtime."""
    runtime, precision = RUNS[run]
    return of(
        rows, what="score", method=method, k_shot=k_shot, runtime=runtime, precision=precision
    )


def table(rows: Sequence[Row]) -> str:
    """A row for each method: encoders an image, and seconds of an epoch at K = 4."""
    heads = ["method", *RUNS, *(f"{name}, K = 4" for name in EPOCHS)]
    lines = [heads, ["---"] * len(heads)]
    for method, name in NAMES.items():
        epochs = [of(rows, what=what, method=method, k_shot=4) for what in EPOCHS.values()]
        lines.append([name, *_ratios(rows, method, 0), *(_cell(row, _seconds) for row in epochs)])
    lines.append(["MVFA, K = 16", *_ratios(rows, "mvfa", 16), "", ""])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _ratios(rows: Sequence[Row], method: str, k_shot: int) -> list[str]:
    return [_cell(scored(rows, method, run, k_shot), _ratio) for run in RUNS]


def _cell(row: Row | None, words: Callable[[Row], str]) -> str:
    return "" if row is None else words(row)


def _ratio(row: Row) -> str:
    return f"{row['ratio']:.2f}"


def _seconds(row: Row) -> str:
    return f"{row['epoch_s']:.0f} s" if row["epoch_s"] >= 10 else f"{row['epoch_s']:.1f} s"


def scoring_chart(rows: Sequence[Row]) -> Figure:
    """How long an image takes, as a share of what CLIP's own image encoder takes."""
    bars = {run: [scored(rows, method, run) for method in NAMES] for run in RUNS}
    figure, axes = _canvas("Time to score an image, in image encoders of CLIP (fp32)")
    _draw(axes, bars, "ratio", _ratio)
    return figure


def training_chart(rows: Sequence[Row]) -> Figure:
    """How long an epoch takes; the first one is slower, since it computes what is kept."""
    bars = {
        name: [of(rows, what=what, method=method, k_shot=4) for method in NAMES]
        for name, what in EPOCHS.items()
    }
    figure, axes = _canvas("Seconds of an epoch, K = 4, on two cores")
    _draw(axes, bars, "epoch_s", _seconds)
    return figure


def _canvas(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.6, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize=11, color=GREY, pad=12)
    axes.tick_params(colors=GREY, length=0, labelsize=10)
    axes.set_xticks([])
    for side in axes.spines.values():
        side.set_visible(False)
    return figure, axes


def _draw(
    axes: Axes, bars: dict[str, list[Row | None]], key: str, words: Callable[[Row], str]
) -> None:
    """Horizontal bars, each with its number and, in the first group, what it is of."""
    thick = 0.8 / len(bars)
    for place, (name, rows) in enumerate(bars.items()):
        for number, row in enumerate(rows):
            if row is not None:
                at, label = number + place * thick, words(row)
                axes.barh(at, row[key], height=thick * 0.86, color=COLOURS[place])
                label = f"{label} · {name}" if number == 0 else label
                axes.annotate(
                    label, (row[key], at), (5, 0), textcoords="offset points", va="center",
                    fontsize=9, color=GREY,
                )  # fmt: skip
    middle = 0.4 - thick / 2
    axes.set_yticks([number + middle for number in range(len(NAMES))], list(NAMES.values()))
    axes.invert_yaxis()
    axes.set_xlim(right=axes.get_xlim()[1] * 1.12)


def main() -> None:
    """Write the table between its marks, and the charts, the same to the byte each time."""
    rows = results()
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    text = f"{before}{BEGIN}\n\n{table(rows)}\n\n{END}{rest.partition(END)[2]}"
    PAGE.write_text(text, encoding="utf-8")
    charts = {"scoring": scoring_chart, "training": training_chart}
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "performance"}):
        for name, chart in charts.items():
            chart(rows).savefig(
                DOCS / "images" / f"performance_{name}.svg",
                transparent=True,
                metadata={"Date": None},
            )


if __name__ == "__main__":
    main()
