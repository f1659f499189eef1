"""The best row is marked where the intervals support it against every other row."""

import pytest
from right_records import grid_of, right_record, with_figure

from anomalib_medclip.report.summary import summarise


def best_of(*records):
    return {row.model: set(row.best) for row in summarise(grid_of(records), records)}


def draws(model, values, metric="image_AUROC", **cell):
    """A cell for each value, of this figure only."""
    records = [right_record(model, draw, **cell) for draw in range(len(values))]
    only = [with_figure(record, "image_AP", None) for record in records]
    only = [with_figure(record, "image_AUROC", None) for record in only]
    return [with_figure(r, metric, v) for r, v in zip(only, values, strict=True)]


def test_a_clear_winner_over_draws_is_marked():
    records = draws("MVFA", (0.90, 0.91, 0.92)) + draws("MadCLIP", (0.80, 0.80, 0.82))
    assert best_of(*records) == {"MVFA": {"image_AUROC"}, "MadCLIP": set()}


def test_draws_are_paired_so_that_hard_draws_hide_no_winner():
    records = draws("MVFA", (0.60, 0.75, 0.91)) + draws("MadCLIP", (0.58, 0.735, 0.89))
    assert best_of(*records)["MVFA"] == {"image_AUROC"}


def test_overlapping_intervals_mark_nobody():
    records = draws("MVFA", (0.90, 0.80, 0.95)) + draws("MadCLIP", (0.80, 0.90, 0.82))
    assert best_of(*records) == {"MVFA": set(), "MadCLIP": set()}


def test_a_tie_marks_nobody():
    records = draws("MVFA", (0.9, 0.8)) + draws("MadCLIP", (0.9, 0.8))
    assert best_of(*records) == {"MVFA": set(), "MadCLIP": set()}


def test_every_other_row_must_be_beaten():
    winner, loser = draws("MVFA", (0.90, 0.91)), draws("MadCLIP", (0.70, 0.72))
    near = draws("mean intensity", (0.93, 0.84), kind="trivial")
    assert best_of(*winner, *loser)["MVFA"] == {"image_AUROC"}
    assert best_of(*winner, *loser, *near)["MVFA"] == set()


def test_a_trivial_baseline_may_be_the_best():
    records = draws("MVFA", (0.7, 0.71)) + draws("size", (0.9, 0.92), kind="trivial")
    assert best_of(*records) == {"MVFA": set(), "size": {"image_AUROC"}}


def test_a_row_alone_is_not_the_best():
    records = draws("MVFA", (0.90, 0.91)) + draws("MadCLIP", (0.7, 0.7), k=16)
    records += draws("PatchCore", (0.6, 0.6), normals="train", kind="baseline")
    assert best_of(*records) == {"MVFA": set(), "MadCLIP": set(), "PatchCore": set()}


def test_of_the_calibration_error_less_is_better():
    records = draws("MVFA", (0.30, 0.31), "image_ECE") + draws("MadCLIP", (0.1, 0.1), "image_ECE")
    assert best_of(*records) == {"MVFA": set(), "MadCLIP": {"image_ECE"}}


def test_a_trivial_baseline_is_not_the_best_calibrated():
    records = draws("MVFA", (0.3, 0.31), "image_ECE") + draws("MadCLIP", (0.1, 0.1), "image_ECE")
    constant = draws("size", (0.0, 0.0), "image_ECE", kind="trivial")
    assert best_of(*records, *constant)["size"] == set()
    assert best_of(*records, *constant)["MadCLIP"] == {"image_ECE"}


def test_draws_that_change_nothing_decide_nothing():
    ours = draws("MVFA", (0.9, 0.9, 0.9), "pixel_AUROC")
    theirs = draws("MadCLIP", (0.89, 0.89, 0.89), "pixel_AUROC")
    assert best_of(*ours, *theirs) == {"MVFA": set(), "MadCLIP": set()}
    near = draws("MVFA", (0.60, 0.61), skill=1) + draws("MadCLIP", (0.59, 0.60), skill=1)
    assert best_of(*near) == {"MVFA": set(), "MadCLIP": set()}, "patients do not support it"
    far = draws("MVFA", (0.9, 0.9), skill=5) + draws("MadCLIP", (0.6, 0.6), skill=0.5)
    assert best_of(*far) == {"MVFA": {"image_AUROC"}, "MadCLIP": set()}


def test_those_trained_on_other_data_do_not_compete():
    records = [
        *draws("MVFA", (0.8, 0.81), data="liver"),
        *draws("MadCLIP", (0.7, 0.72), data="liver"),
        *draws("MediCLIP", (0.9, 0.92)),
    ]
    assert best_of(*records) == {"MVFA": {"image_AUROC"}, "MadCLIP": set(), "MediCLIP": set()}


def test_seeds_of_one_draw_are_decided_by_patients():
    ours = [right_record("MVFA", skill=5, seed=seed) for seed in range(3)]
    theirs = [right_record("MadCLIP", skill=0.5, seed=seed) for seed in range(2)]
    assert best_of(*ours, *theirs)["MVFA"] == {"image_AUROC", "image_AP"}


def test_one_draw_is_decided_by_patients():
    ours, theirs = right_record("MVFA", skill=5), right_record("MadCLIP", skill=0.5)
    assert best_of(ours, theirs) == {"MVFA": {"image_AUROC", "image_AP"}, "MadCLIP": set()}
    near = right_record("A", skill=1.2), right_record("B", skill=1.0)
    assert best_of(*near) == {"A": set(), "B": set()}


def test_one_draw_decides_nothing_without_scores_of_the_figure():
    ours, theirs = draws("MVFA", (0.99,), "pixel_AUROC"), draws("MadCLIP", (0.5,), "pixel_AUROC")
    assert best_of(*ours, *theirs) == {"MVFA": set(), "MadCLIP": set()}


@pytest.mark.parametrize("part", ["name", "patient", "label"])
def test_one_draw_decides_nothing_on_other_images(part):
    ours, theirs = right_record("MVFA", skill=5), right_record("MadCLIP", skill=0.5)
    images = theirs["tests"][0]["images"]
    images[part] = images[part][1:] + images[part][:1]
    assert best_of(ours, theirs) == {"MVFA": set(), "MadCLIP": set()}


def test_one_draw_against_two_decides_nothing():
    ours = right_record("MVFA", skill=5)
    theirs = [right_record("MadCLIP", draw, skill=0.5) for draw in (0, 1)]
    assert best_of(ours, *theirs) == {"MVFA": set(), "MadCLIP": set()}


def test_one_patient_decides_nothing():
    records = [right_record("MVFA", skill=5), right_record("MadCLIP", skill=0.5)]
    for record in records:
        record["tests"][0]["images"]["patient"] = [0] * 80
    assert best_of(*records) == {"MVFA": set(), "MadCLIP": set()}
