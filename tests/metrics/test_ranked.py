"""Figures of ranks equal scikit-learn's and brute force's, in memory, in tables and on disk."""

import copy
import io
import logging
import pickle
import threading

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch
from anomalib.metrics import Evaluator
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from lightning import LightningModule, Trainer
from scipy import ndimage
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)
from torch.utils.data import DataLoader

from anomalib_medclip.errors import MetricError
from anomalib_medclip.metrics import (
    AUPRO,
    AUROC,
    AveragePrecision,
    F1Max,
    SpecificityAtSensitivity,
    ranked,
    score_store,
)
from anomalib_medclip.metrics.keys import keys_of, scores_of

FIELDS = {"fields": ["pred_score", "gt_label"]}
PIXELS = {"fields": ["anomaly_map", "gt_mask"], "prefix": "pixel_"}
LITTLE = 4096e-9  # GB: one page, so that a few thousand scores go to disk

any_score = st.floats(width=32, allow_nan=False, allow_infinity=False)
tied_score = st.sampled_from([-1.5, -0.0, 0.0, 1e-30, 0.25, np.float32(0.1), 1.0, 40.0])


@st.composite
def labelled(draw, least=2):
    """Scores of any sign and size, often tied, with labels of both classes."""
    count = draw(st.integers(least, 60))
    kind = draw(st.sampled_from([any_score, tied_score]))
    scores = draw(arrays.arrays(np.float32, count, elements=kind))
    labels = draw(arrays.arrays(bool, count))
    labels[:2] = [True, False]
    return scores, labels


def value(metric, scores, labels, parts=3):
    """Figure of scores that came in some batches."""
    for some in np.array_split(np.arange(len(scores)), parts):
        metric.update(
            ImageBatch(
                image=torch.zeros(len(some), 3, 1, 1),
                pred_score=torch.from_numpy(scores[some]),
                gt_label=torch.from_numpy(labels[some]),
            )
        )
    return metric.compute().item()


def of_pixels(metric, maps, masks):
    images = torch.zeros(len(maps), 3, *maps.shape[1:])
    metric.update(
        ImageBatch(
            image=images, anomaly_map=torch.from_numpy(maps), gt_mask=torch.from_numpy(masks)
        )
    )
    return metric.compute().item()


def sklearn_f1_max(labels, scores):
    precision, recall, _ = precision_recall_curve(labels, scores)
    either = precision + recall
    return np.max(2 * precision * recall / np.where(either > 0, either, 1))


def sklearn_specificity(labels, scores):
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    return np.max(1 - false[true >= 0.95])


REFERENCES = [
    (AUROC, roc_auc_score),
    (AveragePrecision, average_precision_score),
    (F1Max, sklearn_f1_max),
    (SpecificityAtSensitivity, sklearn_specificity),
]


def overlap_by_hand(maps, masks, limit):
    """Overlap and false alarms at every threshold, joined by straight lines."""
    regions = []
    for index, mask in enumerate(masks):
        numbers, count = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [(index, numbers == number + 1) for number in range(count)]
    rates, overlaps = [0.0], [0.0]
    for threshold in np.unique(maps)[::-1]:
        found = maps >= threshold
        rates.append(found[~masks].mean())
        overlaps.append(np.mean([found[index][region].mean() for index, region in regions]))
    inside = [rate for rate in rates if rate <= limit]
    height = overlaps[: len(inside)]
    if inside[-1] < limit:
        last = len(inside) - 1
        share = (limit - rates[last]) / (rates[last + 1] - rates[last])
        height.append(overlaps[last] + share * (overlaps[last + 1] - overlaps[last]))
        inside.append(limit)
    return np.trapezoid(height, inside) / limit


# --- equal to the references


@given(scores=arrays.arrays(np.float32, st.integers(1, 50), elements=any_score))
def test_keys_have_the_order_of_the_scores_and_lead_back(scores):
    keys = keys_of(scores)
    assert ((keys[:, None] < keys) == (scores[:, None] < scores)).all()
    assert (scores_of(keys) == scores).all()


