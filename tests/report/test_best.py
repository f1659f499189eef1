"""The best row is marked where patients and draws support it against every other row."""

import pytest
from right_records import failed_record, grid_of, right_record, typed, with_figure

from anomalib_medclip.components.threshold import learnt_from
from anomalib_medclip.report.summary import summarise


def best_of(*records, **grid):
    return {row.model: set(row.best) for row in summarise(grid_of(records, **grid), typed(records))}


def caveats_of(*records):
    return {row.model: row.caveats for row in summarise(grid_of(records), typed(records))}


def draws(model, skill, count=4, **cell):
    """A cell for each draw."""
    return [right_record(model, draw, skill, **cell) for draw in range(count)]


def changed(records, part, change):
    """The same records, a part of their images or of what is said of their tests changed."""
    for record in records:
        for test in record["tests"]:
            if part in test:
                test[part] = change(test[part])
            else:
                test["images"][part] = change(test["images"][part])
    return records


def test_a_clear_winner_is_marked_and_nobody_else():
    records = draws("MVFA", 5) + draws("MadCLIP", 0.5)
    assert best_of(*records) == {"MVFA": {"image_AUROC", "image_AP"}, "MadCLIP": set()}


def test_what_patients_may_have_decided_marks_nobody():
    """Each draw alone puts MVFA first by little, and Student's t over draws would be certain."""
    records = draws("MVFA", 1.2) + draws("MadCLIP", 1.0)
    steady = [
        with_figure(record, "image_AUROC", value + 0.001 * record["cell"]["draw"])
        for record, value in zip(records, [0.72] * 4 + [0.70] * 4, strict=True)
    ]
    assert best_of(*steady) == {"MVFA": set(), "MadCLIP": set()}


def test_supports_that_differ_mark_nobody():
    """Patients are sure of either draw, but the next support may turn it round."""
    ours = [right_record("MVFA", draw, skill) for draw, skill in enumerate((6, 0.5, 6, 0.5))]
    assert best_of(*ours, *draws("MadCLIP", 0.5)) == {"MVFA": set(), "MadCLIP": set()}


def test_every_other_row_must_be_beaten():
    records = draws("MVFA", 5) + draws("MadCLIP", 0.5)
    near = draws("mean intensity", 4.8, kind="trivial")
    assert "image_AUROC" in best_of(*records)["MVFA"]
    assert best_of(*records, *near)["MVFA"] == set()


def test_a_trivial_baseline_may_be_the_best():
    records = draws("MVFA", 0.5) + draws("size", 5, kind="trivial")
    assert best_of(*records) == {"MVFA": set(), "size": {"image_AUROC", "image_AP"}}


@pytest.mark.parametrize("facts", [{"untrained": True}, {"epochs": 4, "own_epochs": 50}])
def test_nothing_is_ranked_beside_random_weights_or_a_training_cut_short(facts):
    records = draws("MVFA", 5) + draws("MadCLIP", 0.5)
    assert "image_AUROC" in best_of(*records)["MVFA"]
    for record in records[-4:]:
        record["facts"] |= facts
    assert best_of(*records) == {"MVFA": set(), "MadCLIP": set()}


def test_a_row_alone_is_not_the_best():
    records = draws("MVFA", 5) + draws("MadCLIP", 0.5, k=16)
    records += draws("PatchCore", 0.5, normals="train", kind="baseline")
    assert best_of(*records) == {"MVFA": set(), "MadCLIP": set(), "PatchCore": set()}


def test_those_trained_on_other_data_do_not_compete():
    records = [
        *draws("MVFA", 5, data="liver"),
        *draws("MadCLIP", 0.5, data="liver"),
        *draws("MediCLIP", 7),
    ]
    found = best_of(*records)
    assert "image_AUROC" in found["MVFA"]
    assert found["MediCLIP"] == set()


@pytest.mark.parametrize(
    ("count", "said"),
    [(1, "for this one support only"), (2, "too sure if supports differ"), (3, "too sure if")],
)
def test_fewer_than_four_draws_mark_nobody_and_say_so(count, said):
    records = draws("MVFA", 5, count) + draws("MadCLIP", 0.5, count)
    assert best_of(*records) == {"MVFA": set(), "MadCLIP": set()}
    assert any(said in sentence for sentence in caveats_of(*records)["MVFA"])
    assert not caveats_of(*draws("MVFA", 5, 4, patients=20))["MVFA"]


def test_where_no_support_is_drawn_one_run_may_decide():
    zero = {"facts": {"zero_shot": True}, "k": None}
    records = draws("MVFA", 5, 1, **zero) + draws("MadCLIP", 0.5, 1, **zero)
    assert "image_AUROC" in best_of(*records)["MVFA"]
    assert not any("support" in sentence for sentence in caveats_of(*records)["MVFA"])


def test_what_learns_from_all_normal_images_has_no_one_support():
    whole = {"kind": "baseline", "normals": "train", "k": None}
    said = caveats_of(*draws("PatchCore", 5, 1, **whole), *draws("MVFA", 5, 1))
    assert not any("support" in sentence for sentence in said["PatchCore"])
    assert any("for this one support only" in sentence for sentence in said["MVFA"])


def test_fewer_than_five_patients_are_too_few_to_compare():
    records = draws("MVFA", 6, patients=4) + draws("MadCLIP", 0.1, patients=4)
    assert best_of(*records) == {"MVFA": set(), "MadCLIP": set()}
    assert "Fewer than 5 patients of a class: too few to compare." in caveats_of(*records)["MVFA"]
    more = draws("MVFA", 6, patients=8) + draws("MadCLIP", 0.1, patients=8)
    assert "image_AUROC" in best_of(*more)["MVFA"]


