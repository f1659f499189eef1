"""Figures of images, volumes and patients, against what a hand reckons."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from anomalib_medclip.decisions.aggregation import Aggregation
from anomalib_medclip.decisions.decisions import Decisions
from anomalib_medclip.decisions.probability import Calibration
from anomalib_medclip.decisions.reference import Reference
from anomalib_medclip.decisions.thresholds import Rule
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


@pytest.mark.parametrize(("third", "auroc"), [(0.3, None), (0.85, 0.75)])
def test_images_of_few_patients_keep_their_figure_unless_it_seems_certain(third, auroc):
    images = patients_of({"a": [0.9, 0.1], "b": [0.8, 0.2], "c": [third]}, {"a", "b"})
    auroc = auroc and roc_auc_score(images.labels, images.scores)
    images = images._replace(called=[score > 0.5 for score in images.scores])
    figures = found(images, "image")
    one = figures["image_AUROC"]
    assert one.value == (auroc and pytest.approx(auroc))
    assert one.words == "too few patients: 3 normal and 2 abnormal, and 5 of each are needed"
    assert figures["image_Sensitivity"].value is None  # both are found
    assert figures["image_Sensitivity"].words.startswith("too few patients: 2 abnormal")
    known = figures_of("image", levels_of(images, None)["image"], {"image_AUROC": 1.0})
    assert known["image_AUROC"].value is None


def test_of_enough_patients_a_figure_of_one_has_an_interval():
    ward = {f"p{n}": [0.9 if n < 5 else 0.1] for n in range(10)}
    one = found(patients_of(ward, {f"p{n}" for n in range(5)}), "image")["image_AUROC"]
    assert one.low < one.value == 1


KNOWN = Reference((0.125, 0.25, 0.375, 0.625), (0.5, 0.75))


def test_images_are_called_abnormal_by_the_rule_that_is_asked_for():
    images = patients_of(WARD, ILL)
    images = images._replace(
        raw_scores=[10 * score for score in images.scores],
        called=[score > 0.7 for score in images.scores],
    )
    rule = Rule("false_alarms", 0.3)
    asked = Decisions(references={"image": KNOWN}, rule=rule, image_threshold=0.7, source="here")
    units = levels_of(images, asked)["image"]
    assert units.threshold == asked.threshold("image").value == 0.625
    assert units.words == asked.threshold("image").words
    assert "it calls 0 of 4 normal patients abnormal" in units.words
    assert units.called == tuple(int(score > 0.625) for score in images.scores)
    assert units.score == tuple(images.raw_scores)
    usual = levels_of(images, replace(asked, rule=Rule()))["image"]
    assert usual.threshold == 0.7
    assert usual.called == tuple(map(int, images.called))
    assert "it finds 1 of 2 abnormal patients" in usual.words
    unknown = levels_of(images, replace(asked, references={}))["image"]
    assert (unknown.called, unknown.threshold) == (None, None)
    assert unknown.words.startswith("too few patients")
    assert levels_of(images, None)["image"].called == usual.called


@pytest.mark.parametrize("calibrated", [False, True])
def test_on_what_is_decided_is_said_of_each_level(calibrated):
    curve = Calibration("sigmoid", (2.0, -1.0), (), 0.25, 60)
    known = Decisions(
        references={"image": KNOWN, "patient": replace(KNOWN, images=(3, 3), is_approximate=True)},
        calibrations={"patient": curve} if calibrated else {},
        no_probability={} if calibrated else {"patient": "too few patients: 4 normal"},
    )
    levels = levels_of(patients_of(WARD, ILL), known)
    of = levels["patient"].grounds
    assert (of.normal, of.abnormal, of.smallest_p, of.is_approximate) == (4, 2, 0.2, True)
    assert of.p_words == (
        "no p-value is below 0.2, since it compares with 4 normal patients; it is approximate, "
        "since these are not quite like new ones"
    )
    assert (of.calibration, of.prevalence) == (("sigmoid", 0.25) if calibrated else ("", None))
    assert of.probability_words == (
        "a probability is known, by a curve (sigmoid) of 60 patients, for a share of 25 % abnormal "
        "ones" if calibrated else "no probability is known; too few patients: 4 normal"
    )  # fmt: skip
    assert "approximate" not in levels["image"].grounds.p_words
    nothing = levels["volume"].grounds
    assert nothing.p_words.startswith("no p-value is known, since the model has no normal patient")
    assert nothing.probability_words.startswith("no probability is known; too few patients")


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


def test_who_has_a_lesion_that_no_image_shows_is_no_normal_patient():
    images = patients_of(WARD, ILL - {"i5"})
    hidden = images._replace(of_ill=[name in ILL for name in images.patients])
    for level, counts in (("image", None), ("volume", (5, 4)), ("patient", (5, 4))):
        plain, found = (levels_of(one, None)[level] for one in (images, hidden))
        assert plain.counts == found.counts if counts is None else found.counts == counts