@pytest.mark.parametrize(("metric", "reference"), REFERENCES, ids=lambda one: one.__name__)
@pytest.mark.parametrize("few", [1 << 22, 0], ids=["sorted", "in tables"])
@given(pair=labelled())
@example(pair=(np.full(9, 0.3, dtype=np.float32), np.arange(9) < 4))
@example(pair=(np.arange(40, dtype=np.float32), np.arange(40) >= 20))
def test_a_figure_of_ranks_is_scikit_learns(metric, reference, few, pair):
    scores, labels = pair
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score_store, "_FEW", few)
        patch.setattr(score_store, "_PASSES", 1 << 20)
        found = value(metric(**FIELDS, memory=0.01), scores, labels)
    assert found == pytest.approx(reference(labels, scores), abs=1e-9)


@pytest.mark.parametrize("digits", [0, 1, 9], ids=["few values", "ties", "all values"])
@pytest.mark.parametrize(("metric", "reference"), REFERENCES, ids=lambda one: one.__name__)
def test_beyond_the_budget_a_figure_stays_exact(metric, reference, digits):
    random = np.random.default_rng(0)
    labels = random.random(4000) < 0.2
    scores = np.round(random.normal(labels * 0.8, 1), digits).astype(np.float32)
    figure = metric(**FIELDS, memory=LITTLE)
    found = value(figure, scores, labels, parts=20)
    assert figure._store.on_disk
    assert found == pytest.approx(reference(labels, scores), abs=1e-9)
    assert value(figure, scores, labels, parts=1) == pytest.approx(found, abs=1e-9)


@pytest.mark.parametrize("block", [7, 1 << 20])
def test_a_tie_across_blocks_is_one_score(block, monkeypatch):
    for module in ("keys", "tallies", "score_store"):
        monkeypatch.setattr(f"anomalib_medclip.metrics.{module}.BLOCK", block)
    random = np.random.default_rng(1)
    labels, scores = random.random(300) < 0.5, random.integers(0, 4, 300).astype(np.float32)
    for metric, reference in REFERENCES:
        found = value(metric(**FIELDS), scores, labels)
        assert found == pytest.approx(reference(labels, scores), abs=1e-9)


def test_many_buckets_are_sorted_and_few_are_counted(monkeypatch):
    random = np.random.default_rng(2)
    labels, scores = random.random(4000) < 0.5, random.normal(size=4000).astype(np.float32)
    found = [value(AUROC(**FIELDS), scores, labels)]
    monkeypatch.setattr(score_store, "_FEW", 0)
    for passes in (0, 1 << 20):
        monkeypatch.setattr(score_store, "_PASSES", passes)
        found.append(value(AUROC(**FIELDS), scores, labels))
    assert found == [pytest.approx(roc_auc_score(labels, scores), abs=1e-9)] * 3


@given(
    maps=arrays.arrays(np.float32, (3, 6, 5), elements=st.one_of(any_score, tied_score)),
    masks=arrays.arrays(bool, (3, 6, 5)),
    limit=st.sampled_from([0.05, 0.3, 1.0]),
    few=st.sampled_from([0, 1 << 22]),
)
def test_region_overlap_is_that_of_every_threshold_by_hand(maps, masks, limit, few):
    masks[0, 0, :2] = [True, False]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score_store, "_FEW", few)
        found = of_pixels(AUPRO(**PIXELS, fpr_limit=limit, memory=0.01), maps, masks)
    assert found == pytest.approx(overlap_by_hand(maps, masks, limit), abs=1e-9)


def test_region_overlap_beyond_the_budget_stays_exact():
    random = np.random.default_rng(3)
    masks = np.kron(random.random((10, 4, 4)) < 0.2, np.ones((4, 4))).astype(bool)
    maps = (random.random(masks.shape) + 0.3 * masks).astype(np.float32)
    metric = AUPRO(**PIXELS, memory=LITTLE)
    for start in range(0, 10, 5):
        found = of_pixels(metric, maps[start : start + 5], masks[start : start + 5])
    assert metric._store.on_disk
    assert found == pytest.approx(overlap_by_hand(maps, masks, 0.3), abs=1e-9)


