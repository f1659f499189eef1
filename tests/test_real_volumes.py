"""CT and MR volumes of two or three patients, and a DICOM series, on a real image tower.

So few say next to nothing, and it is said that they do.
"""

import json
import re
from pathlib import Path

import pytest
import yaml
from command import anomalib, metrics
from dicom_results import NAMES, errors_in, needs_dciodvfy
from scans import record
from tiny import TEST_DATA

from anomalib_medclip.cli import main

ROOT = Path(TEST_DATA or "nowhere")
TOWER = ROOT / "backbones" / "dinov2_vits14"
LIVER = {
    "root": "data/liver_ct/nifti",
    "sources": [
        {
            "image": "liver_{patient}_ct.nii.gz",
            "mask": "liver_{patient}_labels.nii.gz",
            "lesion_labels": [2],
            "organ": "liver_{patient}_labels.nii.gz",
            "organ_labels": [1, 2],
        }
    ],
    "spacing": [1.5, 1.5, 10.0],
    "intensity": [-100, 240],
}
BRAIN = {
    "root": "data/brats_volumes",
    "sources": [
        {
            "image": "TCGA-{patient}/flair.nii.gz",
            "mask": "TCGA-{patient}/seg.nii.gz",
            "lesion_labels": "all",
        }
    ],
    "spacing": [2.0, 2.0, 16.0],
    "intensity": {"percentiles": [1, 99]},
}


def model(name):
    """A method on the tower, beside a random text tower."""
    tower = json.loads(TOWER.with_suffix(".json").read_text())
    given = {
        "backbone": tower, "pretrained": f"{TOWER}_fp16.safetensors", "normalize": False,
        "levels": [3, 6, 9, 12], "image_size": 224,
    }  # fmt: skip
    return {"class_path": f"anomalib_medclip.{name}", "init_args": given}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Trains and tests by the command: ``run(name, data)`` gives the folder of the run."""
    if not TEST_DATA:
        pytest.skip("ANOMALIB_MEDCLIP_TEST_DATA names no folder with data")
    monkeypatch.chdir(tmp_path)

    def command(name, data):
        given = {**data, "root": str(ROOT / data["root"]), "object_name": "organ", "k_shot": 1}
        data = {"class_path": "anomalib_medclip.data.Volumes", "init_args": given}
        for kind, config in (("model", model(name)), ("data", data)):
            (tmp_path / f"{kind}.yaml").write_text(yaml.safe_dump(config))
        anomalib(
            "train --model model.yaml --data data.yaml --trainer.max_epochs 1 "
            "--trainer.accelerator cpu --trainer.enable_progress_bar false",
            monkeypatch,
        )
        [found] = tmp_path.glob("results/*/*/v0")
        return found

    return command


def score(run, path, out, *options):
    """Score a volume or series, and return the folder of its results."""
    checkpoint = str(run / "weights" / "lightning" / "model.ckpt")
    assert main(["score", str(path), "--ckpt", checkpoint, "--out", str(out), *options]) == 0
    return out / path.name.removesuffix(".nii.gz")


def assert_too_few(run, folder, said):
    assert not re.search(r"\bnan\b", said.out + said.err, re.IGNORECASE)
    assert metrics(run)["threshold_from"].startswith("images it learnt from")
    verdict = record(folder)["verdict"]
    assert (verdict["label"], verdict["p_value"], verdict["probability"]) == (None, None, None)
    assert all("too few patients" in verdict[f"no_{one}"] for one in ("verdict", "probability"))
    assert " ".join(said.err.split()).count("no verdict (too few patients") == 1


@needs_dciodvfy
@pytest.mark.nightly(
    also="tests/score/test_verdicts.py::"
    "test_few_patients_give_no_probability_and_a_p_value_that_is_not_small"
)
@pytest.mark.parametrize("name", ["MVFA", "MediCLIP"])
def test_three_patients_are_too_few_and_the_series_has_all_its_objects(name, run, tmp_path, capfd):
    found = run(name, LIVER)
    series = ROOT / "data" / "liver_ct" / "dicom_17"
    organ = str(series.with_name("dicom_17_labels.nii.gz"))
    folder = score(found, series, tmp_path / "maps", "--organ", organ)
    assert_too_few(found, folder, capfd.readouterr())
    assert all((folder / kind).is_file() for kind in NAMES)
    assert not errors_in(folder)


@pytest.mark.nightly(
    also="tests/score/test_verdicts.py::"
    "test_few_patients_give_no_probability_and_a_p_value_that_is_not_small"
)
def test_two_patients_of_whom_one_is_learnt_from_are_too_few(run, tmp_path, capfd):
    found = run("MVFA", BRAIN)
    path = ROOT / "data" / "brats_volumes" / "AURORA" / "flair.nii.gz"
    assert_too_few(found, score(found, path, tmp_path / "maps"), capfd.readouterr())
