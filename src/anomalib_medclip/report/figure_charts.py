"""Charts of the rows: what oracle epochs gain, and accuracy against cost."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from plotly import graph_objects as go

from anomalib_medclip.report.columns import COSTS, METRICS
from anomalib_medclip.report.drawing import (
    GREY,
    PERCENT,
    SeriesStyle,
    by_largest_k,
    by_test,
    canvas,
    finished,
    heading,
    log_ticks,
    name_places,
    notes,
    shortened,
    styles_of,
    whiskers,
)
from anomalib_medclip.report.numbers import estimate_in_words
from anomalib_medclip.report.rows import Chart, ReportRow

_SHOWN = ("image_AUROC", "pixel_AUROC")


def gap_charts(rows: Sequence[ReportRow]) -> list[Chart]:
    """Honest and oracle figure of every row, a chart for each test set."""
    styles, found = styles_of(rows), []
    for test, here in by_test(rows):
        metrics = [m for m in _SHOWN if any(m in row.gap for row in here)]
        if not metrics:
            continue
        shown = [row for row in here if any(m in row.gap for m in metrics)]
        height = 150 + 26 * len(shown)
        figure = canvas([METRICS[m] for m in metrics], height, shared_yaxes=True)
        for column, metric in enumerate(metrics, start=1):
            _dumbbells(figure, column, [row for row in shown if metric in row.gap], metric, styles)
        figure.update_xaxes(title_text="AUROC", tickformat=PERCENT)
        names = [row.label_with_k for row in shown]
        figure.update_yaxes(categoryorder="array", categoryarray=names)
        shown_as = [f"{name[:39]}…" if len(name) > 40 else name for name in names]
        figure.update_yaxes(range=[len(names) - 0.5, -0.5], tickvals=names, ticktext=shown_as)
        figure.update_layout(showlegend=True, legend_y=-70 / (height - 100))
        caption = (
            "Filled: the honest epoch, with its 95 % interval over patients and draws. Open: the "
            "epoch that was best on the test images, the published practice, by the sum of both "
            "AUROCs, so that one of them may be lower. The longer the bar, the more comes of "
            f"choosing on the test images.{notes(shown)}"
        )
        alt = "; ".join(
            f"{row.label_with_k}: {METRICS[m]} honest {estimate_in_words(row.honest[m])}, oracle "
            f"{estimate_in_words(row.oracle[m])}"
            for row in shown
            for m in metrics
            if m in row.gap
        )
        title = f"Honest against oracle, {test}"
        found.append(finished("gap", test, figure, title, caption, alt))
    return found


def cost_charts(rows: Sequence[ReportRow]) -> list[Chart]:
    """Image AUROC against cost, a chart for each test set, at its largest K."""
    styles, found = styles_of(rows), []
    for test, here in by_largest_k(rows):
        shown = [row for row in here if "image_AUROC" in row.honest]
        axes = [one for one in COSTS if one.axis]
        costs = [one for one in axes if any(row.cost.get(one.name, 0) > 0 for row in shown)]
        if not costs:
            continue
        figure = canvas([f"against {one.unit}" for one in costs], 460, shared_yaxes=True)
        biggest = max(row.cost.get("model_mb", 0.0) for row in shown) or 1.0
        for column, cost in enumerate(costs, start=1):
            there = [row for row in shown if row.cost.get(cost.name, 0) > 0]
            axis = log_ticks([row.cost[cost.name] for row in there])
            sides = name_places(_spots(there, cost.name, axis["range"]), [r.label for r in there])
            for row, side in zip(there, sides, strict=True):
                bubble = _bubble(row, cost.name, styles[row.label], biggest, side)
                figure.add_trace(bubble, row=1, col=column)
            figure.update_xaxes(title_text=cost.unit, type="log", col=column, **axis)
        figure.update_yaxes(tickformat=PERCENT)
        figure.update_yaxes(title_text="image AUROC, honest", col=1)
        caption = (
            "Up and to the left is better. The larger the mark, the more MB the model takes. Costs "
            f"are medians; what takes no time has no mark.{notes(shown)}"
        )
        alt = "; ".join(f"{row.label_with_k}: {_cost_in_words(row)}" for row in shown)
        title = f"Accuracy against cost, {heading(test, here)}"
        found.append(finished("cost", test, figure, title, caption, alt))
    return found


def _dumbbells(
    figure: Any,  # noqa: ANN401 - plotly's
    column: int,
    rows: Sequence[ReportRow],
    metric: str,
    styles: Mapping[str, SeriesStyle],
) -> None:
    names = [row.label_with_k for row in rows]
    honest = [row.honest[metric] for row in rows]
    oracle = [row.oracle[metric] for row in rows]
    y, x = whiskers(names, honest)
    both = zip(honest, oracle, strict=True)
    ends = [end for one, other in both for end in (one.mean, other.mean, None)]
    sides = [side for name in names for side in (name, name, None)]
    quiet = {"mode": "lines", "hoverinfo": "skip", "showlegend": False}
    link = go.Scatter(x=ends, y=sides, line={"color": GREY, "width": 7}, opacity=0.35, **quiet)
    figure.add_trace(link, row=1, col=column)
    figure.add_trace(go.Scatter(x=x, y=y, line={"color": GREY, "width": 1.5}, **quiet), 1, column)
    kinds = (("honest", honest, ""), ("oracle", oracle, "-open"))
    for protocol, estimates, ending in kinds:
        marker = {
            "color": [styles[row.label].colour for row in rows],
            "symbol": [styles[row.label].symbol + ending for row in rows],
            "size": 10,
            "line": {"width": 2 if ending else 0},
        }
        dots = go.Scatter(
            x=[estimate.mean for estimate in estimates],
            y=names,
            mode="markers",
            marker=marker,
            name=protocol,
            legendgroup=protocol,
            showlegend=column == 1,
            text=[estimate_in_words(estimate) for estimate in estimates],
            hovertemplate=f"%{{y}}<br>{protocol} %{{text}}<extra></extra>",
        )
        figure.add_trace(dots, row=1, col=column)


def _spots(
    rows: Sequence[ReportRow], cost: str, ends: tuple[float, float]
) -> list[tuple[float, float]]:
    """Where the marks are in their panel, about, from 0 to 1."""
    heights = [row.honest["image_AUROC"].mean for row in rows]
    low, length = min(heights), (max(heights) - min(heights)) or 1.0
    across = [(math.log10(row.cost[cost]) - ends[0]) / (ends[1] - ends[0]) for row in rows]
    up = [0.08 + 0.84 * (height - low) / length for height in heights]
    return list(zip(across, up, strict=True))


def _bubble(row: ReportRow, cost: str, style: SeriesStyle, biggest: float, side: str) -> Any:  # noqa: ANN401 - plotly's
    size = row.cost.get("model_mb", 0.0)
    marker = {
        "color": style.colour,
        "symbol": style.symbol,
        "size": [size],
        "sizemode": "area",
        "sizeref": biggest / 30**2,
        "sizemin": 6,
        "opacity": 0.9,
        "line": {"width": 0},
    }
    return go.Scatter(
        x=[row.cost[cost]],
        y=[row.honest["image_AUROC"].mean],
        mode="markers+text",
        marker=marker,
        text=[shortened(row.label)],
        textposition=side,
        textfont_size=11,
        cliponaxis=False,
        name=row.label,
        hovertemplate=f"{row.label_with_k}<br>{_cost_in_words(row)}<extra></extra>",
    )


def _cost_in_words(row: ReportRow) -> str:
    """Image AUROC and costs."""
    known = [one for one in COSTS if one.main and one.name in row.cost]
    costs = [f"{row.cost[one.name]:.3g} {one.unit}" for one in known]
    return ", ".join([f"image AUROC {estimate_in_words(row.honest['image_AUROC'])}", *costs])