def test_regions_touch_by_corners_and_count_the_same():
    mask = np.zeros((1, 6, 6), dtype=bool)
    mask[0, 0, 0] = mask[0, 1, 1] = True  # one region
    mask[0, 3:, 3:] = True  # another, of nine pixels
    found = of_pixels(AUPRO(**PIXELS), (mask & (np.arange(6) < 3)).astype(np.float32), mask)
    # The small region is found at once, the large one along the ramp of all other pixels.
    assert found == pytest.approx(0.5 + 0.5 * 0.15)


# --- what scores may be


@pytest.mark.parametrize("shift", [0, -20, 20])
def test_scores_outside_0_to_1_keep_their_order_in_every_batch(shift):
    scores = np.array([0.2, 0.9, 0.4, 0.6], dtype=np.float32) + shift
    scores[0] += 30  # torchmetrics would squash the first batch only
    labels = np.array([True, False, True, False])
    found = value(AUROC(**FIELDS), scores, labels, parts=2)
    assert found == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_no_number_is_refused(odd):
    scores = np.array([0.1, odd, 0.3], dtype=np.float32)
    with pytest.raises(MetricError, match="1 of 3 scores are NaN or infinite"):
        value(AUROC(**FIELDS), scores, np.array([True, False, True]), parts=1)


def test_a_label_is_0_or_1():
    metric = ranked._AUROC()
    with pytest.raises(MetricError, match="a label is 255; give 0 for normal and 1"):
        metric.update(torch.rand(2), torch.tensor([0, 255]))


def test_scores_and_labels_have_one_shape():
    metric = ranked._AUROC()
    metric.update(torch.rand(2, 1, 4, 4), torch.ones(2, 4, 4))
    with pytest.raises(MetricError, match=r"\(2, 3\) and labels of \(3, 2\) are no pairs"):
        metric.update(torch.rand(2, 3), torch.zeros(3, 2))
    with pytest.raises(MetricError, match="are no images"):
        ranked._AUPRO().update(torch.rand(3), torch.zeros(3))


@pytest.mark.parametrize("metric", [AUROC, AveragePrecision, F1Max, SpecificityAtSensitivity])
@pytest.mark.parametrize(("label", "missing"), [(True, "normal"), (False, "abnormal")])
def test_without_a_class_a_figure_is_nan_and_says_so(metric, label, missing, caplog):
    with caplog.at_level(logging.WARNING):
        found = value(metric(**FIELDS), np.ones(3, dtype=np.float32), np.full(3, label), parts=1)
    assert np.isnan(found)
    assert f"{metric.__name__} is undefined: no {missing} score came" in caplog.text


def test_without_any_score_a_figure_is_nan(caplog):
    with pytest.warns(UserWarning, match="before the ``update``"):
        found = AUROC(**FIELDS).compute()
    assert torch.isnan(found)
    assert "no normal and abnormal score came" in caplog.text


def test_maps_without_masks_have_no_figure_where_that_is_asked():
    metric = AUROC(**PIXELS, strict=False)
    metric.update(ImageBatch(image=torch.zeros(1, 3, 2, 2), anomaly_map=torch.zeros(1, 2, 2)))
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert metric.compute() is None


@pytest.mark.parametrize(
    ("metric", "option"), [(AUPRO, "fpr_limit"), (SpecificityAtSensitivity, "sensitivity")]
)
def test_a_rate_lies_above_0(metric, option):
    with pytest.raises(MetricError, match=f"{option} is 0; give a number above 0 and up to 1"):
        metric(**FIELDS, **{option: 0})


def test_memory_is_enough_for_a_page():
    with pytest.raises(MetricError, match="0 bytes are too few for scores"):
        AUROC(**FIELDS, memory=0)


def test_a_full_disk_is_named(monkeypatch):
    class Full(io.BytesIO):
        def write(self, words):
            if self.tell() + words.nbytes > 8000:
                raise OSError(28, "No space left on device")
            return super().write(words)

    monkeypatch.setattr(score_store.tempfile, "TemporaryFile", Full)
    metric = AUROC(**FIELDS, memory=LITTLE)
    with pytest.raises(MetricError, match=r"No space left.*let TMPDIR name a folder"):
        value(metric, np.zeros(5000, np.float32), np.arange(5000) % 2 == 0, parts=10)
    with pytest.raises(ValueError, match="closed file"):  # and not a figure of some scores
        metric.compute()


