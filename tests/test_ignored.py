"""Pixels of which nobody knows count in no loss and in no figure, wherever their masks are read."""

import numpy as np
import pytest
import torch
from anomalib.engine import Engine
from anomalib.metrics import Evaluator, F1Score
from anomalib.models import Patchcore
from anomalib.post_processing import PostProcessor
from lightning.pytorch import Callback
from pictures import save
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from tiny import METHODS, small
from torchvision.tv_tensors import Mask
from volumes import save_nifti, volume

from anomalib_medclip.compare.evaluator import GalleryFindings
from anomalib_medclip.components.augmentation import ELEVEN_FOLD, Copies
from anomalib_medclip.components.losses import dice, focal
from anomalib_medclip.components.processors import RankPreservingPostProcessor
from anomalib_medclip.components.threshold import MidwayThreshold
from anomalib_medclip.data import BMAD, MedicalFolder, Volumes, VolumeSource
from anomalib_medclip.data.batch import MedicalBatch
from anomalib_medclip.data.checks import check_data
from anomalib_medclip.data.slice_tree import cut_tree
from anomalib_medclip.data.slicing import Slicing, cut
from anomalib_medclip.errors import DataRootError, MaskError
from anomalib_medclip.metrics import AUPRO, AUROC, AveragePrecision
from anomalib_medclip.metrics.patient_pixels import PatientPixels
from anomalib_medclip.readers.lesion import IGNORED, LESION, MaskLabels
from anomalib_medclip.readers.picture import read_lesion, read_mask
from anomalib_medclip.readers.resize import MethodResize
from anomalib_medclip.training.evaluators import evaluator
from anomalib_medclip.training.frozen_features import FrozenFeatures

VOID = 255
PIXELS = {"fields": ["anomaly_map", "gt_mask"]}


def pixels(seed=0, images=6, side=16):
    """Maps, lesions, and pixels of which nobody knows, which the maps call abnormal."""
    random = np.random.default_rng(seed)
    lesions = np.zeros((images, side, side), bool)
    ignored = np.zeros_like(lesions)
    for image in range(0, images, 2):
        top, left = random.integers(0, side - 6, 2)
        lesions[image, top : top + 5, left : left + 4] = True
    ignored[:, :3] = ignored[1, 5:12] = True
    ignored &= ~lesions
    maps = random.normal(size=lesions.shape) + 1.5 * lesions + 3 * ignored
    return [torch.from_numpy(one) for one in (maps.astype(np.float32), lesions, ignored)]


def batch_of(maps, lesions, ignored):
    count, *sides = maps.shape
    return MedicalBatch(
        image=torch.zeros(count, 3, *sides),
        gt_mask=lesions,
        gt_label=lesions.any(dim=(1, 2)).long(),
        anomaly_map=maps,
        pred_mask=maps > 1,
        pred_score=maps.amax(dim=(1, 2)),
        ignored=ignored,
    )


# --- what masks say


@pytest.mark.parametrize("seed", range(8))
def test_every_number_means_what_the_options_say(tmp_path, seed):
    random = np.random.default_rng(seed)
    numbers = random.choice(256, random.integers(3, 7), replace=False)
    labels = random.choice(numbers, (12, 14)).astype(np.uint8)
    lesion, ignored = numbers[:1].tolist(), numbers[1:3].tolist()
    path = save(tmp_path / "mask.png", labels)
    marks = read_mask(path, (12, 14), MaskLabels(tuple(lesion), tuple(ignored))).numpy()
    assert ((marks == LESION) == np.isin(labels, lesion)).all()
    assert ((marks == IGNORED) == np.isin(labels, ignored)).all()
    rest = read_lesion(path, MaskLabels("all", tuple(ignored)))
    assert (rest == ((labels != 0) & ~np.isin(labels, ignored))).all()


def test_the_one_number_that_is_left_is_the_lesion_and_of_two_it_is_asked(tmp_path):
    labels = np.zeros((8, 8), np.uint8)
    labels[0], labels[3:5, 3:5] = VOID, 7
    path = save(tmp_path / "mask.png", labels)
    assert (read_lesion(path, MaskLabels(ignored=(VOID,))) == (labels == 7)).all()
    labels[6] = 9
    with pytest.raises(MaskError, match=r"holds 7 and 9 beside 0 and 255.*lesion_labels"):
        read_lesion(save(path, labels), MaskLabels(ignored=(VOID,)))
    with pytest.raises(MaskError, match="both name 7"):
        MaskLabels((7, 9), (VOID, 7))


