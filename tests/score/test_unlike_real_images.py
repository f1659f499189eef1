"""What a model of brain MRI says of other images, with a real pretrained tower."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.engine import Engine
from scipy.stats import beta
from tiny import TEST_DATA
from torch import Tensor
from torchvision.tv_tensors import Image

from anomalib_medclip import MadCLIP
from anomalib_medclip.data import MedicalFolder
from anomalib_medclip.readers.picture import read_image
from anomalib_medclip.score.inferencer import Inferencer

with_real_images = pytest.mark.skipif(
    not Path(TEST_DATA or "none", "backbones").is_dir(),
    reason="ANOMALIB_MEDCLIP_TEST_DATA names no folder with backbones and data",
)

EVERY = 5  # of the images of other sets, to take a minute for each draw


@pytest.fixture(scope="module", params=[0, 1, 2])
def model(request, tmp_path_factory):
    """MadCLIP, few-shot, and its test images by class; what it has learnt is of no matter here."""
    shared, home = Path(TEST_DATA), tmp_path_factory.mktemp("brain")
    tower = shared / "backbones"
    data = MedicalFolder(
        root=shared / "data" / "brain_mri", table=shared / "data" / "brain_mri" / "labels.csv",
        image_column="file", patient_column="dup_group", unknown_patient="-1",
        object_name="brain", k_shot=16, val_ratio=0.3, seed=request.param, num_workers=0,
    )  # fmt: skip
    method = MadCLIP(
        backbone=json.loads((tower / "dinov2_vits14.json").read_text()),
        pretrained=str(tower / "dinov2_vits14_fp16.safetensors"),
        normalize=False, image_size=224, levels=[3, 6, 9, 12],
    )  # fmt: skip
    engine = Engine(
        default_root_dir=home, accelerator="cpu", max_epochs=1, limit_train_batches=2,
        enable_progress_bar=False, logger=False,
    )  # fmt: skip
    engine.fit(method, datamodule=data)
    table = data.test_data.samples
    tested = {
        word: table.loc[table["label_index"] == label, "image_path"].tolist()
        for label, word in enumerate(("normal", "tumour"))
    }
    return Inferencer(next(home.rglob("*.ckpt"))), tested


def abstained(inferencer, images):
    """Whether a model abstains from each image, a file or numbers."""
    found = []
    for one in images:
        image = read_image(one) if isinstance(one, str | Path) else one
        answer = inferencer.answer(inferencer.resize(image[None]).as_subclass(Tensor))
        verdict = inferencer.decide(answer.scores, answer.areas, answer.vectors, is_volume=False)
        found.append(verdict.unlike.abstains)
    return np.array(found)


def of_set(name):
    folder = Path(TEST_DATA, "data", name)
    with (folder / "labels.csv").open(newline="") as file:
        return [folder / row["file"] for row in csv.DictReader(file)][::EVERY]


def photographs():
    """Those that scikit-learn brings along, whole and in parts, in colour and grey."""
    from sklearn.datasets import load_sample_images

    for pixels in load_sample_images().images:
        whole = torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255
        for part in (whole, *whole.unfold(1, 213, 213).unfold(2, 213, 213).flatten(1, 2).unbind(1)):
            yield Image(part)
            yield Image(part.mean(0, keepdim=True).expand(3, -1, -1))


def noise():
    random = torch.Generator().manual_seed(0)
    for channels in (1, 3):
        for _ in range(10):
            yield Image(torch.rand(channels, 240, 240, generator=random).expand(3, -1, -1))


@with_real_images
@pytest.mark.nightly(
    also="tests/score/test_abstention.py::test_noise_is_abstained_and_most_test_images_are_not"
)
def test_other_images_are_abstained(model, record_property):
    inferencer, tested = model
    inverted = [Image(1 - read_image(path)) for paths in tested.values() for path in paths]
    others = {
        "breast ultrasound": of_set("busi"), "liver CT": of_set("liver_ct"),
        "photographs": photographs(), "noise": noise(), "inverted": inverted[::EVERY],
    }  # fmt: skip
    shares = {name: float(abstained(inferencer, images).mean()) for name, images in others.items()}
    record_property("abstained", str(shares))  # plain words, which travel between processes
    assert min(shares.values()) >= 0.95, shares


@with_real_images
@pytest.mark.nightly(
    also="tests/score/test_abstention.py::test_noise_is_abstained_and_most_test_images_are_not"
)
def test_test_images_of_either_class_are_seldom_abstained(model, record_property):
    inferencer, tested = model
    for word, paths in tested.items():
        found = abstained(inferencer, paths)
        bound = beta.ppf(0.95, found.sum() + 1, len(found) - found.sum())
        record_property(word, f"{found.sum()} of {len(found)}, at most {bound:.3f}")
        assert found.mean() <= 0.05
