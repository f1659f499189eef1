import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch, InferenceBatch
from anomalib.metrics import F1AdaptiveThreshold
from hypothesis import given
from hypothesis import strategies as st

from anomalib_medclip.components.processors import RankPreservingPostProcessor
from anomalib_medclip.components.threshold import MidwayThreshold

examples = st.lists(
    st.tuples(st.floats(-100, 100, width=32), st.booleans()), min_size=1, max_size=30
)


def batch_of(scores, labels):
    return ImageBatch(
        image=torch.zeros(len(scores), 3, 2, 2),
        pred_score=torch.as_tensor(scores, dtype=torch.float32),
        gt_label=torch.as_tensor(labels).bool(),
    )


def threshold_of(scores, labels, kind=MidwayThreshold):
    metric = kind(fields=["pred_score", "gt_label"])
    metric.update(batch_of(scores, labels))
    return metric.compute(), metric


def f1(called, abnormal):
    both = (called & abnormal).sum()
    return 2 * both / (called.sum() + abnormal.sum())


@given(examples=examples)
def test_applied_as_it_is_the_threshold_has_the_best_f1_of_all(examples):
    scores = np.array([score for score, _ in examples], dtype=np.float32)
    abnormal = np.array([label for _, label in examples])
    threshold, _ = threshold_of(scores, abnormal)
    called = scores > threshold.numpy()
    if not abnormal.any():
        assert not called.any()
        return
    best = max(f1(scores >= one, abnormal) for one in scores)
    assert f1(called, abnormal) == pytest.approx(best, abs=1e-6)


@given(examples=examples)
def test_after_normalisation_the_same_images_are_abnormal(examples):
    scores, labels = zip(*examples, strict=True)
    processor = RankPreservingPostProcessor()
    processor.on_validation_batch_end(None, None, batch_of(scores, labels))
    processor.on_validation_epoch_end(None, None)
    batch = batch_of(scores, labels)
    raw = batch.pred_score.clone()
    processor.on_test_batch_end(None, None, batch)
    assert torch.equal(batch.pred_label, raw > processor.image_threshold)


def test_the_image_that_sets_the_threshold_is_abnormal():
    scores, labels = [0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1]
    ours, _ = threshold_of(scores, labels)
    theirs, _ = threshold_of(scores, labels, F1AdaptiveThreshold)
    assert ours == pytest.approx(0.5)
    assert (torch.tensor(scores) > ours).sum() == 2
    assert (torch.tensor(scores) > theirs).sum() == 1


def test_where_float32_has_no_number_between_the_lower_score_is_the_threshold():
    upper = np.float32(0.7)
    lower = np.nextafter(upper, np.float32(0))
    threshold, _ = threshold_of([0.1, lower, upper], [0, 0, 1])
    assert threshold.numpy() == lower


def test_below_all_scores_the_next_number_is_the_threshold():
    threshold, _ = threshold_of([0.7, 0.8], [1, 1])
    assert threshold.numpy() == np.nextafter(np.float32(0.7), np.float32(0))


def test_huge_scores_have_a_threshold_between_them():
    threshold, _ = threshold_of([-3e38, 3e38], [0, 1])
    assert -3e38 < threshold < 3e38


def test_its_own_rates_are_those_of_the_images_it_was_chosen_on():
    scores, labels = [0.1, 0.6, 0.4, 0.8], [0, 0, 1, 1]
    threshold, metric = threshold_of(scores, labels)
    assert 0.1 < threshold < 0.4
    assert (metric.sensitivity, metric.specificity) == (1.0, 0.5)


@pytest.mark.parametrize(
    ("scores", "labels", "said"),
    [
        ([0.1, 0.6, 0.7, 0.5, 0.8], [0, 0, 0, 1, 1], "its specificity is only 0.33"),
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], None),
    ],
)
def test_a_threshold_that_is_bad_where_it_was_chosen_is_warned_of(scores, labels, said, caplog):
    processor = RankPreservingPostProcessor()
    processor.on_validation_batch_end(None, None, batch_of(scores, labels))
    processor.on_validation_epoch_end(None, None)
    with caplog.at_level(logging.WARNING):
        processor.on_validation_end(SimpleNamespace(state=SimpleNamespace(fn="validate")), None)
    assert (said in caplog.text) if said else not caplog.text


def test_scores_of_half_precision_are_placed_in_float32():
    """Whose next number after one half is 0.504 in bf16, so that what lies between would tie."""
    processor = RankPreservingPostProcessor()
    scores, labels = [0.1001, 0.1006, 0.1011, 0.102, 0.9, 0.91], [0, 0, 1, 1, 1, 1]
    processor.on_validation_batch_end(None, None, batch_of(scores, labels))
    processor.on_validation_epoch_end(None, None)
    found = processor(InferenceBatch(pred_score=torch.tensor(scores).bfloat16()))
    assert found.pred_label.tolist() == [False, False, True, True, True, True]
