"""Ours beside theirs: which figures, which means, how sure, and why there are none."""

import csv
import html
import math
import re
from dataclasses import replace

import pytest
from paper_tables import TABLES, config_of

from anomalib_medclip.papers.beside import CHOSEN_ON_TEST, beside
from anomalib_medclip.papers.inputs import Missing
from anomalib_medclip.papers.lines import trainings
from anomalib_medclip.papers.page import as_csv, as_page, printed_figures
from anomalib_medclip.report.rows import Estimate, ReportRow

NOTHING = Missing({}, {})
VALUES = {"image_AUROC": 80, "pixel_AUROC": 90}


def rows_of(config, **changed):
    """A row of every test that a comparison plans, image AUROC 0.80 and pixels 0.90, looked at."""
    given = {
        "honest": {
            "image_AUROC": Estimate(0.8, 0.7, 0.86, (0.8,)),
            "pixel_AUROC": Estimate(0.9, 0.88, 0.92, (0.9,)),
        },
        "oracle": {
            "image_AUROC": Estimate(0.82, None, None, (0.82,)),
            "pixel_AUROC": Estimate(0.91, None, None, (0.91,)),
        },
        "failed": 0,
        "untrained": False,
        **changed,
    }
    return [
        ReportRow(
            model=one.model, normals=one.normals, kind="method", note="", trained_on=one.trained_on,
            tested_on=tested, k_shot=one.k_shot, draws=one.cells, gap={}, **given,
        )
        for one in trainings(config)
        for tested in one.tests
    ]  # fmt: skip


def of(name, rows=None, lacking=NOTHING, **options):
    config = config_of(name)
    rows = rows_of(config) if rows is None else rows
    return beside(TABLES[name], config, rows, lacking, **options)


def one_of(found, row, dataset, metric="image_AUROC", **more):
    (cell,) = [
        one
        for one in found
        if (one.model, one.printed.dataset, one.printed.metric) == (row, dataset, metric)
        and all(getattr(one.printed, name) == value for name, value in more.items())
    ]
    return cell


@pytest.mark.parametrize("name", TABLES)
def test_every_figure_that_is_planned_has_ours(name):
    config = config_of(name)
    for one in of(name):
        if one.model not in config.models:
            assert one.state == "not run: no model"
        elif one.state != "done":
            assert (one.model, one.state) == ("VCP-CLIP", "not run: learns from masks alone")
        else:
            values = [VALUES[part.metric] for part in TABLES[name].parts(one.printed)]
            assert one.fixed.value == pytest.approx(sum(values) / len(values))


def test_the_difference_has_the_interval_of_ours():
    found = one_of(of("mvfa-table1"), "MVFA", "Brain")
    assert found.printed.value == 92.44
    assert found.difference == pytest.approx((80 - 92.44, 70 - 92.44, 86 - 92.44))
    assert found.authors.value == pytest.approx(82)


def test_the_authors_epoch_choice_is_taken_where_it_is_asked_for():
    found = one_of(of("mvfa-table1", authors_epoch_choice=True), "MVFA", "Brain")
    assert found.difference == (pytest.approx(82 - 92.44), None, None)
    assert found.fixed.value == pytest.approx(80)


def test_where_nobody_looked_at_the_test_images_there_is_no_authors_epoch():
    config = config_of("mvfa-table1")
    never = one_of(of("mvfa-table1", rows_of(config, oracle={})), "MVFA", "Brain")
    assert (never.authors, never.state) == (None, "done")
    asked = of("mvfa-table1", rows_of(config, oracle={}), authors_epoch_choice=True)
    assert one_of(asked, "MVFA", "Brain").difference is None
    page = as_page(TABLES["mvfa-table1"], asked, NOTHING, "command", True)
    chosen = [one for one in asked if one.state == "done" and one.printed.row in CHOSEN_ON_TEST]
    assert page.count("not looked at") == len(chosen) > 0


def test_an_epoch_is_the_authors_only_where_they_choose_it_on_the_test_images():
    found = of("mvfa-table1", authors_epoch_choice=True)
    kept_last = one_of(found, "DRA", "Brain")
    assert kept_last.authors is None
    assert kept_last.difference == one_of(of("mvfa-table1"), "DRA", "Brain").difference
    assert one_of(found, "BGAD", "Brain", "pixel_AUROC").authors.value == pytest.approx(91)


def test_a_figure_beside_which_two_models_stand_is_one():
    found = of("mvfa-table1")
    assert printed_figures(found) == len(TABLES["mvfa-table1"].printed) < len(found)