@pytest.mark.parametrize("rule", ["nearest", "area"])
def test_a_resized_mask_keeps_lesions_and_what_is_not_known_apart(rule):
    marks = torch.zeros(64, 64, dtype=torch.uint8)
    marks[:16], marks[40:56, 40:56], marks[20, 60] = IGNORED, LESION, LESION
    found = MethodResize(16, masks=rule)(Mask(marks))
    assert found.unique().tolist() == [0, LESION, IGNORED]
    assert (found[:4] == IGNORED).all()
    assert (found[10:14, 10:14] == LESION).all()
    assert bool((found[5] == LESION).any()) is (rule == "area")
    assert int((found == IGNORED).sum()) == 4 * 16


# --- losses


def test_losses_are_those_of_the_known_pixels_alone():
    random = torch.Generator().manual_seed(0)
    probability = torch.rand(3, 1, 8, 8, generator=random, requires_grad=True)
    mask = (torch.rand(3, 1, 8, 8, generator=random) > 0.7).float()
    unknown = torch.rand(3, 1, 8, 8, generator=random) > 0.6
    with_gaps = mask.masked_fill(unknown, torch.nan)
    alone = focal(probability[~unknown][None, None, None], mask[~unknown][None, None, None])
    torch.testing.assert_close(focal(probability, with_gaps), alone)
    torch.testing.assert_close(
        dice(probability, with_gaps), dice(probability * ~unknown, mask * ~unknown)
    )
    (focal(probability, with_gaps) + dice(probability, with_gaps)).backward()
    assert (probability.grad[unknown] == 0).all()
    assert (probability.grad[~unknown] != 0).all()


def test_a_mask_of_which_nothing_is_known_teaches_nothing():
    probability, nothing = torch.rand(2, 1, 4, 4), torch.full((2, 1, 4, 4), torch.nan)
    assert focal(probability, nothing) == 0
    assert dice(probability, nothing) == dice(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4))


def test_what_is_not_known_moves_with_the_copies_of_its_image():
    features = object.__new__(FrozenFeatures)
    features.copies = Copies.alike(ELEVEN_FOLD)
    ignored = torch.zeros(1, 16, 16, dtype=torch.bool)
    ignored[0, :, :4] = True
    batch = batch_of(torch.zeros(1, 16, 16), torch.zeros(1, 16, 16, dtype=torch.bool), ignored)
    batch.copy = torch.tensor([9])  # mirrored from left to right
    assert (features.masks_of(batch).isnan()[0, 0] == ignored[0].flip(-1)).all()
    batch.copy = torch.tensor([1])  # rotated
    assert features.masks_of(batch).isnan().float().mean() == pytest.approx(0.25, abs=0.06)
    batch.ignored = None
    assert not features.masks_of(batch).isnan().any()


# --- figures


def test_figures_are_those_of_the_known_pixels_alone():
    maps, lesions, ignored = pixels()
    truth, scores = lesions[~ignored].numpy(), maps[~ignored].numpy()
    overlap = AUPRO(**PIXELS)
    metrics = [overlap, AUROC(**PIXELS), AveragePrecision(**PIXELS, scores_of=overlap)]
    f1 = evaluator().test_metrics[-1]
    for start in range(0, 6, 2):
        for metric in (*metrics, f1):
            metric.update(batch_of(*(one[start : start + 2] for one in (maps, lesions, ignored))))
    assert metrics[1].compute() == pytest.approx(roc_auc_score(truth, scores))
    assert metrics[2].compute() == pytest.approx(average_precision_score(truth, scores))
    assert f1.compute() == pytest.approx(f1_score(truth, scores > 1))
    assert metrics[0].compute() == pytest.approx(overlap_by_hand(maps, lesions, ignored), abs=2e-3)


def overlap_by_hand(maps, lesions, ignored, limit=0.3, steps=3000):
    """AUPRO of images with one lesion each, in steps of the threshold."""
    ill = [image for image in range(len(maps)) if lesions[image].any()]
    normal = maps[~lesions & ~ignored]
    places = []
    for threshold in torch.linspace(float(maps.min()), float(maps.max()), steps):
        found = [(maps[one][lesions[one]] >= threshold).float().mean() for one in ill]
        places.append((float((normal >= threshold).float().mean()), float(np.mean(found))))
    rates, overlaps = np.array(sorted(places)).T
    grid = np.linspace(0, limit, 2001)
    return np.trapezoid(np.interp(grid, rates, overlaps), grid) / limit


def test_the_threshold_of_pixels_does_not_depend_on_what_is_not_known():
    maps, lesions, ignored = pixels()
    found = MidwayThreshold(**PIXELS)
    found.update(batch_of(maps, lesions, ignored))
    known = MidwayThreshold(**PIXELS)
    flat = [one[~ignored].reshape(1, 1, -1) for one in (maps, lesions)]
    known.update(batch_of(*flat, None))
    assert found.compute() == known.compute()
    of_images = MidwayThreshold(fields=["pred_score", "gt_label"])
    of_images.update(batch_of(maps, lesions, ignored))
    assert len(of_images.target[0]) == len(maps)


