"""Charts show what the rows and records say, in numbers and in words, and nothing else."""

import json

import numpy as np
import pytest
from compare_results import write_results
from plotly import graph_objects as go
from report_page import records_of
from right_records import failed_record, grid_of, right_record, typed, with_figure
from sklearn.metrics import auc

from anomalib_medclip.metrics import reliability_curve
from anomalib_medclip.report.charts import charts_of
from anomalib_medclip.report.drawing import styles_of
from anomalib_medclip.report.numbers import percent
from anomalib_medclip.report.summary import summarise

RIGHT = [
    with_figure(right_record(model, draw, skill, k=k), "pixel_AUROC", 0.9)
    for model, skill in (("MVFA", 2.0), ("MadCLIP", 1.0))
    for k in (4, 16)
    for draw in (0, 1)
]


def drawn(records, **grid):
    grid = grid_of(records, **grid)
    records = typed(records)
    return {chart.name: chart for chart in charts_of(summarise(grid, records), records)}


def traces(chart, name, axis="x"):
    return [
        trace
        for trace in chart.figure["data"]
        if trace.get("name") == name and trace.get("xaxis", "x") == axis
    ]


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    """Rows, records and charts of made-up results."""
    store = write_results(tmp_path_factory.mktemp("results"))
    grid, records = store.grid(), records_of(store)
    rows = summarise(grid, records)
    return rows, records, charts_of(rows, records)


def test_a_chart_is_plain_small_json_that_plotly_takes(made_up):
    rows, records, found = made_up
    assert {chart.section for chart in found} == {"gap", "curves", "calibration", "shots", "cost"}
    assert len({chart.name for chart in found}) == len(found) == 12
    for chart in found:
        text = json.dumps(chart.figure, allow_nan=False)
        assert len(text) < 60_000
        assert "bdata" not in text
        go.Figure(chart.figure)
        assert chart.name.replace("_", "").isalnum()
        assert min(map(len, (chart.title, chart.caption, chart.alt))) > 10
    assert charts_of(rows, records) == found


def test_the_page_decides_on_the_colours_of_text_and_ground(made_up):
    for chart in made_up[2]:
        layout = chart.figure["layout"]
        assert "template" not in layout
        assert "color" not in layout.get("font", {})
        assert layout["paper_bgcolor"] == layout["plot_bgcolor"] == "rgba(0,0,0,0)"


def test_trivial_scores_have_no_calibration_curve():
    brightness = right_record("brightness", kind="trivial", k=16)
    chart = drawn([*RIGHT, brightness])["calibration_heads"]
    assert "brightness" not in json.dumps(chart)


def test_sets_that_differ_in_a_comma_have_charts_of_their_own():
    both = [
        right_record("MVFA", data=name, tests=[name], skill=skill)
        for name, skill in (("set a", 1), ("set_a", 3))
    ]
    grid, records = grid_of(both), typed(both)
    found = charts_of(summarise(grid, records), records)
    assert len({chart.name for chart in found}) == len(found)


def test_no_patient_and_no_file_is_in_a_chart(made_up):
    _, records, charts = made_up
    text = json.dumps(charts)
    names = {name for r in records for t in r.tests for name in t.images.name}
    assert names
    assert not [name for name in names if name in text or name.split("_")[0] + "_" in text]


def test_backbones_with_random_weights_are_said_to_be_so(made_up):
    for chart in made_up[2]:
        assert "† Backbone with random weights." in chart.caption
    assert not any("†" in chart.caption + chart.alt for chart in drawn(RIGHT).values())


def test_no_two_rows_look_alike_even_without_colour(made_up):
    found = styles_of(made_up[0]).values()
    assert len({look.symbol for look in found}) == len({look.glyph for look in found}) == len(found)


def test_the_gap_shows_both_protocols_with_the_interval_of_the_honest_one():
    row = summarise(grid_of(RIGHT), typed(RIGHT))[0]
    chart = drawn(RIGHT)["gap_heads"]
    (honest,), (oracle,) = traces(chart, "honest"), traces(chart, "oracle")
    assert honest["y"][0] == oracle["y"][0] == "MVFA, K = 4"
    assert honest["x"][0] == pytest.approx(row.honest["image_AUROC"].mean, abs=1e-4)
    assert oracle["x"][0] == pytest.approx(row.oracle["image_AUROC"].mean, abs=1e-4)
    lines = [trace["x"][:2] for trace in chart.figure["data"] if trace["mode"] == "lines"]
    honest = row.honest["image_AUROC"]
    assert [max(0, honest.low), min(1, honest.high)] == pytest.approx(lines[1], abs=1e-4)
    assert f"image AUROC honest {percent(honest.mean)} %" in chart.alt
    assert f"oracle {percent(row.oracle['image_AUROC'].mean)} %" in chart.alt


def test_curves_hold_the_area_that_the_rows_say():
    row = summarise(grid_of(RIGHT), typed(RIGHT))[1]
    chart = drawn(RIGHT)["curves_image_heads"]
    assert "K = 16" in chart.title
    (roc,), (precision,) = traces(chart, "MVFA"), traces(chart, "MVFA", "x2")
    area = auc(roc["x"], roc["y"])
    assert area == pytest.approx(row.honest["image_AUROC"].mean, abs=0.01)
    area = auc(precision["x"], precision["y"])
    assert area == pytest.approx(row.honest["image_AP"].mean, abs=0.01)
    assert f"image AUROC {percent(row.honest['image_AUROC'].mean)} %" in chart.alt