def test_a_mean_over_categories_and_sets_is_surer_than_each():
    found = of("mvfa-table3")
    mvtec, bmad = (one_of(found, "MVFA", dataset).fixed for dataset in ("MVTecAD", "mean_BMAD"))
    assert (mvtec.value - mvtec.low, mvtec.high - mvtec.value) == pytest.approx(
        (10 / math.sqrt(15), 6 / math.sqrt(15))
    )
    assert bmad.value - bmad.low == pytest.approx(10 / math.sqrt(6))


def test_images_and_pixels_of_a_set_count_as_one():
    found = one_of(of("iqeclip-table2"), "IQE-CLIP", "mean_BMAD", "image_and_pixel_AUROC").fixed
    assert found.value == pytest.approx((6 * 80 + 3 * 90) / 9)
    assert found.value - found.low == pytest.approx(math.sqrt(3 * (10 + 2) ** 2 + 3 * 10**2) / 9)


def test_a_mean_of_sets_of_which_one_is_missing_is_none():
    lacking = Missing({"liver": "no folder"}, {})
    config = config_of("mvfa-table5")
    rows = [row for row in rows_of(config) if row.tested_on != "liver"]
    assert {one.state for one in of("mvfa-table5", rows, lacking)} == {"not run: no data"}


def test_zero_shot_and_few_shot_of_the_same_set_are_kept_apart():
    config = config_of("iqeclip-table3")
    rows = [row for row in rows_of(config) if row.k_shot is None]
    found = of("iqeclip-table3", rows)
    states = {(one.printed.setting, one.state) for one in found}
    assert states == {("zero-shot", "done"), ("few-shot", "not run yet")}


def test_a_cross_dataset_figure_is_of_its_training_set():
    config = config_of("madclip-table3")
    rows = [row for row in rows_of(config) if row.trained_on == "resc"]
    found = of("madclip-table3", rows)
    done = {(one.printed.trained_on, one.printed.dataset) for one in found if one.state == "done"}
    assert done == {("Retina_RESC", "OCTDL")}


@pytest.mark.parametrize(
    ("changed", "state"),
    [
        ({"honest": {}, "oracle": {}, "failed": 1}, "failed"),
        ({"failed": 1}, "failed"),
        ({"honest": {}, "oracle": {}}, "undefined"),
    ],
)
def test_what_failed_or_is_undefined_says_so(changed, state):
    config = config_of("iqeclip-table1")
    assert {one.state for one in of("iqeclip-table1", rows_of(config, **changed))} == {state}


def test_what_is_half_done_is_not_done():
    config = config_of("mediclip-table3")
    rows = [replace(row, draws=2) for row in rows_of(config)]
    states = {one.state for one in of("mediclip-table3", rows)}
    assert states == {"not run yet: 2 of 3 trainings are"}


def test_what_is_scaled_by_the_whole_test_set_is_marked():
    table, found = TABLES["mvfa-table1"], of("mvfa-table1")
    assert {one.model for one in found if one.transductive} == {"MVFA (transductive)"}
    page = as_page(table, found, NOTHING, "command", False)
    assert "every image is scored by itself, but of rows marked ‡." in page
    assert re.findall(r'scope="row">([^<]*‡)', page) == ["MVFA (transductive)‡"]
    lines = csv.DictReader(as_csv(table, found).splitlines())
    assert {line["model"] for line in lines if line["transductive"] == "True"} == {
        "MVFA (transductive)"
    }
    others = [one for one in found if not one.transductive]
    assert "‡" not in as_page(table, others, NOTHING, "command", False)


@pytest.mark.parametrize("name", TABLES)
def test_a_page_says_what_is_done_otherwise(name):
    page = html.unescape(as_page(TABLES[name], of(name), NOTHING, "command", False))
    assert "Thresholds are not cross-fitted" in page
    assert ("MVTec AD has no lists" in page) == (name == "mvfa-table3")
    assert ("VCP-CLIP learns from masks alone" in page) == (name in VCPCLIP)


VCPCLIP = {"iqeclip-table2", "iqeclip-table7"}


def test_what_is_done_stays_so_without_data():
    config = config_of("mvfa-table1")
    lacking = Missing(dict.fromkeys(config.data, "gone"), {"MVFA": "gone"})
    assert one_of(of("mvfa-table1", lacking=lacking), "MVFA", "Brain").state == "done"


def test_random_weights_are_said():
    config = config_of("iqeclip-table1")
    found = of("iqeclip-table1", rows_of(config, untrained=True))
    assert all(one.untrained for one in found)
    page = as_page(TABLES["iqeclip-table1"], found, NOTHING, "command", False)
    assert "these figures mean nothing" in page
