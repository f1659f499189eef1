"""Accuracy against K: a line for each row, named at its end, and the papers' figures beside."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from plotly import graph_objects as go

from anomalib_medclip.report.columns import METRICS
from anomalib_medclip.report.drawing import (
    PERCENT,
    SeriesStyle,
    by_test,
    canvas,
    finished,
    name_at_ends,
    notes,
    shots_of,
    styles_of,
    whiskers,
)
from anomalib_medclip.report.numbers import estimate_in_words, percent
from anomalib_medclip.report.rows import Chart, Estimate, ReportRow

_SHOWN = ("image_AUROC", "pixel_AUROC")
_NAME_HEIGHT = 0.045
"""Of a name beside its line, of the height of the panel."""


def k_charts(rows: Sequence[ReportRow]) -> list[Chart]:
    """Accuracy against K, a chart for each test set with two K or more."""
    styles, found = styles_of(rows), []
    for test, here in by_test(rows):
        known = shots_of(here)
        metrics = [m for m in _SHOWN if any(m in row.honest for row in here)]
        if len(known) < 2 or not metrics:
            continue
        figure = canvas([METRICS[m] for m in metrics], 480, horizontal_spacing=0.24)
        for column, metric in enumerate(metrics, start=1):
            _against_k(
                figure, column, [row for row in here if metric in row.honest], metric, styles
            )
        _k_axis(figure, known)
        figure.update_yaxes(tickformat=PERCENT)
        figure.update_yaxes(title_text="AUROC, honest", col=1)
        figure.update_layout(margin_r=170)
        caption = (
            "Mean over draws with its 95 % interval over patients and draws, which stands slightly "
            "beside its point; intervals from 0 to 100 are left out. K is on a scale of doublings. "
            "Dotted lines have no K. Open and dashed: figures of the papers, which come from other "
            "protocols, most of them from the epoch that was best on the test images."
            f"{notes(here)}"
        )
        alt = "; ".join(
            f"{METRICS[m]} of {row.label_with_k}: {estimate_in_words(row.honest[m])}"
            f"{_in_papers(row, m)}"
            for m in metrics
            for row in here
            if m in row.honest
        )
        title = f"Accuracy against K, {test}"
        found.append(finished("shots", test, figure, title, caption, alt))
    return found


def _against_k(
    figure: Any,  # noqa: ANN401 - plotly's
    column: int,
    rows: Sequence[ReportRow],
    metric: str,
    styles: Mapping[str, SeriesStyle],
) -> None:
    lines: dict[str, list[ReportRow]] = {}
    for row in rows:
        lines.setdefault(row.label, []).append(row)
    known, ends = shots_of(rows), {}
    for place, (name, of_name) in enumerate(lines.items()):
        last = of_name[-1]
        ends[name] = math.log10(last.k_shot or known[-1]), last.honest[metric].mean
        if of_name[0].k_shot is None:
            flat = _flat(of_name[0].honest[metric], name, known, styles[name])
            figure.add_trace(flat, row=1, col=column)
        else:
            aside = 1.02 ** (place - (len(lines) - 1) / 2)
            for trace in _line(of_name, metric, styles[name], aside):
                figure.add_trace(trace, row=1, col=column)
        for trace in _papers(of_name, metric, styles[name]):
            figure.add_trace(trace, row=1, col=column)
    low, high = _reach(rows, metric)
    figure.update_yaxes(range=[low, high], row=1, col=column)
    name_at_ends(figure, column, ends, styles, gap=(high - low) * _NAME_HEIGHT)


def _reach(rows: Sequence[ReportRow], metric: str) -> tuple[float, float]:
    """From where to where the axis goes: over all means, intervals and figures of papers."""
    values = [
        value
        for row in rows
        for one in [row.honest[metric]]
        for value in (one.mean, *(() if one.says_nothing else (one.low, one.high)))
        if value is not None
    ]
    printed = (c["value"] / 100 for row in rows for c in row.published if c["metric"] == metric)
    values += printed
    pad = 0.04 * (max(values) - min(values)) + 0.005
    return min(values) - pad, min(1.01, max(values) + pad)


def _k_axis(figure: Any, known: Sequence[int]) -> None:  # noqa: ANN401 - plotly's
    """Ticks at the K that there are, on a scale on which a doubling is a step."""
    pad = 0.06 * math.log10(known[-1] / known[0])
    figure.update_xaxes(
        type="log",
        title_text="support images of each class, K",
        tickvals=known,
        ticktext=[str(k) for k in known],
        range=[math.log10(known[0]) - pad, math.log10(known[-1]) + pad],
    )


def _flat(level: Estimate, name: str, known: Sequence[int], style: SeriesStyle) -> Any:  # noqa: ANN401 - plotly's
    return go.Scatter(
        x=[known[0], known[-1]],
        y=[level.mean] * 2,
        mode="lines",
        line={"color": style.colour, "dash": "dot", "width": 2},
        name=name,
        hovertemplate=f"{name}<br>{estimate_in_words(level)}<extra></extra>",
    )


def _line(rows: Sequence[ReportRow], metric: str, style: SeriesStyle, aside: float) -> list[Any]:
    estimates = [row.honest[metric] for row in rows]
    mean = go.Scatter(
        x=[row.k_shot for row in rows],
        y=[estimate.mean for estimate in estimates],
        mode="lines+markers",
        line={"color": style.colour, "width": 2},
        marker={"symbol": style.symbol, "size": 9},
        text=[f"{row.label_with_k}<br>{estimate_in_words(row.honest[metric])}" for row in rows],
        name=rows[0].label,
        hovertemplate="%{text}<extra></extra>",
    )
    said = [(row, one) for row, one in zip(rows, estimates, strict=True) if not one.says_nothing]
    x, y = whiskers([(row.k_shot or 0) * aside for row, _ in said], [one for _, one in said])
    interval = go.Scatter(
        x=x, y=y, mode="lines", line={"color": style.colour, "width": 1}, opacity=0.6,
        name=rows[0].label, hoverinfo="skip",
    )  # fmt: skip
    return [interval, mean]


def _papers(rows: Sequence[ReportRow], metric: str, style: SeriesStyle) -> list[Any]:
    """A trace for each paper that prints figures of this method; figures without K have none."""
    printed: dict[str, dict[tuple[int, float], None]] = {}
    for row in rows:
        for cell in row.published:
            if cell["metric"] == metric and row.k_shot is not None:
                point = (row.k_shot, cell["value"] / 100)
                printed.setdefault(cell["paper"], {})[point] = None
    return [
        go.Scatter(
            x=[k for k, _ in points],
            y=[value for _, value in points],
            mode="lines+markers",
            line={"color": style.colour, "dash": "dash", "width": 1},
            marker={"symbol": f"{style.symbol}-open", "size": 9},
            name=f"{rows[0].model} in {paper}'s paper",
            hovertemplate="%{fullData.name}<br>K = %{x}: %{y:.1%}<extra></extra>",
        )
        for paper, points in printed.items()
    ]


def _in_papers(row: ReportRow, metric: str) -> str:
    cells = [cell for cell in row.published if cell["metric"] == metric]
    printed = dict.fromkeys(
        f"{percent(cell['value'] / 100)} % in {cell['paper']}" for cell in cells
    )
    return f", published {', '.join(printed)}" if printed else ""
