"""Images become one score of a volume or patient."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from anomalib_medclip.decisions.aggregation import ENOUGH, Aggregation, Unit, choose, units
from anomalib_medclip.decisions.conformal import p_value
from anomalib_medclip.decisions.decisions import Decisions
from anomalib_medclip.decisions.map_tail import MapTail
from anomalib_medclip.decisions.reference import Reference
from anomalib_medclip.errors import MetricError

SCORES = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=12)


@given(SCORES, st.integers(1, 15))
def test_the_mean_of_the_worst_is_of_all_where_there_are_fewer(scores, count):
    expected = np.mean(sorted(scores, reverse=True)[:count])
    assert Aggregation("mean of worst", count).of(scores) == pytest.approx(expected)
    assert Aggregation("worst").of(scores) == max(scores)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.floats(0, 1)), min_size=1))
def test_units_hold_all_their_images_in_whatever_order_these_came(images):
    def found(rows):
        names, labels, scores = zip(*rows, strict=True)
        return {
            one.name: (one.abnormal, sorted(one.scores))
            for one in units(names, [f"of {name}" for name in names], labels, scores)
        }

    assert found(images) == found(images[::-1])
    assert sum(len(scores) for _, scores in found(images).values()) == len(images)


def patients(normal, abnormal, seed=0, images=8):
    """Patients of whom abnormal ones have many images a little higher, and none much."""
    random = np.random.default_rng(seed)
    for number in range(normal + abnormal):
        ill = number >= normal
        scores = random.normal(0.8 * ill, 1, size=images)
        yield Unit(str(number), str(number), ill, scores, np.clip(scores, 0, None))


def test_nothing_is_chosen_on_few_patients():
    for counts in ((ENOUGH - 1, 100), (100, ENOUGH - 1), (0, 0)):
        choice = choose(list(patients(*counts)))
        assert choice.aggregation == Aggregation("mean of worst", 3)
        assert "fixed" in choice.reason
        assert f"{counts[0]} normal and {counts[1]} abnormal" in choice.reason


def test_the_way_with_the_best_auroc_is_chosen_and_said():
    found = list(patients(60, 60))
    choice = choose(found)
    truth = [one.abnormal for one in found]
    for way in (Aggregation(), Aggregation("worst"), Aggregation("area")):
        scores = [way.of(one.scores, one.areas) for one in found]
        assert choice.tried[way.kind] == pytest.approx(roc_auc_score(truth, scores))
        assert f"{choice.tried[way.kind]:.3f}" in choice.reason
    assert choice.aggregation.kind == max(choice.tried, key=choice.tried.get) == "area"


def test_a_patient_counts_once_by_what_is_hardest():
    found = [
        Unit("v1", "p", False, np.array([0.1]), None),
        Unit("v2", "p", False, np.array([0.6]), None),
        Unit("v3", "q", True, np.array([0.9]), None),
        Unit("v4", "q", True, np.array([0.4]), None),
        Unit("v5", "q", False, np.array([0.2]), None),
    ]
    reference = Reference.of(found, Aggregation("worst"))
    assert reference == Reference((0.6,), (0.4,), one_each=False)
    assert Reference.from_plain(reference.as_plain()) == reference


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 0.99))
def test_the_tail_of_a_map_knows_areas_to_one_percent(seed, threshold):
    anomaly_map = np.random.default_rng(seed).random((61, 83)) ** 3
    true = (anomaly_map.astype(np.float32) > np.float32(threshold)).mean()
    assert MapTail.of(anomaly_map).share_above(threshold) == pytest.approx(
        true, rel=0.01, abs=1e-12
    )


def test_a_tie_with_the_threshold_is_not_above_it():
    assert MapTail.of(np.array([0.25, 0.5, 0.5, 0.75])).share_above(0.5) == 0.25


def test_an_image_by_itself_is_decided_by_its_score_and_not_by_its_area():
    decisions = Decisions(aggregation=Aggregation("area"), image_threshold=0.5)
    found = decisions.verdict("image", [0.95], [0.12])
    assert (found.score, found.label) == (0.95, True)


@pytest.mark.parametrize(
    ("way", "scores", "areas"), [("area", [0.5], None), ("worst", [], None), ("area", [], [])]
)
def test_nothing_makes_no_score(way, scores, areas):
    with pytest.raises(MetricError, match="nothing to make"):
        Aggregation(way).of(scores, areas)


def test_normal_images_of_abnormal_patients_are_no_normal_patients():
    """Four normal patients give no p-value below one in five, however many images there are."""
    random = np.random.default_rng(0)
    found = [
        Unit(
            f"{patient}.{image}", f"p{patient}", patient < 4 and image == 0, random.random(1), None
        )
        for patient in range(8)
        for image in range(3)
    ]
    reference = Reference.of(found, Aggregation("worst"))
    assert (len(reference.normal), len(reference.abnormal)) == (4, 4)
    assert p_value(1.0, reference).value == 0.2
    assert not reference.one_each
