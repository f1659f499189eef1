"""Figures, scores, curves and pictures of a test, against scikit-learn and the files themselves."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from anomalib.engine import Engine
from comparing import SMALL, phantom_entry
from lightning.pytorch import Callback
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)
from volumes import write_patients

from anomalib_medclip.compare import pictures
from anomalib_medclip.compare.evaluator import GalleryFindings, small_map
from anomalib_medclip.compare.store import Store
from anomalib_medclip.data import Volumes, VolumeSource
from anomalib_medclip.data.config import build_data
from anomalib_medclip.models.mvfa import MVFA


class Kept(Callback):
    """Keeps the test batches, whose scores are normalised after it has seen them."""

    def __init__(self):
        self.batches, self.raw_scores, self.raw_maps = [], [], []

    def on_test_batch_end(self, _trainer, _model, _outputs, batch, *_args):
        self.batches.append(batch)
        self.raw_scores += batch.pred_score.tolist()
        self.raw_maps.append(batch.anomaly_map.flatten().clone())

    def on_test_end(self, *_args):
        self.scores = [float(score) for batch in self.batches for score in batch.pred_score]
        self.labels = [int(label) for batch in self.batches for label in batch.gt_label]
        self.maps = [one.squeeze() for batch in self.batches for one in batch.anomaly_map]
        self.masks = [one.squeeze() for batch in self.batches for one in batch.gt_mask]
        self.paths = [path for batch in self.batches for path in batch.image_path]


def answers_of(data, home):
    """What a test of MVFA has found, what its model said, and the data."""
    model, kept = MVFA(**SMALL), Kept()
    model.evaluator, model.visualizer = GalleryFindings(), None
    engine = Engine(
        callbacks=[kept], default_root_dir=home, accelerator="cpu", max_epochs=1, logger=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    engine.fit(model, datamodule=data)
    engine.test(model, datamodule=data, verbose=False)
    return model.evaluator, kept, data


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    home = tmp_path_factory.mktemp("tested")
    data = build_data(phantom_entry(home / "pictures", k_shot=2), "heads")
    return answers_of(data, home)


def pixels_of(kept):
    """Truth and score of every pixel, as the model gave it."""
    return torch.stack(kept.masks).flatten().numpy(), torch.cat(kept.raw_maps).numpy()


def test_figures_are_scikit_learns_of_the_models_own_scores(found):
    findings, kept, _ = found
    pixels = pixels_of(kept)
    expected = {
        "image_AUROC": roc_auc_score(kept.labels, kept.raw_scores),
        "image_AP": average_precision_score(kept.labels, kept.raw_scores),
        "pixel_AUROC": roc_auc_score(*pixels),
        "pixel_AP": average_precision_score(*pixels),
    }
    for name, value in expected.items():
        assert findings.result.figures[name] == pytest.approx(value, abs=1e-9), name
    assert findings.result.images.scores == kept.scores
    assert findings.result.images.paths == kept.paths


def test_pixel_curves_are_points_of_scikit_learns(found):
    findings, kept, _ = found
    pixels = pixels_of(kept)
    false, true, _ = roc_curve(*pixels, drop_intermediate=False)
    precision, recall, _ = precision_recall_curve(*pixels)
    curves = {name: np.array(values) for name, values in asdict(findings.curves).items()}
    points = list(zip(*curves.values(), strict=True))
    assert len(points) > 20
    for alarms, hits, right in points:
        assert np.hypot(false - alarms, true - hits).min() < 2e-5
        assert np.hypot(recall - hits, precision - right).min() < 2e-5
    assert points[0] == (0.0, 0.0, 1.0)
    assert points[-1][:2] == (1.0, 1.0)
    assert (np.diff(curves["recall"]) >= 0).all()


def test_a_second_test_forgets_the_first(found):
    findings, kept, data = found
    before = findings.result.images.scores, sorted(findings.maps)
    again = GalleryFindings()
    again.start()
    assert (again.result, again.maps, again.curves) == (None, {}, None)
    assert len(before[0]) == len(data.test_data.samples) == len(kept.scores)
    assert before[1] == pictures.paths_to_keep(data)


def test_maps_of_the_gallery_are_those_of_the_model(found):
    findings, kept, data = found
    record, arrays = pictures.keep(data, findings.maps, "test0_")
    paths = list(data.test_data.samples["image_path"])
    for place, index in enumerate(record.image):
        of_model = kept.maps[kept.paths.index(paths[index])]
        assert np.array_equal(arrays["test0_maps"][place], small_map(of_model))


def test_a_small_map_has_its_threshold_in_the_middle():
    half = small_map(torch.full((32, 32), 0.5))
    assert half.shape == (pictures.PICTURE_SIDE, pictures.PICTURE_SIDE)
    assert half.dtype == np.uint8
    assert np.unique(half).tolist() == [128]
    assert np.unique(small_map(torch.tensor([[2.0, 2.0], [2.0, 2.0]]))).tolist() == [255]


def records_of(store):
    return [store.record(cell.key) for cell in store.grid().cells]


def test_figures_of_a_record_follow_from_its_scores(compared):
    for record in records_of(Store(compared[0])):
        for test in record.tests:
            images = test.images
            assert test.honest["image_AUROC"] == pytest.approx(
                roc_auc_score(images.label, images.raw_score), abs=1e-9
            )
            assert test.honest["image_AP"] == pytest.approx(
                average_precision_score(images.label, images.raw_score), abs=1e-9
            )
            assert len(images.name) == len(set(images.name)) == 12
            assert len(images.patient) == 12
            assert all(0 <= score <= 1 for score in images.score)


def test_every_model_shows_the_same_images(compared):
    store = Store(compared[0])
    first = [record for record in records_of(store) if record.cell.draw == 0]
    assert len({record.cell.model for record in first}) == 5
    shown = []
    for record in first:
        kept, arrays = record.tests[0].gallery, store.arrays(record.key)
        shape = (len(kept.image), pictures.PICTURE_SIDE, pictures.PICTURE_SIDE)
        assert {arrays[name].shape for name in (kept.pictures, kept.masks, kept.maps)} == {shape}
        assert all(array.dtype == np.uint8 for array in arrays.values())
        names = [record.tests[0].images.name[i] for i in kept.image]
        label = np.array([record.tests[0].images.label[i] for i in kept.image])
        assert np.array_equal(arrays[kept.masks].any(axis=(1, 2)), label == 1)
        shown.append((names, arrays[kept.pictures], arrays[kept.masks]))
    for names, shots, masks in shown[1:]:
        assert names == shown[0][0]
        assert np.array_equal(shots, shown[0][1])
        assert np.array_equal(masks, shown[0][2])


def test_other_draws_keep_figures_and_no_pictures(compared):
    store = Store(compared[0])
    others = [record for record in records_of(store) if record.cell.draw > 0]
    assert others
    for record in others:
        assert record.tests[0].gallery is None
        assert store.arrays(record.key) == {}


def test_volumes_are_kept_whole(tmp_path):
    write_patients(tmp_path / "hospital", count=8)
    source = VolumeSource("{patient}/flair.nii.gz", mask="{patient}/seg.nii.gz")
    splits = {f"P{n}": ("train", "train", "valid", "valid", "test")[min(n, 4)] for n in range(8)}
    data = Volumes(
        tmp_path / "hospital", [source], intensity=(0.0, 1000.0), k_shot=2, splits=splits
    )
    findings, _, _ = answers_of(data, tmp_path)
    record, arrays = pictures.keep(data, findings.maps, "t_")
    table = data.test_data.samples
    stacks = {}
    for volume, number, index in zip(record.volume, record.slice, record.image, strict=True):
        row = table.iloc[index]
        if volume:
            assert row["image_path"].endswith(f"_{number:03d}.png")
            assert volume == f"hospital/{row['group']}/flair.nii.gz"
            stacks.setdefault(volume, []).append(number)
    assert len(stacks) == 2
    assert all(numbers == list(range(6)) for numbers in stacks.values())
    assert len(arrays["t_pictures"]) == len(arrays["t_maps"]) == len(record.image)
