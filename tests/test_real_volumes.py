"""CT volumes of three patients, and a DICOM series: what three are too few for is said so."""

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
VOLUMES = ROOT / "data" / "liver_ct"
TOWER = ROOT / "backbones" / "dinov2_vits14"
DATA = {
    "class_path": "anomalib_medclip.data.Volumes",
    "init_args": {
        "root": str(VOLUMES / "nifti"),
        "sources": [
            {
                "image": "liver_{patient}_ct.nii.gz",
                "mask": "liver_{patient}_labels.nii.gz",
                "lesion_labels": [2],
                "organ": "liver_{patient}_labels.nii.gz",
                "organ_labels": [1, 2],
            }
        ],
        "spacing": [1.5, 1.5, 16.0],
        "intensity": [-100, 240],
        "object_name": "liver",
        "k_shot": 1,
    },
}


def model(name):
    """A method on a real image tower, beside a random text tower."""
    tower = json.loads(TOWER.with_suffix(".json").read_text())
    given = {
        "backbone": tower, "pretrained": f"{TOWER}_fp16.safetensors", "normalize": False,
        "levels": [3, 6, 9, 12], "image_size": 224,
    }  # fmt: skip
    return {"class_path": f"anomalib_medclip.{name}", "init_args": given}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Trains and tests by the command: ``run(name, **data)`` gives the folder of the run."""
    if not TEST_DATA:
        pytest.skip("ANOMALIB_MEDCLIP_TEST_DATA names no folder with data")
    monkeypatch.chdir(tmp_path)

    def command(name, **data):
        given = {**DATA, "init_args": {**DATA["init_args"], **data}}
        for kind, config in (("model", model(name)), ("data", given)):
            (tmp_path / f"{kind}.yaml").write_text(yaml.safe_dump(config))
        anomalib(
            "train --model model.yaml --data data.yaml --trainer.max_epochs 1 "
            "--trainer.accelerator cpu --trainer.enable_progress_bar false",
            monkeypatch,
        )
        [found] = tmp_path.glob("results/*/*/v0")
        return found

    return command


def score(run, out):
    """Score the series, cropped to the liver, and return the folder of its results."""
    organs = out.parent / "organs"
    organs.mkdir()
    (organs / "dicom_17.nii.gz").symlink_to(VOLUMES / "dicom_17_labels.nii.gz")
    checkpoint = str(run / "weights" / "lightning" / "model.ckpt")
    given = ["--ckpt", checkpoint, "--out", str(out), "--organ", str(organs)]
    assert main(["score", str(VOLUMES / "dicom_17"), *given]) == 0
    return out / "dicom_17"


SPLITS = {"01": "train", "07": "valid", "17": "test"}


@needs_dciodvfy
@pytest.mark.nightly(
    also="tests/score/test_verdicts.py::"
    "test_few_patients_give_no_probability_and_a_p_value_that_is_not_small"
)
@pytest.mark.parametrize("name", ["MVFA", "MediCLIP"])
@pytest.mark.parametrize("splits", [None, SPLITS], ids=["drawn", "given"])
def test_three_patients_are_too_few_and_the_series_has_all_its_objects(
    name, splits, run, tmp_path, capfd
):
    found = run(name, splits=splits)
    assert all(value == value for value in metrics(found).values() if isinstance(value, float))
    folder = score(found, tmp_path / "maps")
    said = capfd.readouterr()
    assert not re.search(r"\bnan\b", said.out + said.err, re.IGNORECASE)
    verdict = record(folder)["verdict"]
    assert (verdict["label"], verdict["probability"]) == (None, None)
    assert "too few patients" in verdict["no_verdict"]
    assert verdict["p_value"] is None or verdict["p_value"]["smallest"] == 0.5
    assert all((folder / kind).is_file() for kind in NAMES)
    assert not errors_in(folder)
