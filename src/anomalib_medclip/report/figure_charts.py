"""Charts of the rows: what oracle epochs gain, accuracy against K, and accuracy against cost."""

from collections.abc import Mapping, Sequence
from typing import Any

from plotly import graph_objects as go

from anomalib_medclip.report.columns import COSTS, METRICS
from anomalib_medclip.report.drawing import (
    GREY,
    SeriesStyle,
    by_largest_k,
    by_test,
    canvas,
    estimate_in_words,
    finished,
    heading,
    notes,
    shots_of,
    styles_of,
    whiskers,
)
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
        figure.update_xaxes(title_text="AUROC")
        names = [row.label_with_k for row in shown]
        figure.update_yaxes(categoryorder="array", categoryarray=names)
        shown_as = [f"{name[:39]}…" if len(name) > 40 else name for name in names]
        figure.update_yaxes(range=[len(names) - 0.5, -0.5], tickvals=names, ticktext=shown_as)
        figure.update_layout(legend_y=-70 / (height - 100))
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


def k_charts(rows: Sequence[ReportRow]) -> list[Chart]:
    """Accuracy against K, a chart for each test set with two K or more."""
    styles, found = styles_of(rows), []
    for test, here in by_test(rows):
        known = shots_of(here)
        metrics = [m for m in _SHOWN if any(m in row.honest for row in here)]
        if len(known) < 2 or not metrics:
            continue
        figure = canvas([METRICS[m] for m in metrics], 480)
        for column, metric in enumerate(metrics, start=1):
            _against_k(
                figure, column, [row for row in here if metric in row.honest], metric, styles
            )
        ticks = {"tickvals": known, "ticktext": [str(k) for k in known]}
        figure.update_xaxes(type="log", title_text="support images of each class, K", **ticks)
        figure.update_yaxes(title_text="AUROC, honest", col=1)
        caption = (
            "Mean over draws with its 95 % interval over patients and draws; points stand slightly "
            "apart. Dotted lines have no K. Open and dashed: figures of the papers, which come "
            "from other protocols, most of them from the epoch that was best on the test images."
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
            for row in shown:
                if row.cost.get(cost.name, 0) > 0:
                    bubble = _bubble(row, cost.name, styles[row.label], biggest, column == 1)
                    figure.add_trace(bubble, row=1, col=column)
            figure.update_xaxes(title_text=cost.unit, type="log", col=column)
        figure.update_yaxes(title_text="image AUROC, honest", col=1)
        figure.update_layout(legend_itemsizing="constant")
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
    known = shots_of(rows)
    for place, (name, of_name) in enumerate(lines.items()):
        shared = {"name": name, "legendgroup": name, "showlegend": column == 1}
        if of_name[0].k_shot is None:
            line = {"color": styles[name].colour, "dash": "dot", "width": 2}
            level = of_name[0].honest[metric]
            flat = go.Scatter(
                x=[known[0], known[-1]],
                y=[level.mean] * 2,
                mode="lines",
                line=line,
                hovertemplate=f"{name}<br>{estimate_in_words(level)}<extra></extra>",
                **shared,
            )
            figure.add_trace(flat, row=1, col=column)
        else:
            aside = 1.02 ** (place - (len(lines) - 1) / 2)
            for trace in _line(of_name, metric, styles[name], aside, shared):
                figure.add_trace(trace, row=1, col=column)
        for trace in _papers(of_name, metric, styles[name], column == 1):
            figure.add_trace(trace, row=1, col=column)


def _line(
    rows: Sequence[ReportRow],
    metric: str,
    style: SeriesStyle,
    aside: float,
    shared: Mapping[str, Any],
) -> list[Any]:
    estimates = [row.honest[metric] for row in rows]
    places = [(row.k_shot or 0) * aside for row in rows]
    mean = go.Scatter(
        x=places,
        y=[estimate.mean for estimate in estimates],
        mode="lines+markers",
        line={"color": style.colour, "dash": style.dash, "width": 2},
        marker={"symbol": style.symbol, "size": 9},
        text=[f"{row.label_with_k}<br>{estimate_in_words(row.honest[metric])}" for row in rows],
        hovertemplate="%{text}<extra></extra>",
        **shared,
    )
    x, y = whiskers(places, estimates)
    interval = go.Scatter(
        x=x,
        y=y,
        mode="lines",
        line={"color": style.colour, "width": 1},
        hoverinfo="skip",
        **{**shared, "showlegend": False},
    )
    return [interval, mean]


def _papers(rows: Sequence[ReportRow], metric: str, style: SeriesStyle, legend: bool) -> list[Any]:
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
            legendgroup=f"{rows[0].model} in {paper}",
            showlegend=legend,
        )
        for paper, points in printed.items()
    ]


def _in_papers(row: ReportRow, metric: str) -> str:
    cells = [cell for cell in row.published if cell["metric"] == metric]
    printed = dict.fromkeys(f"{cell['value'] / 100:.3f} in {cell['paper']}" for cell in cells)
    return f", published {', '.join(printed)}" if printed else ""


def _bubble(row: ReportRow, cost: str, style: SeriesStyle, biggest: float, legend: bool) -> Any:  # noqa: ANN401 - plotly's
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
        mode="markers",
        marker=marker,
        name=row.label,
        legendgroup=row.label,
        showlegend=legend,
        hovertemplate=f"{row.label_with_k}<br>{_cost_in_words(row)}<extra></extra>",
    )


def _cost_in_words(row: ReportRow) -> str:
    """Image AUROC and costs."""
    known = [one for one in COSTS if one.main and one.name in row.cost]
    costs = [f"{row.cost[one.name]:.3g} {one.unit}" for one in known]
    return ", ".join([f"image AUROC {estimate_in_words(row.honest['image_AUROC'])}", *costs])
