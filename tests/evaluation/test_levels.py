"""Figures of images, volumes and patients, against what a hand reckons."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from anomalib_medclip.decisions.aggregation import Aggregation
from anomalib_medclip.decisions.decisions import Decisions
from anomalib_medclip.decisions.reference import Reference
from anomalib_medclip.errors import MetricError
from anomalib_medclip.evaluation.levels import (
    NO_THRESHOLD,
    ImageAnswers,
    figures_of,
    levels_of,
)


def scored(patients, volumes, labels, scores, called=None, areas=None):
    """What a test says of some images."""
    return ImageAnswers(
        paths=[str(number) for number in range(len(scores))], patients=patients, volumes=volumes,
        labels=labels, scores=scores, raw_scores=scores, halved=np.array(scores, dtype=float),
        called=called, areas=areas, unknown=0,
    )  # fmt: skip


def patients_of(scores_of, ill):
    """Images of patients, each a volume; of the ill the first image is abnormal alone."""
    rows = [
        (name, f"{name}.nii", int(name in ill and at == 0), score)
        for name, scores in scores_of.items()
        for at, score in enumerate(scores)
    ]
    return scored(*map(list, zip(*rows, strict=True)))


WARD = {
    "n1": [0.125, 0.25, 0.375, 0.875], "n2": [0.25], "n3": [0.375, 0.125], "n4": [0.375] * 5,
    "n5": [0.125] * 3, "i1": [0.875, 0.875, 0.875, 0.125], "i2": [0.75], "i3": [0.625, 0.375],
    "i4": [0.25] * 4, "i5": [0.625] * 3,
}  # fmt: skip
"""In eighths, of which sums are exact."""

ILL = {"i1", "i2", "i3", "i4", "i5"}
SCORES = [0.875, 0.75, 0.5, 0.25, 0.625, 0.5, 0.25, 0.25, 0.375, 0.125]
TRUTH = [1] * 5 + [0] * 5


def found(images, level, decisions=None):
    return figures_of(level, levels_of(images, decisions)[level], {})


@pytest.mark.parametrize("level", ["patient", "volume"])
def test_a_patient_is_scored_by_his_three_worst_images(level):
    images = patients_of(WARD, ILL)
    units = levels_of(images, None)[level]
    assert (units.label, units.score) == (tuple(TRUTH), pytest.approx(SCORES))
    figures = found(images, level)
    # i1, i2 and i5 are above all five; i3 above four, level with n1; i4 above n5, level with two.
    assert figures[f"{level}_AUROC"].value == pytest.approx((15 + 4.5 + 2) / 25)
    assert figures[f"{level}_AUROC"].value == pytest.approx(roc_auc_score(TRUTH, SCORES))
    assert figures[f"{level}_AP"].value == pytest.approx(average_precision_score(TRUTH, SCORES))
    for one in (figures[f"{level}_AUROC"], figures[f"{level}_AP"]):
        assert 0 < one.low < one.value < one.high <= 1
        assert one.words == ""


def test_figures_at_a_threshold_of_patients_are_those_of_who_is_called_abnormal():
    patients = Reference((0.125, 0.25), (0.5, 0.625), images=(3, 3))
    known = Decisions(references={"patient": patients}, image_threshold=0.5)
    assert known.threshold("patient").value == 0.375  # halfway; n4 lies on it, and not above
    figures = found(patients_of(WARD, ILL), "patient", known)
    called = [score > 0.375 for score in SCORES]
    assert sum(called) == 5  # i1, i2, i3, i5 and n1
    assert figures["patient_Sensitivity"].value == pytest.approx(4 / 5)
    assert figures["patient_Specificity"].value == pytest.approx(4 / 5)
    assert figures["patient_F1"].value == pytest.approx(f1_score(TRUTH, called))
    volumes = found(patients_of(WARD, ILL), "volume", known)
    assert volumes["volume_F1"].value is None
    assert volumes["volume_F1"].words.startswith("too few patients: the model knows none")


def test_a_threshold_of_single_images_is_none_of_patients_with_several():
    known = Decisions(references={"patient": Reference((0.125, 0.25), (0.5, 0.625), images=(1, 1))})
    figures = found(patients_of(WARD, ILL), "patient", known)
    assert figures["patient_Sensitivity"].value is None
    words = figures["patient_Sensitivity"].words
    assert words.startswith(f"{NO_THRESHOLD}: the model was validated on single images")
    alone = {name: scores[:1] for name, scores in WARD.items()}
    assert found(patients_of(alone, ILL), "patient", known)["patient_Sensitivity"].value == 0.8


def test_a_patient_of_two_volumes_is_one_patient_and_two_volumes():
    names = [f"p{n}" for n in range(10)]
    patients = [name for name in names for _ in range(2)]
    volumes = [f"{name}.{side}" for name in names for side in "ab"]
    labels = [int(n >= 10 and n % 2 == 0) for n in range(20)]  # the last five, one volume each
    levels = levels_of(scored(patients, volumes, labels, [0.1 * label for label in labels]), None)
    assert levels["patient"].counts == (5, 5)
    assert levels["volume"].counts == (15, 5)
    assert levels["volume"].patients == (10, 5)
    assert levels["image"].counts == (15, 5)


def test_images_that_are_no_slices_have_no_volumes():
    assert list(levels_of(scored(["a", "b"], ["", ""], [0, 1], [0.1, 0.9]), None)) == [
        "image", "patient",
    ]  # fmt: skip


def test_of_too_few_patients_there_is_no_figure_but_the_word():
    ward = {name: scores for name, scores in WARD.items() if name != "n5"}
    figures = found(patients_of(ward, ILL), "patient")
    assert figures["patient_AUROC"] == (
        None, None, None, "too few patients: 4 normal and 5 abnormal, and 5 of each are needed",
    )  # fmt: skip
    known = Decisions(references={"patient": Reference((0.125, 0.25), (0.5, 0.625), images=(3, 3))})
    figures = found(patients_of(ward, ILL), "patient", known)
    assert figures["patient_Sensitivity"].value == pytest.approx(4 / 5)  # of abnormal ones alone
    assert figures["patient_Specificity"].words == "too few patients: 4 normal, and 5 are needed"


@pytest.mark.parametrize(
    ("ward", "ill"),
    [
        ({"a": [0.9, 0.1], "b": [0.8, 0.2], "c": [0.3]}, {"a", "b"}),
        ({"a": [0.9, 0.1]}, {"a"}),
        ({"a": [0.9, 0.1], "b": [0.5]}, set()),
        ({"a": [0.9]}, {"a"}),
    ],
)
def test_three_patients_have_no_figure_of_patients_and_no_interval_of_images(ward, ill):
    images = patients_of(ward, ill)._replace(
        called=[score > 0.5 for scores in ward.values() for score in scores]
    )
    for level in ("image", "volume", "patient"):
        for name, one in found(images, level).items():
            assert one.low is one.high is None, name
            if level != "image" or len(set(images.labels)) == 1:
                assert one.value is None, name
            if one.value is not None or "AUROC" in name:
                assert one.words.startswith("too few patients"), name


def test_images_of_few_patients_keep_their_figure():
    images = patients_of({"a": [0.9, 0.1], "b": [0.8, 0.2], "c": [0.3]}, {"a", "b"})
    one = found(images, "image")["image_AUROC"]
    assert one.value == 1.0
    assert one.words == "too few patients: 3 normal and 2 abnormal, and 5 of each are needed"


def test_by_area_images_are_one_area_and_without_areas_it_is_an_error():
    known = Decisions(aggregation=Aggregation("area"))
    images = scored(["a", "a", "b"], ["", "", ""], [0, 0, 1], [0.1, 0.2, 0.3])
    with pytest.raises(MetricError, match=r"area above the threshold of pixels.*train it with"):
        levels_of(images, known)
    levels = levels_of(images._replace(areas=[0.25, 0.5, 0.125]), known)
    assert levels["patient"].score == (0.75, 0.125)


@given(st.permutations(range(sum(map(len, WARD.values())))))
def test_the_order_of_images_changes_nothing(order):
    images = patients_of(WARD, ILL)
    moved = scored(
        *(
            [column[at] for at in order]
            for column in (images.patients, images.volumes, images.labels, images.scores)
        )
    )
    known = Decisions(references={"patient": Reference((0.125, 0.25), (0.5, 0.625), images=(3, 3))})
    for level in ("image", "volume", "patient"):
        before, after = found(images, level, known), found(moved, level, known)
        for name, one in before.items():
            assert after[name][:3] == (pytest.approx(one[:3], abs=1e-9) if one.low else one[:3])
