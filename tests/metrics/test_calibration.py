"""Calibration equals scikit-learn's and torchmetrics', and takes no score for a probability."""

import logging

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.calibration import calibration_curve
from torchmetrics.functional.classification import binary_calibration_error

from anomalib_medclip.errors import MetricError
from anomalib_medclip.metrics import CalibrationError, reliability_curve

FIELDS = {"fields": ["pred_score", "gt_label"]}
probabilities = st.floats(0, 1, width=32)


@st.composite
def judged(draw):
    count = draw(st.integers(1, 60))
    edges = st.sampled_from([0.0, 0.2, 0.5, 1.0])
    scores = draw(arrays.arrays(np.float32, count, elements=probabilities | edges))
    return scores, draw(arrays.arrays(bool, count))


def fed(metric, scores, labels, parts=2):
    for some in np.array_split(np.arange(len(scores)), parts):
        metric.update(
            ImageBatch(
                image=torch.zeros(len(some), 3, 1, 1),
                pred_score=torch.from_numpy(scores[some]),
                gt_label=torch.from_numpy(labels[some]),
            )
        )
    return metric


@given(pair=judged(), bins=st.sampled_from([1, 4, 15]))
def test_the_curve_is_scikit_learns(pair, bins):
    scores, labels = pair
    # scikit-learn's borders are of float64, on which a float32 hardly ever lies.
    borders = np.linspace(0, 1, bins + 1)
    nearest = borders[np.abs(scores[:, None] - borders).argmin(axis=1)]
    as_float64 = np.where(scores == nearest.astype(np.float32), nearest, scores)
    share, mean = calibration_curve(labels, as_float64, n_bins=bins)
    curve = reliability_curve(scores, labels, bins=bins)
    filled = curve.scores > 0
    np.testing.assert_allclose(curve.abnormal[filled], share, atol=1e-9)
    np.testing.assert_allclose(curve.mean_score[filled], mean, atol=1e-7)
    assert np.isnan(curve.abnormal[~filled]).all()
    assert curve.scores.sum() == len(scores)


@given(pair=judged())
def test_the_error_is_the_mean_gap_of_bins(pair):
    scores, labels = pair
    low = np.linspace(0, 1, 16)[:-1]
    bin_of = np.maximum(np.sum(scores[:, None] > low.astype(np.float32), axis=1), 1)
    gaps = [
        (bin_of == one).mean() * abs(scores[bin_of == one].mean() - labels[bin_of == one].mean())
        for one in np.unique(bin_of)
    ]
    assert fed(CalibrationError(**FIELDS), scores, labels).compute().item() == pytest.approx(
        sum(gaps), abs=1e-6
    )


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("bins", [5, 10, 15])
def test_a_score_on_the_border_of_two_bins_is_in_the_lower_one(kind, bins):
    """0.2 as float32 is above 0.2 as float64; it is on the border all the same."""
    borders = (np.arange(1, bins) / bins).astype(kind)
    curve = reliability_curve(borders, np.ones(bins - 1), bins=bins)
    assert curve.scores.tolist() == [1] * (bins - 1) + [0]
    metric = fed(CalibrationError(**FIELDS, bins=bins), borders.astype(np.float32), borders > 0)
    assert metric.curve().scores.tolist() == [1] * (bins - 1) + [0]


def test_between_the_borders_of_bins_torchmetrics_says_the_same():
    random = np.random.default_rng(0)
    scores = random.random(500).astype(np.float32)
    labels = random.random(500) < scores**2
    theirs = binary_calibration_error(
        torch.from_numpy(scores), torch.from_numpy(labels).int(), n_bins=15
    )
    found = fed(CalibrationError(**FIELDS), scores, labels).compute().item()
    assert found == pytest.approx(theirs.item(), abs=1e-6)
    assert found > 0.05  # a figure that says something


@pytest.mark.parametrize("odd", [-0.01, 1.01])
def test_a_score_outside_0_to_1_is_no_probability(odd):
    scores = np.array([0.5, odd], dtype=np.float32)
    with pytest.raises(MetricError, match="are no probabilities; give calibration scores"):
        fed(CalibrationError(**FIELDS), scores, np.array([True, False]), parts=1)
    with pytest.raises(MetricError, match="no probabilities"):
        reliability_curve(scores, [1, 0])


def test_odd_scores_leave_the_sums_as_they_were():
    metric = fed(
        CalibrationError(**FIELDS), np.array([0.25, 0.75], np.float32), np.array([False, True])
    )
    before = metric.compute().item()
    with pytest.raises(MetricError, match="NaN"):
        fed(metric, np.array([np.nan], np.float32), np.array([True]), parts=1)
    assert metric.compute().item() == before == pytest.approx(0.25)


def test_bins_are_one_or_more():
    with pytest.raises(MetricError, match="0 bins hold no scores"):
        CalibrationError(**FIELDS, bins=0)


def test_without_scores_the_error_is_nan_and_says_so(caplog):
    with pytest.warns(UserWarning, match="before the ``update``"), caplog.at_level(logging.WARNING):
        assert torch.isnan(CalibrationError(**FIELDS).compute())
    assert "CalibrationError is undefined: no score came" in caplog.text


def test_processes_add_their_sums_and_no_state_is_saved():
    scores, labels = np.linspace(0, 1, 40, dtype=np.float32), np.arange(40) % 3 == 0
    parts = [
        fed(CalibrationError(**FIELDS), scores[some], labels[some])
        for some in (slice(0, 15), slice(15, 40))
    ]
    states = [part.metric_state for part in parts]
    names = {id(value): name for name, value in states[0].items()}
    together = CalibrationError(
        **FIELDS,
        distributed_available_fn=lambda: True,
        dist_sync_fn=lambda tensor, group: [state[names[id(tensor)]] for state in states],
    )
    for name, value in states[0].items():
        setattr(together, name, value)
    together._update_count = 1
    whole = fed(CalibrationError(**FIELDS), scores, labels)
    assert together.compute().item() == pytest.approx(whole.compute().item(), abs=1e-9)
    assert whole.state_dict() == {}
    whole.reset()
    assert whole.curve().scores.sum() == 0


def test_a_batch_alone_has_its_own_error():
    metric = CalibrationError(**FIELDS)
    good = ImageBatch(
        image=torch.zeros(2, 3, 1, 1),
        pred_score=torch.tensor([0.0, 1.0]),
        gt_label=torch.tensor([0, 1]),
    )
    bad = ImageBatch(
        image=torch.zeros(2, 3, 1, 1),
        pred_score=torch.tensor([0.0, 1.0]),
        gt_label=torch.tensor([1, 0]),
    )
    assert [metric(good).item(), metric(bad).item(), metric.compute().item()] == [0, 1, 0.5]
