"""What patients add to figures of pixels is what leaving them out changes."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from anomalib_medclip.errors import MetricError
from anomalib_medclip.metrics import AUPRO, AUROC
from anomalib_medclip.metrics.influence import of_auroc
from anomalib_medclip.metrics.patient_pixels import PatientPixels

PIXELS = {"fields": ["anomaly_map", "gt_mask"], "prefix": "pixel_"}


@pytest.fixture(scope="module")
def tested():
    """Maps and masks of eight patients with five images each, and whose each is."""
    random = np.random.default_rng(0)
    owner = np.repeat(np.arange(8), 5)
    masks = np.zeros((40, 24, 24), dtype=bool)
    for image in range(0, 40, 2):
        top, left = random.integers(0, 16, 2)
        masks[image, top : top + 8, left : left + random.integers(2, 8)] = True
    masks[owner == 7] = False
    alike = random.normal(size=8)[owner][:, None, None]
    maps = random.normal(size=masks.shape) + 0.5 * alike + 1.5 * masks
    return maps.astype(np.float32), masks, owner


def read(tested, keep=slice(None)):
    """Metric and counts of some of the images, in batches."""
    maps, masks, owner = (part[keep] for part in tested)
    overlap, pixels = AUPRO(**PIXELS), PatientPixels()
    for start in range(0, len(maps), 7):
        batch = [torch.from_numpy(part[start : start + 7]) for part in (maps, masks)]
        overlap._add(*batch)
        pixels.add(*batch, [f"P{one}" for one in owner[start : start + 7]])
    return overlap, pixels


def figures(tested, keep):
    maps, masks, _ = (part[keep] for part in tested)
    overlap, _ = read(tested, keep)
    flat = masks.ravel(), maps.ravel()
    return {
        "AUROC": roc_auc_score(*flat),
        "AP": average_precision_score(*flat),
        "AUPRO": overlap._figure(overlap._store),
    }


def test_leaving_a_patient_out_changes_figures_as_counted(tested):
    overlap, pixels = read(tested)
    found = pixels.influences(overlap.thresholds(pixels.steps))
    whole = figures(tested, slice(None))
    without = [figures(tested, tested[2] != one) for one in range(8)]
    for name in ("AUROC", "AP", "AUPRO"):
        assert found[name].value == pytest.approx(whole[name], abs=2e-3)
        assert found[name].patients == tuple(f"P{one}" for one in range(8))
        if name == "AUROC":
            continue
        changes = np.array([one[name] for one in without])
        with_lesions = 6 / 7 * (changes[:7].mean() - changes[:7])
        assert found[name].parts[:7].sum(axis=1) == pytest.approx(with_lesions, abs=5e-4)
        assert np.abs(with_lesions).max() > 0.01, "else this shows nothing"
    assert found["AP"].images.tolist() == [[5, 3], [5, 2]] * 3 + [[5, 3], [5, 0]]


def test_placements_of_pixels_are_those_of_images(tested):
    maps, masks, owner = tested
    overlap, pixels = read(tested)
    found = pixels.influences(overlap.thresholds(pixels.steps))["AUROC"]
    exact = of_auroc(maps.ravel(), masks.ravel().astype(int), np.repeat(owner, 24 * 24))
    assert found.parts == pytest.approx(exact.parts, abs=2e-4)
    assert np.abs(exact.parts).max() > 0.005, "else this shows nothing"


def test_maps_beyond_the_memory_go_to_disk_and_change_nothing(tested, monkeypatch):
    overlap, pixels = read(tested)
    thresholds = overlap.thresholds(100)
    in_memory = pixels.influences(thresholds)
    monkeypatch.setattr("anomalib_medclip.metrics.patient_pixels._IN_MEMORY", 5000)
    _, pixels = read(tested)
    for name, found in pixels.influences(thresholds).items():
        assert np.array_equal(found.parts, in_memory[name].parts)


def test_a_full_disk_is_named(tested, monkeypatch):
    _, pixels = read(tested)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pixels._file, "write", full)
    with pytest.raises(MetricError, match="let TMPDIR name a folder with 5 bytes a pixel"):
        pixels.add(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2), ["P"])


def test_lesions_of_one_patient_are_too_few(tested):
    overlap, pixels = read(tested, tested[2] > 5)
    with pytest.raises(MetricError, match="add patients with lesions"):
        pixels.influences(overlap.thresholds(10))


def test_many_patients_have_fewer_steps():
    pixels = PatientPixels()
    assert pixels.steps == 1000
    for number in range(6000):
        pixels.add(torch.zeros(1, 1, 2), torch.zeros(1, 1, 2), [str(number)])
    assert pixels.steps == 500


def test_thresholds_are_scores_of_the_curve(tested):
    maps, masks, _ = tested
    metric = AUROC(**PIXELS)
    metric._add(torch.from_numpy(maps), torch.from_numpy(masks))
    thresholds = metric.thresholds(100)
    assert np.isin(thresholds, maps[masks]).all()
    assert (np.diff(thresholds) > 0).all()
    curve = metric.curve(100)
    found = [(maps[masks] >= one).mean() for one in thresholds[::-1]]
    assert curve.recall[1:-1] == pytest.approx(np.array(found))
    with pytest.raises(MetricError, match="needs normal and abnormal scores"):
        AUROC(**PIXELS).thresholds(10)
