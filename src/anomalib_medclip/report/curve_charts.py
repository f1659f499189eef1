"""Charts of the scores themselves: ROC, precision-recall, and calibration."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from plotly import graph_objects as go
from sklearn.metrics import precision_recall_curve, roc_curve

from anomalib_medclip.compare.cell_record import CellRecord
from anomalib_medclip.metrics import reliability_curve
from anomalib_medclip.metrics.images import FloatArray
from anomalib_medclip.report.columns import METRICS
from anomalib_medclip.report.drawing import (
    GREY,
    PERCENT,
    SeriesStyle,
    by_largest_k,
    canvas,
    finished,
    heading,
    name_in_corner,
    notes,
    styles_of,
)
from anomalib_medclip.report.numbers import estimate_in_words, percent
from anomalib_medclip.report.rows import Chart, ReportRow
from anomalib_medclip.report.runs import CellRun, runs_of

Points = Callable[[CellRun], tuple[FloatArray, FloatArray] | None]
"""Curve of a run at the places of ``_GRID``: ROC and precision-recall, or nothing."""

_GRID = np.linspace(0, 1, 101) ** 2
"""False positive rates, and recalls; closer where curves are steep."""

_BINS = 5
"""Of the calibration curve; the calibration error has more of them, and none is looked at."""


def roc_and_pr_charts(rows: Sequence[ReportRow], records: Sequence[CellRecord]) -> list[Chart]:
    """ROC and precision-recall of images and of pixels, for each test set at its largest K."""
    styles, found = styles_of(rows), []
    for test, here in by_largest_k(rows):
        for level, points in (("image", _of_images), ("pixel", _of_pixels)):
            every = ((row, _draws(runs_of(row, records), points)) for row in here)
            drawn = [(row, draws) for row, draws in every if draws]
            if not drawn:
                continue
            shown = [row for row, _ in drawn]
            figure = canvas(["ROC", "precision-recall"], 480)
            for row, draws in drawn:
                for column, trace in _bands(row, draws, styles[row.label]):
                    figure.add_trace(trace, row=1, col=column)
            _finish(figure, [run for row in shown for run in runs_of(row, records)], level)
            name_in_corner(figure, _by_area(shown, level), styles)
            caption = (
                f"Curves of the {level} scores at the honest epoch. A line is the mean over draws, "
                "at the same false positive rate or recall; the band reaches from the lowest draw "
                f"to the highest and is no interval. Thin grey: chance.{notes(shown)}"
            )
            title = f"ROC and precision-recall of {level}s, {heading(test, here)}"
            alt = "; ".join(_areas(row, level) for row in shown)
            found.append(finished("curves", f"{level} {test}", figure, title, caption, alt))
    return found


def calibration_charts(rows: Sequence[ReportRow], records: Sequence[CellRecord]) -> list[Chart]:
    """How often a score is right, all draws pooled, for each test set at its largest K.

    Trivial scores are no probabilities and have no curve.
    """
    styles, found = styles_of(rows), []
    for test, here in by_largest_k(rows):
        here = [row for row in here if row.kind != "trivial"]
        every = [(row, *_pooled(runs_of(row, records))) for row in here]
        drawn = [one for one in every if _are_shares(one[1])]
        if not drawn:
            continue
        titles = ["share of abnormal images at a score", "images at a score"]
        stacked = {"rows": 2, "cols": 1, "shared_xaxes": True, "row_heights": [0.64, 0.36]}
        figure = canvas(titles, 640, vertical_spacing=0.1, **stacked)
        figure.add_trace(go.Scatter(x=[0, 1], y=[0, 1], **_quiet()), row=1, col=1)
        alts = []
        for row, scores, abnormal in drawn:
            curve = reliability_curve(scores, abnormal, bins=_BINS)
            error = percent(reliability_curve(scores, abnormal).error)
            for place, trace in enumerate(_reliability(curve, row.label, styles[row.label]), 1):
                figure.add_trace(trace, row=place, col=1)
            alts.append(f"{row.label}: calibration error of all draws together {error} %")
        figure.update_xaxes(title_text="score", row=2, col=1, range=[0, 1])
        figure.update_yaxes(
            title_text="abnormal", row=1, col=1, range=[-0.03, 1.03], tickformat=PERCENT
        )
        figure.update_yaxes(title_text="images", row=2, col=1)
        shown = [row for row, *_ in drawn]
        name_in_corner(figure, [row.label for row in shown], styles)
        others = ", ".join(row.label for row in here if row not in shown)
        caption = (
            "Scores of all draws together, in 5 bins; bins with few images say little. On the "
            "diagonal 8 of 10 images with a score of 0.8 are abnormal; below it, fewer. Scores are "
            "scaled so that one half is the threshold, and are no probabilities by themselves; "
            "shares depend on how many test images are abnormal. The table's calibration error is "
            "the mean over draws."
            f"{f' Not drawn, as their scores leave 0 to 1: {others}.' if others else ''}"
            f"{notes(shown)}"
        )
        title = f"Calibration, {heading(test, here)}"
        alt = "; ".join(alts)
        found.append(finished("calibration", test, figure, title, caption, alt))
    return found


def _of_images(run: CellRun) -> tuple[FloatArray, FloatArray] | None:
    images = run.test.images
    if len(set(images.label)) < 2:
        return None
    false, found, _ = roc_curve(images.label, images.ranked_by)
    precision, recall, _ = precision_recall_curve(images.label, images.ranked_by)
    return np.interp(_GRID, false, found), _at_recall(recall[::-1], precision[::-1])


def _of_pixels(run: CellRun) -> tuple[FloatArray, FloatArray] | None:
    found = run.test.pixel_curves
    if found is None:
        return None
    parts = (found.false_positive_rate, found.recall, found.precision)
    false, recall, precision = map(np.array, parts)
    order = np.lexsort((recall, false))
    roc = np.interp(_GRID, false[order], recall[order])
    return roc, _at_recall(recall[order], precision[order])


def _at_recall(recall: FloatArray, precision: FloatArray) -> FloatArray:
    """Precision where so much is found first; lines between points would promise too much."""
    # Where nothing is found, precision means nothing; the line begins at the first one found.
    first = np.searchsorted(recall, _GRID.clip(min=1e-9)).clip(max=len(recall) - 1)
    chosen: FloatArray = precision[first]
    return chosen


def _draws(runs: Sequence[CellRun], points: Points) -> list[tuple[FloatArray, FloatArray]]:
    """The two curves of each draw, the mean over its seeds."""
    of_draw: dict[int, list[tuple[FloatArray, FloatArray]]] = {}
    for run in runs:
        curve = points(run)
        if curve is not None:
            of_draw.setdefault(run.draw, []).append(curve)
    means = (np.mean(seeds, axis=0) for _, seeds in sorted(of_draw.items()))
    return [(mean[0], mean[1]) for mean in means]


def _bands(
    row: ReportRow, draws: Sequence[tuple[FloatArray, FloatArray]], style: SeriesStyle
) -> Iterator[tuple[int, Any]]:
    """Column and trace: band and mean of both curves."""
    name = row.label
    for column in (1, 2):
        every = np.stack([draw[column - 1] for draw in draws])
        shared: dict[str, Any] = {"mode": "lines", "hoverinfo": "skip"}
        if len(draws) > 1:
            edges = [*_GRID, *_GRID[::-1]], [*every.max(axis=0), *every.min(axis=0)[::-1]]
            shared |= {"fill": "toself", "fillcolor": style.veil, "line": {"width": 0}}
            yield column, go.Scatter(x=edges[0], y=edges[1], **shared)
        mean = go.Scatter(
            x=[*(0.0,) * (column == 1), *_GRID],
            y=[*(0.0,) * (column == 1), *every.mean(axis=0)],
            mode="lines+markers",
            line={"color": style.colour, "width": 2},
            marker={"symbol": style.symbol, "size": 8, "maxdisplayed": 7},
            name=name,
            hovertemplate=f"{name}<br>%{{x:.1%}}, %{{y:.1%}}<extra></extra>",
        )
        yield column, mean


def _finish(figure: Any, runs: Sequence[CellRun], level: str) -> None:  # noqa: ANN401 - plotly's
    """Axes, and what chance would give."""
    figure.add_trace(go.Scatter(x=[0, 1], y=[0, 1], **_quiet()), row=1, col=1)
    if level == "image":
        share = float(np.mean([np.mean(run.test.images.label) for run in runs]))
        figure.add_trace(go.Scatter(x=[0, 1], y=[share, share], **_quiet()), row=1, col=2)
    figure.update_xaxes(title_text="false positive rate", range=[0, 1], col=1)
    figure.update_yaxes(title_text="recall", range=[0, 1.01], col=1)
    figure.update_xaxes(title_text="recall", range=[0, 1], col=2)
    figure.update_yaxes(title_text="precision", range=[0, 1.01], col=2)
    figure.update_xaxes(tickformat=PERCENT)
    figure.update_yaxes(tickformat=PERCENT)


def _by_area(rows: Sequence[ReportRow], level: str) -> list[str]:
    """Names of the rows, the one with the largest area under ROC first."""
    known = {row.label: row.honest.get(f"{level}_AUROC") for row in rows}
    return sorted(known, key=lambda name: -(known[name].mean if known[name] else 0.0))  # type: ignore[union-attr]


def _quiet() -> dict[str, Any]:
    line = {"color": GREY, "width": 1}
    return {"mode": "lines", "line": line, "hoverinfo": "skip"}


def _areas(row: ReportRow, level: str) -> str:
    areas = (f"{level}_AUROC", f"{level}_AP")
    found = [f"{METRICS[m]} {estimate_in_words(row.honest[m])}" for m in areas if m in row.honest]
    return f"{row.label}: {', '.join(found)}"


def _pooled(runs: Sequence[CellRun]) -> tuple[list[float], list[int]]:
    images = [run.test.images for run in runs]
    return (
        [score for part in images for score in part.score],
        [abnormal for part in images for abnormal in part.label],
    )


def _are_shares(scores: Sequence[float]) -> bool:
    return bool(scores) and min(scores) >= 0 and max(scores) <= 1


def _reliability(curve: Any, name: str, style: SeriesStyle) -> Iterator[Any]:  # noqa: ANN401 - lazily named
    """The curve, and how many images each of its points is of, in bars with their numbers."""
    filled = curve.scores > 0
    yield go.Scatter(
        x=curve.mean_score[filled].tolist(),
        y=curve.abnormal[filled].tolist(),
        mode="lines+markers",
        line={"color": style.colour, "width": 2},
        marker={"symbol": style.symbol, "size": 9},
        text=curve.scores[filled].tolist(),
        hovertemplate=f"{name}<br>%{{x:.2f}}: %{{y:.1%}} abnormal of %{{text}}<extra></extra>",
        name=name,
    )
    yield go.Bar(
        x=((np.arange(_BINS) + 0.5) / _BINS).tolist(),
        y=curve.scores.tolist(),
        text=curve.scores.tolist(),
        textposition="outside",
        textangle=0,
        textfont_size=9,
        cliponaxis=False,
        marker={"color": style.colour, "line": {"width": 0}},
        hovertemplate=f"{name}<br>%{{y}} images<extra></extra>",
        name=name,
    )
