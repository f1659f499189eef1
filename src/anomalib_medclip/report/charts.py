"""All charts of the page, as plotly's JSON."""

from collections.abc import Iterable, Iterator, Sequence

from anomalib_medclip.compare.cell_record import CellRecord
from anomalib_medclip.report.curve_charts import calibration_charts, roc_and_pr_charts
from anomalib_medclip.report.figure_charts import cost_charts, gap_charts
from anomalib_medclip.report.k_charts import k_charts
from anomalib_medclip.report.rows import Chart, ReportRow


def charts_of(rows: Sequence[ReportRow], records: Sequence[CellRecord]) -> list[Chart]:
    """Gap, curves, calibration, accuracy against K and against cost, in this order.

    What has nothing to draw is left out: accuracy against K needs two K. A figure has no colours of
    text and ground and no template of plotly's, so that the page decides between light and dark.

    Args:
        rows: What ``summarise`` gives.
        records: What the rows were made of.
    """
    every = (
        *gap_charts(rows),
        *roc_and_pr_charts(rows, records),
        *calibration_charts(rows, records),
        *k_charts(rows),
        *cost_charts(rows),
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
