"""All charts of the page, as plotly's JSON."""

from collections.abc import Iterable, Iterator, Sequence

from anomalib_medclip.compare.store import Record
from anomalib_medclip.report import curve_charts, figure_charts
from anomalib_medclip.report.rows import Chart, Row


def charts(rows: Sequence[Row], records: Sequence[Record]) -> list[Chart]:
    """Gap, curves, calibration, accuracy against K and against cost, in this order.

    What has nothing to draw is left out: accuracy against K needs two K. A figure has no colours of
    text and ground and no template of plotly's, so that the page decides between light and dark.

    Args:
        rows: What ``summarise`` gives.
        records: What the rows were made of.
    """
    every = (
        *figure_charts.gap(rows),
        *curve_charts.curves(rows, records),
        *curve_charts.calibration(rows, records),
        *figure_charts.shots(rows),
        *figure_charts.cost(rows),
    )
    return list(_told_apart(every))


def _told_apart(found: Iterable[Chart]) -> Iterator[Chart]:
    """The charts, none of one name: test sets may differ in a comma only."""
    names: set[str] = set()
    for chart in found:
        name = chart.name
        while name in names:
            name += "_"
        names.add(name)
        yield chart._replace(name=name)
