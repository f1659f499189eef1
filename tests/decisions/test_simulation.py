"""What is promised of p-values and probabilities, over patients drawn anew."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from anomalib_medclip.decisions import probability as module
from anomalib_medclip.decisions.aggregation import ENOUGH
from anomalib_medclip.decisions.conformal import p_value
from anomalib_medclip.decisions.probability import Calibration, calibrate, why_none
from anomalib_medclip.decisions.reference import Reference
from anomalib_medclip.errors import ConfigError


def drawn(random, normal, abnormal, gap=1.5):
    """Scores around one half, as a post-processor places them."""
    scores = (random.normal(mean, 1, count) for mean, count in ((0, normal), (gap, abnormal)))
    placed = (0.5 + 0.5 * one / (1 + np.abs(one)) for one in scores)
    return Reference(*(tuple(np.sort(one).tolist()) for one in placed))


def coverage(replicates, patients, seed):
    """How often the p-value of a new normal patient is at most 0.05, 0.1 and 0.2."""
    random, rates = np.random.default_rng(seed), np.array([0.05, 0.1, 0.2])
    values = np.array([
        p_value(drawn(random, 1, 0).normal[0], drawn(random, patients, 0)).value
        for _ in range(replicates)
    ])  # fmt: skip
    return rates, (values[:, None] <= rates + 1e-12).mean(axis=0)


def assert_covered(replicates, patients, seed):
    rates, found = coverage(replicates, patients, seed)
    exact = np.floor(rates * (patients + 1) + 1e-9) / (patients + 1)
    error = np.sqrt(exact * (1 - exact) / replicates)
    assert (found <= rates + 3 * error).all(), (found, rates)
    assert (np.abs(found - exact) <= 3 * error + 1e-12).all(), (found, exact)


def test_p_values_of_normal_patients_are_small_no_more_often_than_they_say():
    assert_covered(500, 38, seed=0)


@pytest.mark.nightly(
    also="tests/decisions/test_simulation.py::"
    "test_p_values_of_normal_patients_are_small_no_more_often_than_they_say"
)
@pytest.mark.parametrize("patients", [4, 19, 38, 99])
def test_p_values_over_two_thousand_replicates(patients):
    assert_covered(2000, patients, seed=patients)


def slope_and_gap(random, patients, kind):
    """Calibration slope and mean gap of a curve, over many new patients."""
    reference = drawn(random, patients // 2, patients - patients // 2)
    curve = calibrate(reference)
    assert curve.kind == kind
    new = drawn(random, 5000, 5000)
    found = np.array([curve.probability(score) for score in (*new.normal, *new.abnormal)])
    truth = np.repeat([0, 1], 5000)
    logit = np.log(found) - np.log1p(-found)
    fit = LogisticRegression(C=np.inf).fit(logit[:, None], truth)
    return fit.coef_[0, 0], abs(found.mean() - truth.mean())


@pytest.mark.parametrize(("patients", "kind"), [(100, "sigmoid"), (600, "isotonic")])
def test_probabilities_are_right_on_new_patients(patients, kind):
    random = np.random.default_rng(3)
    slopes, gaps = zip(*(slope_and_gap(random, patients, kind) for _ in range(8)), strict=True)
    assert 0.7 <= np.mean(slopes) <= 1.4
    assert np.mean(gaps) <= 0.05


def test_a_prevalence_moves_the_odds():
    curve = calibrate(drawn(np.random.default_rng(0), 60, 40))
    assert curve.prevalence == 0.4
    for score in (0.2, 0.5, 0.9):
        own, rare = curve.probability(score), curve.probability(score, 0.01)
        assert own == pytest.approx(curve.probability(score, 0.4))
        ratio = (0.01 / 0.99) / (0.4 / 0.6)
        assert rare / (1 - rare) == pytest.approx(own / (1 - own) * ratio)


@pytest.mark.parametrize("patients", [ENOUGH, module.MANY])
def test_a_curve_rises_and_survives_json(patients):
    curve = calibrate(drawn(np.random.default_rng(1), patients, patients))
    plain = curve.as_plain()
    again = Calibration.from_plain({**plain, "x": list(plain["x"]), "y": list(plain["y"])})
    found = [again.probability(score) for score in np.linspace(0, 1, 101)]
    assert found == sorted(found)
    assert found == [curve.probability(score) for score in np.linspace(0, 1, 101)]
    assert 0 < found[0] < found[-1] < 1


def test_scores_that_say_nothing_give_the_prevalence():
    upside_down = drawn(np.random.default_rng(0), 30, 30, gap=-2)
    assert calibrate(upside_down).probability(0.9) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("reference", "learns_abnormal", "words"),
    [
        (Reference((0.1,) * 19, (0.9,) * 20), True, "19 normal and 20 abnormal"),
        (Reference((0.1,) * 20, (0.9,) * 20), False, "normal images alone"),
        (Reference((0.1,) * 20, (0.9,) * 20, one_each=False), True, "several images"),
        (Reference((0.1,) * 20, (0.9,) * 20), True, ""),
    ],
)
def test_why_there_is_no_probability(reference, learns_abnormal, words):
    reason = why_none(reference, learns_abnormal=learns_abnormal)
    assert words in reason
    assert bool(reason) is bool(words)


@pytest.mark.parametrize("prevalence", [0.0, 1.0, -1.0, float("nan")])
def test_a_prevalence_that_cannot_be_is_refused(prevalence):
    curve = calibrate(drawn(np.random.default_rng(0), 30, 30))
    with pytest.raises(ConfigError, match="prevalence"):
        curve.probability(0.5, prevalence)