# --- as a torchmetrics metric


def test_a_threshold_calls_abnormal_what_the_figure_says():
    random = np.random.default_rng(4)
    labels, scores = random.random(80) < 0.4, random.random(80).astype(np.float32)
    scores += 0.3 * labels.astype(np.float32)
    metric = SpecificityAtSensitivity(**FIELDS, sensitivity=0.8)
    found = value(metric, scores, labels)
    called = scores >= metric.threshold
    assert called[labels].mean() >= 0.8
    assert 1 - called[~labels].mean() == pytest.approx(found)
    best = F1Max(**FIELDS)
    found, called = value(best, scores, labels), scores >= best.threshold
    right = (called & labels).sum()
    assert 2 * right / (called.sum() + labels.sum()) == pytest.approx(found)


def test_reset_forgets_and_no_score_is_in_the_state_dict():
    metric = AUROC(**FIELDS)
    assert value(metric, np.array([1.0, 0.0], np.float32), np.array([False, True])) == 0
    assert metric.state_dict() == {}
    metric.reset()
    assert value(metric, np.array([1.0, 0.0], np.float32), np.array([True, False])) == 1


def test_forward_gives_the_batch_and_keeps_all():
    metric = AUROC(**FIELDS)
    image = torch.zeros(2, 3, 1, 1)
    right = ImageBatch(
        image=image, pred_score=torch.tensor([1.0, 0.0]), gt_label=torch.tensor([1, 0])
    )
    wrong = ImageBatch(
        image=image, pred_score=torch.tensor([3.0, 5.0]), gt_label=torch.tensor([1, 0])
    )
    assert [metric(right).item(), metric(wrong).item()] == [1, 0]
    assert metric.compute() == 0.5  # pairs 1 and 3 of 4
    assert metric.update_count == 2


def test_a_copy_goes_its_own_way():
    metric = AUPRO(**PIXELS)
    masks = np.eye(4, dtype=bool)[None]
    found = of_pixels(metric, masks.astype(np.float32), masks)
    for twin in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        assert twin.compute() == found == 1
        assert of_pixels(twin, 1 - masks.astype(np.float32), masks) < 1
    assert metric.compute() == 1


def test_scores_on_disk_are_not_copied_silently():
    metric = AUROC(**FIELDS, memory=LITTLE)
    value(metric, np.zeros(5000, dtype=np.float32), np.arange(5000) % 2 == 0)
    with pytest.raises(MetricError, match="scores on disk cannot be copied"):
        copy.deepcopy(metric)


class Exchange:
    """What torch.distributed does for processes, for threads."""

    def __init__(self, ranks):
        self._barrier = threading.Barrier(ranks, timeout=20)
        self._sent = [None] * ranks

    def gather(self, rank):
        def exchange(tensor, group=None):
            del group
            self._sent[rank] = tensor
            self._barrier.wait()
            found = list(self._sent)
            self._barrier.wait()
            return found

        return exchange


