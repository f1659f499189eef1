"""Rows and charts of made-up results, as plain as can be, and the page made of them."""

from statistics import fmean

from compare_results import write_results

from anomalib_medclip.report.columns import METRICS
from anomalib_medclip.report.gallery import pack
from anomalib_medclip.report.page import render
from anomalib_medclip.report.rows import Chart, Estimate, ReportRow

PUBLISHED = {
    "paper": "MVFA", "table": 2, "method": "MVFA", "metric": "image_AUROC", "value": 92.44,
    "spread": float("nan"), "protocol": "mvfa-few", "note": "",
}  # fmt: skip


def records_of(store):
    found = (store.record(cell.key) for cell in store.grid().cells)
    return [record for record in found if record]


def rows_of(records):
    """One row a finished cell of the first draw; its interval is made up."""
    rows = []
    for record in records:
        cell = record.cell
        if record.status != "done" or cell.draw:
            continue
        (test,) = record.tests
        figures = {
            protocol: {name: found.get(name) for name in METRICS}
            for protocol, found in (("honest", test.honest), ("oracle", test.oracle))
        }
        estimates = {
            protocol: {
                name: Estimate(value, value - 0.01, value + 0.01, (value,), "patients")
                for name, value in of.items() if value is not None
            }
            for protocol, of in figures.items()
        }  # fmt: skip
        gap = {
            name: Estimate(estimates["oracle"][name].mean - honest.mean, None, None, ())
            for name, honest in estimates["honest"].items() if name in estimates["oracle"]
        }  # fmt: skip
        rows.append(ReportRow(
            model=cell.model, normals=cell.normals, kind=cell.kind, note=cell.note,
            untrained=record.facts.untrained, trained_on=cell.data,
            tested_on=test.data, k_shot=None if cell.normals == "train" else cell.k_shot,
            draws=2, failed=0, **estimates, gap=gap, epoch="last epoch",
            published=(PUBLISHED,) if cell.model == "MVFA" else (),
            cost={"seconds_per_image": record.measured.seconds_per_image},
        ))  # fmt: skip
    return rows


def chart(rows):
    """A bar a row."""
    bars = {
        "type": "bar",
        "x": [f"{row.model}, {row.k_shot}" for row in rows],
        "y": [fmean(row.honest["image_AUROC"].values) for row in rows],
    }
    alt = "Bars of image AUROC."
    return Chart("gap_bars", "gap", "Bars", "A bar a row.", alt, {"data": [bars], "layout": {}})


def page_of(store, names=False, **changes):
    """The page of a store's records, with some of its parts changed."""
    grid, records = store.grid(), records_of(store)
    rows = rows_of(records)
    parts = {
        "grid": grid, "config": (store.folder / "config.yaml").read_text(), "records": records,
        "rows": rows, "charts": [chart(rows)], "gallery": pack(grid, store, names), "names": names,
    }  # fmt: skip
    return render(**(parts | changes))


def write_page(folder):
    """Write made-up results and their page; returns the page's path."""
    path = folder / "report.html"
    path.write_text(page_of(write_results(folder)), encoding="utf-8")
    return path
