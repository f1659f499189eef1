"""MVFA on real images: a set with labels alone, and one with masks."""

import csv
from pathlib import Path
from types import SimpleNamespace

import pytest
from anomalib.engine import Engine
from command import metrics, pictures, rows
from tiny import OPTIONS, TEST_DATA

from anomalib_medclip.data import MedicalFolder
from anomalib_medclip.models.mvfa import MVFA

SETS = {
    "brain_mri": {"object_name": "brain"},
    "busi": {"object_name": "breast ultrasound", "mask_column": "mask"},
}
COUNT = 12  # images of each class, so that a set takes seconds


@pytest.fixture(scope="module", params=SETS)
def run(request, tmp_path_factory):
    """A run on part of a set: its folder, its datamodule, and the patient of each image."""
    if not TEST_DATA:
        pytest.skip("ANOMALIB_MEDCLIP_TEST_DATA names no folder with data")
    root, home = Path(TEST_DATA, "data", request.param), tmp_path_factory.mktemp(request.param)
    patients = cut_table(root / "labels.csv", home / "labels.csv")
    datamodule = MedicalFolder(
        root=root,
        table=home / "labels.csv",
        image_column="file",
        patient_column="dup_group",
        unknown_patient="-1",
        k_shot=2,
        num_workers=0,
        **SETS[request.param],
    )
    engine = Engine(default_root_dir=home, accelerator="cpu", max_epochs=1)
    engine.train(MVFA(**OPTIONS), datamodule=datamodule)
    folder = Path(engine.trainer.default_root_dir)
    return SimpleNamespace(folder=folder, datamodule=datamodule, patients=patients)


def cut_table(source, target):
    """Write a few images of each class, those of known patients first; patients by image."""
    assert source.is_file(), f"{source} is missing; see tests/golden/README.md"
    with source.open(newline="") as file:
        table = sorted(csv.DictReader(file), key=lambda row: row["dup_group"] == "-1")
    kept = [row for label in "01" for row in [r for r in table if r["label"] == label][:COUNT]]
    with target.open("w", newline="") as file:
        writer = csv.DictWriter(file, kept[0])
        writer.writeheader()
        writer.writerows(kept)
    return {(source.parent / row["file"]).as_posix(): row["dup_group"] for row in kept}


def test_only_masks_make_metrics_of_pixels(run):
    found = {name.split("_")[0] for name, one in metrics(run.folder).items() if one is not None}
    of_pixels = {"pixel", "lesion"} if run.datamodule.has_masks else set()
    assert found - {"support", "threshold"} == {"image", "patient"} | of_pixels


def test_no_patient_of_the_support_is_tested(run):
    support = run.datamodule.support_data.samples.image_path
    known = {run.patients[Path(path).as_posix()] for path in support} - {"-1"}
    assert known, "then there is nothing to keep apart"
    assert not known & {run.patients[image] for image in rows(run.folder / "test_scores.csv")}


def test_every_test_image_has_a_picture_and_a_score(run):
    images = {Path(path).as_posix() for path in run.datamodule.test_data.samples.image_path}
    scores = rows(run.folder / "test_scores.csv")
    assert set(scores) == images
    assert len(pictures(run.folder)) == len(images)