def test_what_patients_add_is_of_known_pixels_alone():
    maps, lesions, ignored = pixels(images=8)
    owners = [f"P{image // 2}" for image in range(8)]
    kept, apart = PatientPixels(), PatientPixels()
    kept.add(maps, lesions, owners, ignored)
    for image, owner in enumerate(owners):  # a picture of the known pixels, in rows of one
        known = ~ignored[image]
        flat = [one[image][known].reshape(1, 1, -1) for one in (maps, lesions)]
        apart.add(*flat, [owner])
    overlap = AUPRO(**PIXELS)
    overlap.update(batch_of(maps, lesions, ignored))
    found, wanted = (one.influences(overlap.thresholds()) for one in (kept, apart))
    for name in ("AUROC", "AP"):
        assert found[name].value == pytest.approx(wanted[name].value)
        np.testing.assert_allclose(found[name].parts, wanted[name].parts)


# --- a training, and what it is measured by


def write_clinic(root, seed=0):
    """Normal and abnormal pictures with masks; a border of each is not known, and bright."""
    random = np.random.default_rng(seed)
    for number in range(24):
        ill = number % 2
        picture, mask = random.integers(20, 60, (40, 40), dtype=np.uint8), np.zeros((40, 40), "u1")
        picture[:6], mask[:6] = 200, VOID
        if ill:
            top, left = random.integers(10, 28, 2)
            picture[top : top + 9, left : left + 9], mask[top : top + 9, left : left + 9] = 220, 1
        for folder, shown in (("abnormal" if ill else "normal", picture), ("masks", mask)):
            (root / folder).mkdir(exist_ok=True)
            save(root / folder / f"{number}.png", shown)
    return root


@pytest.fixture(scope="module")
def clinic(tmp_path_factory):
    return write_clinic(tmp_path_factory.mktemp("clinic"))


def data_of(clinic, **options):
    asked = {"mask_dir": "masks", "ignore_labels": (VOID,), "k_shot": 3, "num_workers": 0}
    return MedicalFolder(clinic, **{**asked, **options})


