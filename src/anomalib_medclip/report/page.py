"""One page, whole in one file, that asks the network for nothing."""

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from plotly.offline import get_plotlyjs

from anomalib_medclip.compare.cell_record import CellRecord, ComparisonGrid
from anomalib_medclip.pictures import heat
from anomalib_medclip.provenance import NOTICE
from anomalib_medclip.report import numbers, sentences
from anomalib_medclip.report.columns import COSTS, MEANINGS, METRICS, protocols_of
from anomalib_medclip.report.drawing import GREY
from anomalib_medclip.report.gallery import Gallery
from anomalib_medclip.report.lost_lesions import lost_lesions
from anomalib_medclip.report.palette import colours
from anomalib_medclip.report.redaction import config_without_paths, without_paths
from anomalib_medclip.report.rows import Chart, ReportRow, model_label

_CLOUD = re.compile(r"https://(?:cloud|chart-studio)\.plotly\.com[^\"']*")
"""Where plotly.js would upload a chart to, by a button that the page leaves out, too."""

MAIN = {
    "patient_AUROC": ("honest",),
    "patient_Sensitivity": ("honest",),
    "patient_Specificity": ("honest",),
    "image_AUROC": ("honest", "oracle", "gap", "published"),
    "image_AP": ("honest",),
    "image_Sensitivity": ("honest",),
    "image_Specificity": ("honest",),
    "pixel_AUROC": ("honest", "oracle", "gap", "published"),
    "pixel_AUPRO": ("honest",),
    "lesion_Sensitivity": ("honest",),
    "lesion_FalsePositives": ("honest",),
    "cost": tuple(one.name for one in COSTS if one.main),
}
"""Columns of the table as it opens; all others are a choice away."""

SECTIONS = {
    "gap": ("Honest against oracle", "Gap", "The same trainings, read at two epochs."),
    "shots": ("Accuracy against K", "K", "What more support images bring."),
    "curves": ("ROC and precision-recall", "Curves", "All thresholds at once."),
    "calibration": ("Calibration", "Calibration", "Whether a score of 0.8 means 8 in 10."),
    "cost": ("Accuracy against cost", "Cost", "Time and memory, medians of all cells."),
    "explain": ("Explanations", "Explanations", "What stands behind a score."),
}
"""Sections of charts, in their order: heading, the same for the contents, what they show."""


def render(
    grid: ComparisonGrid,
    config: str,
    records: Sequence[CellRecord],
    rows: Sequence[ReportRow],
    charts: Sequence[Chart],
    gallery: Gallery,
    explained: str = "",
    names: bool = False,
) -> str:
    """The page ``report.html``: the same records give the same bytes.

    Args:
        grid: What was planned.
        config: The config as it was given.
        records: What was run of it, finished or failed.
        rows: Lines of the table.
        charts: Figures, in order; those of a section stand together.
        gallery: Pictures; without any, gallery and volumes are left out. Whether it holds names
            was decided when it was packed.
        explained: HTML of the explanations, ready to be placed, from ``explain.section``.
        names: Whether file names and paths may be shown: in config, command, and errors, whose
            messages and tracebacks are withheld otherwise.
    """
    return _template().render(
        notice=NOTICE,
        title=grid.title or "Comparison",
        names=names,
        lost=lost_lesions(records),
        **_assets(),
        **_results(rows, charts, gallery, explained),
        **_progress(grid, records),
        **_origin(grid, config, records, names),
    )