@pytest.mark.parametrize("memory", [1.0, LITTLE], ids=["memory", "disk"])
@pytest.mark.parametrize("metric", [ranked._AUROC, ranked._AUPRO])
def test_processes_together_have_the_figure_of_all_scores(metric, memory):
    random = np.random.default_rng(5)
    masks = np.kron(random.random((7, 3, 3)) < 0.4, np.ones((6, 6))).astype(bool)
    maps = (random.random(masks.shape) + 0.2 * masks).astype(np.float32)
    images = [slice(0, 5), slice(5, 7), slice(0, 0)]  # the third process has none
    exchange = Exchange(len(images))
    metrics = []
    for rank, some in enumerate(images):
        one = metric(
            memory=memory,
            dist_sync_fn=exchange.gather(rank),
            distributed_available_fn=lambda: True,
        )
        one.update(torch.from_numpy(maps[some]), torch.from_numpy(masks[some]))
        metrics.append(one)
    found = [None] * len(metrics)

    def compute(rank):
        found[rank] = metrics[rank].compute().item()

    threads = [threading.Thread(target=compute, args=(rank,)) for rank in range(len(metrics))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole = metric()
    whole.update(torch.from_numpy(maps), torch.from_numpy(masks))
    assert found == [pytest.approx(whole.compute().item(), abs=1e-9)] * 3
    own = metrics[1]._store  # of this process again
    assert own.normal + own.abnormal == maps[images[1]].size


@pytest.mark.parametrize("memory", [1.0, LITTLE], ids=["memory", "disk"])
def test_a_metric_may_read_the_scores_of_another(memory):
    random = np.random.default_rng(7)
    masks = np.kron(random.random((6, 3, 3)) < 0.4, np.ones((6, 6))).astype(bool)
    maps = random.random(masks.shape).astype(np.float32)
    overlap = AUPRO(**PIXELS, memory=memory)
    readers = [kind(**PIXELS, scores_of=overlap) for kind in (AUROC, AveragePrecision, AUPRO)]
    batch = ImageBatch(
        image=torch.zeros(6, 3, 18, 18),
        anomaly_map=torch.from_numpy(maps),
        gt_mask=torch.from_numpy(masks),
    )
    for metric in (readers[0], overlap, *readers[1:]):
        metric.update(batch)
    expected = [
        *(reference(masks.ravel(), maps.ravel()) for _, reference in REFERENCES[:2]),
        overlap_by_hand(maps, masks, 0.3),
    ]
    assert [reader.compute().item() for reader in readers] == pytest.approx(expected, abs=1e-9)
    assert readers[0]._store.normal == 0
    overlap.reset()
    readers[1].update(batch)
    with pytest.raises(MetricError, match="has seen 0 batches and this one 2; put both into"):
        readers[1].compute()
    with pytest.raises(MetricError, match="has no batch of its own"):
        readers[1](batch)


def test_scores_of_a_metric_that_cannot_serve_are_refused():
    with pytest.raises(MetricError, match="wants a metric with scores of its own"):
        AUPRO(**PIXELS, scores_of=AUROC(**PIXELS))
    with pytest.raises(MetricError, match="wants a metric with scores of its own"):
        AUROC(**PIXELS, scores_of=AUROC(**PIXELS, scores_of=AUROC(**PIXELS)))
    with pytest.raises(MetricError, match=r"scores_of has fields .*pred_score"):
        AUROC(**PIXELS, scores_of=AUROC(**FIELDS))


class Scorer(LightningModule):
    """Hands batches on as a model's answers."""

    def test_step(self, batch):
        return batch


def test_an_evaluator_logs_them_after_every_test(tmp_path):
    random = np.random.default_rng(6)
    masks = np.kron(random.random((6, 2, 2)) < 0.5, np.ones((3, 3))).astype(bool)
    maps = random.random(masks.shape).astype(np.float32)
    batches = [
        ImageBatch(
            image=torch.zeros(3, 3, 6, 6),
            anomaly_map=torch.from_numpy(maps[some]),
            gt_mask=torch.from_numpy(masks[some]),
        )
        for some in (slice(0, 3), slice(3, 6))
    ]
    metrics = [AUPRO(**PIXELS, memory=0.01), AUROC(**PIXELS, memory=0.01)]
    metrics.append(AveragePrecision(**PIXELS, scores_of=metrics[0]))
    trainer = Trainer(
        callbacks=[Evaluator(test_metrics=metrics)],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    loader = DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch)
    model = Scorer()
    model.evaluator = trainer.callbacks[0]  # so that Lightning finds the metrics, as in anomalib
    for _ in range(2):  # the second test begins anew
        (found,) = trainer.test(model, loader, verbose=False)
        assert found["pixel_AUROC"] == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()))
        assert found["pixel_AUPRO"] == pytest.approx(overlap_by_hand(maps, masks, 0.3))
        expected = average_precision_score(masks.ravel(), maps.ravel())
        assert found["pixel_AveragePrecision"] == pytest.approx(expected)