class Seen(Callback):
    """Test batches with the maps that the model gave, and where masks of training are unknown."""

    def __init__(self):
        self.maps, self.lesions, self.ignored, self.unlearnt = [], [], [], []

    def on_train_batch_start(self, _trainer, model, batch, _index):
        _, masks, _ = model.examples(batch)
        self.unlearnt.append((masks.isnan().squeeze(1), batch.ignored, batch.copy))

    def on_test_batch_end(self, _trainer, _model, _outputs, batch, *_args):
        self.maps.append(batch.anomaly_map.reshape(batch.gt_mask.shape).clone())
        self.lesions.append(batch.gt_mask.clone())
        self.ignored.append(batch.ignored.clone())


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
def test_a_method_is_trained_and_measured_on_what_is_known(method, clinic, tmp_path):
    model, seen, data = small(method), Seen(), data_of(clinic)
    model.evaluator, model.visualizer = GalleryFindings(), None
    engine = Engine(
        callbacks=[seen], default_root_dir=tmp_path, accelerator="cpu", max_epochs=1, logger=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    engine.fit(model, datamodule=data)
    engine.test(model, datamodule=data, verbose=False)
    for unknown, ignored, copy in seen.unlearnt:
        itself = copy == 0  # other copies are moved
        assert torch.equal(unknown[itself], ignored[itself])
        assert unknown.any()
    maps, lesions, ignored = (torch.cat(one) for one in (seen.maps, seen.lesions, seen.ignored))
    assert ignored[:, 0].all(), "the border, of normal images, too"
    assert not (ignored & lesions).any()
    known = lesions[~ignored].numpy(), maps[~ignored].numpy()
    assert model.evaluator.result.figures["pixel_AUROC"] == pytest.approx(
        roc_auc_score(*known), abs=1e-6
    )
    assert model.evaluator.result.figures["pixel_AP"] == pytest.approx(
        average_precision_score(*known), abs=1e-6
    )
    for name in ("AUROC", "AP"):  # counted between thresholds
        of_patients = model.evaluator.result.influences[f"pixel_{name}"].value
        assert of_patients == pytest.approx(
            model.evaluator.result.figures[f"pixel_{name}"], abs=5e-3
        )
    assert model.post_processor.pixel_threshold.isfinite()


def test_who_would_count_them_is_refused_with_what_would_not(clinic, tmp_path):
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", max_epochs=1, logger=False)
    theirs = Evaluator(test_metrics=[F1Score(fields=["pred_mask", "gt_mask"], prefix="pixel_")])
    with pytest.raises(MaskError, match=r"Evaluator has a F1Score.*evaluators\.evaluator\(\)"):
        engine.fit(small(METHODS[0], evaluator=theirs), datamodule=data_of(clinic))
    with pytest.raises(MaskError, match=r"PostProcessor has a .*RankPreservingPostProcessor"):
        engine.fit(
            Patchcore(evaluator=evaluator(), post_processor=PostProcessor(), pre_trained=False),
            datamodule=data_of(clinic),
        )


class OfMasks(Patchcore):
    """A model that learns from masks, as some of anomalib's do."""

    def training_step(self, batch, *_args):
        return batch.gt_mask.sum()


def test_a_model_that_would_learn_them_as_healthy_is_refused(clinic, tmp_path):
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", max_epochs=1, logger=False)
    parts = {"evaluator": evaluator(), "post_processor": RankPreservingPostProcessor()}
    with pytest.raises(MaskError, match=r"OfMasks learns from masks.*leaves_out_ignored"):
        engine.fit(OfMasks(pre_trained=False, **parts), datamodule=data_of(clinic))


def test_check_says_the_same_of_masks(clinic, tmp_path):
    assert not [one for one in check_data(data_of(clinic)).problems if "mask" in one.kind]
    most = check_data(data_of(clinic, ignore_labels=(0, VOID))).problems
    assert "most of an image ignored" in {one.kind for one in most}
    found = check_data(data_of(clinic, ignore_labels=())).problems
    assert {one.kind for one in found if one.severity == "error"} >= {"mask values"}


# --- volumes


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Six patients; 5 is lesion, 9 means that nobody knows, on slices with and without lesions."""
    root = tmp_path_factory.mktemp("scans")
    for number in range(6):
        voxels, lesion = volume(number, (1, 3))
        labels = lesion * np.uint8(5)
        labels[:, :4, 2:5] = 9
        save_nifti(root / f"P{number}" / "scan.nii.gz", voxels)
        save_nifti(root / f"P{number}" / "seg.nii.gz", labels)
    return root


def volumes_of(scans, name="Brain", **options):
    source = VolumeSource("{patient}/scan.nii.gz", "{patient}/seg.nii.gz", ignore_labels=(9,))
    return Volumes(scans, [source], name=name, intensity=(0.0, 1000.0), k_shot=1, **options)


ROTATED = {"class_path": "monai.transforms.Rotate90d", "init_args": {"keys": ["image", "mask"]}}


@pytest.mark.parametrize(
    "slicing",
    [
        Slicing(),
        Slicing("coronal"),
        Slicing(spacing=(2.0, 1.5, 3.0)),
        Slicing(transforms=(ROTATED,)),
    ],
    ids=["axial", "coronal", "resampled", "rotated"],
)
def test_what_is_not_known_of_a_volume_lies_where_its_label_does(scans, slicing):
    image, mask = scans / "P0" / "scan.nii.gz", scans / "P0" / "seg.nii.gz"
    found, lesion, unknown = (
        cut(image, (0.0, 1000.0), slicing, mask, labels)
        for labels in (MaskLabels((5,), (9,)), MaskLabels((5,)), MaskLabels((9,)))
    )
    assert torch.equal(found.lesions, lesion.lesions)
    assert torch.equal(found.masks == IGNORED, unknown.lesions & ~lesion.lesions)
    assert found.lesions.any()
    assert (found.masks == IGNORED).any()


def counts(data, label):
    """How many pixels are lesion, and how many not known, in the images of a class."""
    table = data.complete(data.list_images())
    items = data._dataset(table[table["label_index"] == label].assign(split="test"))
    items = [items[number] for number in range(len(items))]
    return (
        sum(int(item.gt_mask.sum()) for item in items),
        sum(int(item.ignored.sum()) for item in items if item.ignored is not None),
    )


def test_pictures_of_volumes_keep_what_is_not_known(scans, tmp_path):
    data = volumes_of(scans)
    assert data.has_ignored
    cut_tree(data, tmp_path, shares=(0.0, 0.5, 0.5))  # as published, training is normal
    labels = {"lesion_labels": (VOID,), "ignore_labels": (127,)}
    pictures = BMAD(tmp_path, "Brain", intensity="dtype", **labels)
    for label in (0, 1):
        assert counts(pictures, label) == counts(data, label)
        assert counts(data, label)[1] > 0
    problems = list(BMAD(tmp_path, "Brain", intensity="dtype").file_problems(
        pictures.complete(pictures.list_images())
    ))  # fmt: skip
    assert problems, "without the options nothing is taken for healthy or lesion in silence"


def test_a_tree_is_made_anew_for_other_labels(scans, tmp_path):
    cut_tree(volumes_of(scans), tmp_path)
    with pytest.raises(DataRootError, match="other"):
        cut_tree(volumes_of(scans, lesion_labels=(5,)), tmp_path)