@cache  # a report is rendered twice, to see how much room there is for its pictures
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("anomalib_medclip.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.globals |= _WORDS
    return environment.get_template("page.html")


_WORDS = {
    "percent": numbers.percent,
    "figure_in_words": numbers.figure_in_words,
    "interval_in_words": numbers.interval_in_words,
    "amount": sentences.amount,
    "k_in_words": sentences.k_in_words,
    "learns_from": sentences.learns_from,
    "setup_in_words": sentences.setup_in_words,
    "conclusions": sentences.conclusions,
    "limits": sentences.limits,
    "aggregations": sentences.aggregations,
    "model_label": model_label,
}
"""What the templates call."""


@cache
def _assets() -> dict[str, Any]:
    folder = files(__package__) / "templates"
    return {
        "css": (folder / "report.css").read_text(encoding="utf-8"),
        "js": (folder / "report.js").read_text(encoding="utf-8"),
        "plotly": _CLOUD.sub("", get_plotlyjs()),
        "heat": heat.table().tolist(),
        "opacity": heat.OPACITY,
    }


def _results(
    rows: Sequence[ReportRow], charts: Sequence[Chart], gallery: Gallery, explained: str
) -> dict[str, Any]:
    ordered, metrics = _side_by_side(rows), _shown(rows)
    by_section = {name: [chart for chart in charts if chart.section == name] for name in SECTIONS}
    return {
        "rows": ordered,
        "colours": colours([row.model for row in rows])
        | {row.model: GREY for row in rows if row.kind == "trivial"},
        "metrics": metrics,
        "meanings": {name: MEANINGS[name] for name in metrics},
        "main": MAIN,
        "costs": {one.name: one.heading for one in COSTS},
        "published": (published := {name: _published(ordered, name) for name in metrics}),
        "protocols": {
            name: [*protocols_of(name), *(["published"] if published[name] else [])]
            for name in metrics
        },
        "untrained": list(dict.fromkeys(row.model for row in rows if row.untrained)),
        "sections": {
            name: (*SECTIONS[name], found)
            for name, found in by_section.items()
            if found or (name == "explain" and explained)
        },
        "charts": {chart.name: chart.figure for chart in charts},
        "gallery": gallery._asdict(),
        "explained": explained,
    }


def _shown(rows: Sequence[ReportRow]) -> dict[str, str]:
    """Figures of the table; those that former versions do not know where some row has one."""
    return {
        name: words
        for name, words in METRICS.items()
        if name.startswith(("image_", "pixel_A")) or any(name in row.honest for row in rows)
    }


def _side_by_side(rows: Sequence[ReportRow]) -> list[ReportRow]:
    """Rows of one test set together, K ascending, what K does not change last."""
    places = list(dict.fromkeys((row.tested_on, row.trained_on) for row in rows))

    def order(row: ReportRow) -> tuple[int, bool, int]:
        where = places.index((row.tested_on, row.trained_on))
        return where, row.k_shot is None, row.k_shot or 0

    return sorted(rows, key=order)


def _published(rows: Sequence[ReportRow], metric: str) -> dict[int, list[dict[str, Any]]]:
    """Published figures of a metric, by the row's position; rows without any are absent."""
    found = {
        i: [cell for cell in row.published if cell["metric"] == metric]
        for i, row in enumerate(rows)
    }
    return {i: cells for i, cells in found.items() if cells}


def _progress(grid: ComparisonGrid, records: Sequence[CellRecord]) -> dict[str, Any]:
    known = {record.key for record in records}
    return {
        "planned": len(grid.cells),
        "done": sum(record.status == "done" for record in records),
        "failures": [record for record in records if record.status == "failed"],
        "waiting": [cell for cell in grid.cells if cell.key not in known],
    }


def _origin(
    grid: ComparisonGrid, config: str, records: Sequence[CellRecord], names: bool
) -> dict[str, Any]:
    """How to reproduce the page: command, versions, hashes, machines, config."""
    versions: dict[str, set[str]] = {name: {of} for name, of in grid.versions.items()}
    hashes: dict[str, set[str]] = {}
    for record in records:
        for name, version in record.determined_by.versions.items():
            versions.setdefault(name, set()).add(version)
        for name, digest in record.determined_by.data.items():
            hashes.setdefault(name, set()).add(digest)
    measured = [record.measured for record in records if record.status == "done"]
    machines = {f"{one.machine}, {one.device}" for one in measured}
    return {
        "command": grid.command if names else without_paths(grid.command),
        "versions": {name: sorted(several) for name, several in versions.items()},
        "hashes": {name: sorted(several) for name, several in hashes.items()},
        "machines": sorted(machines),
        "config": config if names else config_without_paths(config),
    }