def test_the_band_reaches_from_the_lowest_to_the_highest_draw():
    chart = drawn(RIGHT)["curves_image_heads"]
    bands = [trace for trace in chart.figure["data"] if trace.get("fill")]
    mean = traces(chart, "MVFA")[0]["y"][1:]
    half = len(mean)
    top, bottom = bands[0]["y"][:half], bands[0]["y"][half:][::-1]
    middle = (np.array(top) + bottom) / 2  # of two draws
    np.testing.assert_allclose(middle, mean, atol=2e-4)
    one = drawn([record for record in RIGHT if record["cell"]["draw"] == 0])
    assert not [t for t in one["curves_image_heads"].figure["data"] if t.get("fill")]


def test_curves_of_pixels_go_through_their_points(made_up):
    found = {chart.name: chart for chart in made_up[2]}
    (roc,) = traces(found["curves_pixel_heads"], "MVFA†")
    expected = np.interp(roc["x"][1:], np.linspace(0, 1, 50), np.linspace(0, 1, 50) ** 0.3)
    np.testing.assert_allclose(roc["y"][1:], expected, atol=2e-4)
    assert not traces(found["curves_pixel_heads"], "mean intensity")


def test_points_of_pixels_may_come_in_any_order():
    points = {
        "false_positive_rate": [0.0, 0.0, 0.1, 0.2, 0.5, 1.0],
        "recall": [0.0, 0.4, 0.4, 1.0, 1.0, 1.0],
        "precision": [1.0, 0.9, 0.6, 0.5, 0.4, 0.3],
    }
    turned = {name: values[::-1] for name, values in points.items()}
    found = []
    for curve in (points, turned):
        record = right_record("MVFA")
        record["tests"][0]["pixel_curves"] = curve
        found.append(drawn([record])["curves_pixel_heads"])
    assert found[0] == found[1]
    ((roc,), (precision,)) = traces(found[0], "MVFA"), traces(found[0], "MVFA", "x2")
    at = dict(zip(precision["x"], precision["y"], strict=True))
    assert (at[0.0], at[0.36], at[0.49], at[1.0]) == (0.9, 0.9, 0.5, 0.5)
    assert dict(zip(roc["x"], roc["y"], strict=True))[0.49] == 1.0


def test_precision_begins_with_the_first_abnormal_image():
    record = right_record("MVFA")
    images = record["tests"][0]["images"]
    images["score"][images["label"].index(0)] = 2.0  # above every abnormal one
    (precision,) = traces(drawn([record])["curves_image_heads"], "MVFA", "x2")
    assert precision["y"][0] == 0.5


def test_calibration_pools_the_draws():
    chart = drawn(RIGHT)["calibration_heads"]
    images = [
        r["tests"][0]["images"] for r in RIGHT if r["key"].startswith("MVFA-support-heads-16")
    ]
    scores, labels = (
        [value for one in images for value in one[part]] for part in ("score", "label")
    )
    curve = reliability_curve(scores, labels, bins=5)
    filled = curve.scores > 0
    line, counts = chart.figure["data"][1:3]
    assert line["x"] == pytest.approx(curve.mean_score[filled], abs=1e-4)
    assert line["y"] == pytest.approx(curve.abnormal[filled], abs=1e-4)
    assert counts["y"] == [int(text) for text in counts["text"]] == curve.scores.tolist()
    error = percent(reliability_curve(scores, labels).error)  # in the bins of the table's
    assert f"MVFA: calibration error of all draws together {error} %" in chart.alt


def test_scores_that_are_no_shares_are_left_out_of_the_calibration_and_this_is_said():
    size = right_record("size", kind="baseline", k=16)
    images = size["tests"][0]["images"]
    images["score"] = [100 * score for score in images["score"]]
    chart = drawn([*RIGHT, size])["calibration_heads"]
    assert "Not drawn, as their scores leave 0 to 1: size." in chart.caption
    assert not traces(chart, "size")
    assert "calibration_heads" not in drawn([size])


def test_shots_stand_at_their_k_with_the_papers_beside():
    normals = right_record("PatchCore", normals="train", kind="baseline")
    chart = drawn([*RIGHT, normals], published={"heads": "Brain"})["shots_heads"]
    rows = summarise(grid_of(RIGHT), typed(RIGHT))
    _, line = traces(chart, "MVFA")  # after its intervals
    assert line["x"] == [4, 16]
    means = [row.honest["image_AUROC"].mean for row in rows[:2]]
    assert line["y"] == pytest.approx(means, abs=1e-4)
    (paper,) = traces(chart, "MVFA in MadCLIP's paper")
    assert (paper["x"][0], paper["y"][0]) == (4, 0.9244)
    assert "92.4 % in MVFA" in chart.alt
    (flat,) = traces(chart, "PatchCore, all normals")
    assert (flat["x"], flat["line"]["dash"]) == ([4, 16], "dot")


def test_one_k_has_no_chart_of_accuracy_against_k():
    assert "shots_heads" in drawn(RIGHT)
    assert "shots_heads" not in drawn([r for r in RIGHT if r["cell"]["k_shot"] == 4])


def test_cost_leaves_out_what_takes_no_time():
    free = right_record("size", kind="trivial", k=16)
    free["measured"]["train_seconds"] = 0.0
    chart = drawn([*RIGHT, free])["cost_heads"]
    row = summarise(grid_of(RIGHT), typed(RIGHT))[1]
    (bubble,) = traces(chart, "MVFA")
    assert bubble["x"] == pytest.approx([row.cost["seconds_per_image"]], rel=1e-3)
    assert bubble["marker"]["size"] == pytest.approx([row.cost["model_mb"]], rel=1e-3)
    assert len(traces(chart, "size")) == 1
    assert not traces(chart, "size", "x2")


def test_where_all_failed_there_is_nothing_to_draw():
    assert drawn([failed_record(record) for record in RIGHT]) == {}
    assert drawn([]) == {}
