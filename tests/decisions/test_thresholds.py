"""Thresholds by three rules, and what is said of how often they are wrong."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from anomalib_medclip.decisions.conformal import p_value
from anomalib_medclip.decisions.decisions import Decisions
from anomalib_medclip.decisions.reference import Reference
from anomalib_medclip.decisions.thresholds import Rule, threshold
from anomalib_medclip.errors import ConfigError

SCORES = st.lists(st.floats(0, 1, width=16), min_size=1, max_size=30).map(sorted).map(tuple)


def reference(normal, abnormal, seed=0):
    random = np.random.default_rng(seed)
    scores = (np.sort(random.random(count)).tolist() for count in (normal, abnormal))
    return Reference(*map(tuple, scores))


@given(SCORES, SCORES)
def test_no_threshold_has_a_larger_f1(normal, abnormal):
    def f1(value):
        found, called = sum(s > value for s in abnormal), sum(s > value for s in normal)
        return 2 * found / (2 * found + called + len(abnormal) - found) if found else 0.0

    found = threshold(Reference(normal, abnormal))
    best = max(f1(np.nextafter(value, -1)) for value in (*normal, *abnormal))
    assert f1(found.value) == pytest.approx(best)
    assert found.holds
    assert (found.sensitivity.found, found.sensitivity.of) == (
        sum(s > found.value for s in abnormal), len(abnormal),
    )  # fmt: skip


def test_the_threshold_of_the_largest_f1_lies_halfway():
    assert threshold(Reference((0.1, 0.2), (0.6, 0.7))).value == pytest.approx(0.4)


@pytest.mark.parametrize(("patients", "holds"), [(58, False), (59, True)])
def test_a_sensitivity_of_95_percent_needs_59_patients_without_a_miss(patients, holds):
    found = threshold(reference(10, patients), Rule("sensitivity", 0.95))
    assert found.holds is holds
    assert found.sensitivity.found == patients
    assert ("needs 59 abnormal ones without a miss" in found.words) is not holds


def test_eight_of_eight_bound_69_percent():
    found = threshold(reference(4, 8), Rule("sensitivity", 0.95))
    assert found.sensitivity.bound == pytest.approx(0.05 ** (1 / 8))
    assert "8 of 8 abnormal patients, and of new ones at least 69 %" in found.words


@given(st.integers(60, 400), st.sampled_from([0.8, 0.9, 0.95]), st.sampled_from([0.8, 0.95]))
def test_as_many_are_missed_as_the_bound_allows_and_no_more(patients, rate, confidence):
    found = threshold(reference(5, patients), Rule("sensitivity", rate, confidence))
    missed = patients - found.sensitivity.found

    def bound(missed):
        return stats.beta.ppf(1 - confidence, patients - missed, missed + 1)

    assert bound(missed) == pytest.approx(found.sensitivity.bound)
    if found.holds:
        assert bound(missed) >= rate > bound(missed + 1)
    else:
        assert missed == 0
        assert bound(0) < rate


@pytest.mark.parametrize(("patients", "alarms"), [(18, 0), (19, 1), (38, 1), (39, 2), (99, 5)])
def test_a_false_alarm_rate_takes_the_kth_highest_of_n(patients, alarms):
    known = reference(patients, 3)
    found = threshold(known, Rule("false_alarms", 0.05))
    assert found.holds is (alarms > 0)
    assert found.value == known.normal[-max(alarms, 1)]
    assert found.false_alarms.found == max(alarms, 1) - 1
    assert ("needs 19 normal ones" in found.words) is not found.holds


@given(SCORES, st.floats(0, 1, width=16), st.integers(1, 30))
def test_a_threshold_of_false_alarms_and_a_p_value_say_the_same(normal, score, percent):
    known, rate = Reference(normal, ()), percent / 100
    found = threshold(known, Rule("false_alarms", rate))
    p = p_value(score, known)
    assert p.smallest == 1 / (len(normal) + 1) <= p.value
    if found.holds:
        assert (score > found.value) is bool(p.value <= rate + 1e-12)


def test_a_rule_without_patients_of_its_class_has_no_threshold():
    normal, abnormal = Reference((0.1,), ()), Reference((), (0.9,))
    for known, aim in ((normal, "f1"), (abnormal, "f1"), (normal, "sensitivity"),
                       (abnormal, "false_alarms")):  # fmt: skip
        assert threshold(known, Rule(aim, None if aim == "f1" else 0.5)) is None
    assert p_value(0.5, abnormal) is None


@pytest.mark.parametrize(
    "text", ["", "f2", "sensitivity", "sensitivity=2", "sensitivity=0.9@1", "false_alarms=x", "f1="]
)
def test_what_is_no_rule_is_refused(text):
    with pytest.raises(ConfigError, match="rule"):
        Rule.parse(text)


def test_false_alarms_are_as_often_as_asked():
    """The share of new patients that is called abnormal, and how it spreads, on drawn normals."""
    random, n, rate = np.random.default_rng(0), 38, 0.2
    drawn = np.sort(random.random((2000, n)), axis=1)
    shares = [
        1 - threshold(Reference(tuple(row), ()), Rule("false_alarms", rate)).value
        for row in drawn.tolist()
    ]
    k = int(rate * (n + 1))
    expected = stats.beta(k, n + 1 - k)
    assert np.mean(shares) <= rate + 2 * expected.std() / np.sqrt(len(shares))
    assert stats.kstest(shares, expected.cdf).pvalue > 0.001


@pytest.mark.parametrize(
    ("known", "images", "compares"),
    [
        ((1, 1), 1, True),
        ((1, 1), 2, False),
        ((25, 40), 80, True),
        ((25, 40), 81, False),
        ((25, 40), 13, True),
        ((25, 40), 12, False),
    ],
)
def test_the_worst_of_many_images_is_not_compared_with_that_of_few(known, images, compares):
    volumes = Reference((0.1, 0.2), (0.8, 0.9), images=known)
    found = Decisions(references={"volume": volumes}).verdict("volume", [0.5] * images)
    assert (found.label is not None) is compares
    assert (found.p is not None) is compares
    assert (f"and these are {images} together" in found.no_label) is not compares
