"""The demo of every method: it finds lesions in the slices of new patients."""

import shutil
from pathlib import Path

import pytest
from command import anomalib, metrics

CONFIGS = Path(__file__).parents[1] / "configs"
DEMOS = sorted(path.stem for path in CONFIGS.glob("demo_*.yaml"))


def test_every_method_has_a_demo():
    assert DEMOS == ["demo_iqeclip", "demo_madclip", "demo_mediclip"]  # MVFA's is demo.yaml


def run(demo, home, patch, options=""):
    """Metrics of the demo, typed as the README says."""
    shutil.copytree(CONFIGS, home / "configs")
    patch.chdir(home)
    anomalib(
        f"train --config configs/{demo}.yaml --default_root_dir runs --model.visualizer false "
        f"{options}",
        patch,
    )
    return metrics(next(Path("runs").glob("*/phantoms/head/latest")))


@pytest.mark.parametrize("demo", ["demo", *DEMOS])
def test_a_step_of_the_demo_is_trained_and_tested(demo, tmp_path, monkeypatch):
    few = "--trainer.max_steps 1 --data.patients [2,2,2] --data.slices 4 --data.k_shot 2"
    found = run(demo, tmp_path, monkeypatch, few)
    assert {"image_AUROC", "pixel_AUROC", "image_F1Score", "pixel_F1Score"} <= set(found)
    assert 0 < found["pixel_AUROC"] < 1
    assert found["support"]["abnormal"]["images"] == 2


@pytest.mark.nightly(also="tests/test_contract.py::test_promise")
@pytest.mark.parametrize("demo", DEMOS)
def test_the_demo_finds_lesions_of_new_patients(demo, tmp_path, monkeypatch):
    assert run(demo, tmp_path, monkeypatch)["pixel_AUROC"] >= 0.85