def test_few_patients_say_how_close_methods_may_lie():
    few = caveats_of(*draws("MVFA", 3, patients=8), *draws("MadCLIP", 1, patients=8))
    (reach,) = few["MVFA"]
    assert reach.startswith("8 patients cannot tell apart methods whose image AUROC is closer than")
    assert 3 < int(reach.split("closer than ")[1].split()[0]) < 60
    assert not caveats_of(*draws("MVFA", 3), *draws("MadCLIP", 1))["MVFA"]


@pytest.mark.parametrize("how", ["failed", "not run"])
def test_nothing_is_marked_while_a_cell_of_the_comparison_is_missing(how):
    records, others = draws("MVFA", 5) + draws("MadCLIP", 0.5), draws("MVFA", 5, k=16)
    missing = right_record("MadCLIP", 4, 0.5)
    others += draws("MadCLIP", 0.5, k=16)
    grid = {"cells": [record["cell"] for record in (*records, *others, missing)]}
    if how == "failed":
        others.append(failed_record(missing))
    rows = summarise(grid_of([], **grid), typed([*records, *others]))
    here, there = ([row for row in rows if row.k_shot == k] for k in (4, 16))
    assert [row.best for row in here] == [frozenset()] * 2
    assert all("failed or were not run: no best" in row.caveats[0] for row in here)
    assert "image_AUROC" in there[0].best, "the other comparison is complete"


@pytest.mark.parametrize("part", ["name", "patient", "label"])
def test_other_images_decide_nothing(part):
    records = draws("MVFA", 5) + draws("MadCLIP", 0.5)
    theirs = changed(records[4:], part, lambda whole: whole[1:] + whole[:1])
    assert best_of(*records[:4], *theirs) == {"MVFA": set(), "MadCLIP": set()}


def test_other_draws_decide_nothing():
    ours = draws("MVFA", 5, 5)
    assert best_of(*ours, *draws("MadCLIP", 0.5, 4)) == {"MVFA": set(), "MadCLIP": set()}


def test_one_patient_decides_nothing_and_has_no_interval():
    records = changed(draws("MVFA", 5) + draws("MadCLIP", 0.5), "patient", lambda whole: [0] * 80)
    rows = summarise(grid_of(records), typed(records))
    assert [row.best for row in rows] == [frozenset()] * 2
    assert rows[0].honest["image_AUROC"].low is None
    assert "No interval of image AUROC: a class is of one patient" in rows[0].caveats[0]


def test_images_without_a_patient_are_said_to_be_taken_for_independent():
    records = draws("MVFA", 5)
    for record in records:
        record["tests"][0]["patients"]["unknown"] = 3
    assert "taken for independent" in caveats_of(*records)["MVFA"][0]


def test_records_without_patients_have_no_interval_and_say_so():
    records = draws("MVFA", 5) + draws("MadCLIP", 0.5)
    for record in records:
        for part in ("patients", "influence"):
            del record["tests"][0][part]
        del record["tests"][0]["images"]["called"]
    rows = summarise(grid_of(records), typed(records))
    assert [row.best for row in rows] == [frozenset()] * 2
    assert {row.honest["image_AUROC"].low for row in rows} == {None}
    assert "the records hold nothing of how patients move the figures" in rows[0].caveats[0]


def test_sensitivity_alone_and_calibration_make_nobody_the_best():
    records = draws("MVFA", 5) + draws("MadCLIP", 0.5)
    figures = {"image_Sensitivity": (1.0, 0.5), "image_ECE": (0.1, 0.3), "image_F1": (0.9, 0.4)}
    told = []
    for record in records:
        for metric, values in figures.items():
            ours = record["cell"]["model"] == "MVFA"
            record = with_figure(record, metric, values[0 if ours else 1])
        told.append(record)
    assert best_of(*told)["MVFA"] == {"image_AUROC", "image_AP", "image_F1"}


def test_a_threshold_from_images_learnt_from_is_said_to_be_off_and_which_way():
    records = draws("MVFA", 5) + draws("MadCLIP", 0.5)
    for record in records[-1:]:
        record["facts"]["threshold_from"] = learnt_from(wants_abnormal=True)
    caveats = caveats_of(*records)
    assert not caveats["MVFA"]
    (said,) = caveats["MadCLIP"]
    assert said.startswith("Threshold from images it learnt from; expect it too high")


@pytest.mark.parametrize(
    ("kind", "learns_abnormal", "said"),
    [
        ("method", True, ["Threshold from images it learnt from; expect it too high"]),
        ("baseline", False, ["Threshold from images it learnt from; expect it too low"]),
        ("trivial", False, []),
    ],
)
def test_records_of_0_1_0_say_support_of_images_learnt_from(kind, learns_abnormal, said):
    facts = {"threshold_from": "support", "learns_abnormal": learns_abnormal}
    found = caveats_of(*draws("One", 5, 5, kind=kind, facts=facts))["One"]
    assert [one.partition(", and")[0] for one in found] == said


@pytest.mark.parametrize(("rate", "warned"), [(0.4, True), (0.5, False), (None, False)])
def test_a_threshold_that_is_bad_where_it_was_chosen_is_said_to_be(rate, warned):
    records = draws("MVFA", 5)
    records[0]["facts"]["threshold_rates"] = {"sensitivity": 1.0, "specificity": rate}
    assert any("below one half" in said for said in caveats_of(*records)["MVFA"]) == warned
