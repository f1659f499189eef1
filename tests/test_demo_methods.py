"""The demo of every other method: it finds lesions in the slices of new patients."""

import shutil
from pathlib import Path

import pytest
from command import anomalib, metrics

CONFIGS = Path(__file__).parents[1] / "configs"
DEMOS = sorted(path.stem for path in CONFIGS.glob("demo_*.yaml"))


def test_every_method_has_a_demo():
    assert DEMOS == ["demo_iqeclip", "demo_madclip", "demo_mediclip"]  # MVFA's is demo.yaml


@pytest.mark.slow
@pytest.mark.parametrize("demo", DEMOS)
def test_the_demo_finds_lesions_of_new_patients(demo, tmp_path, monkeypatch):
    shutil.copytree(CONFIGS, tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    anomalib(
        f"train --config configs/{demo}.yaml --default_root_dir runs --model.visualizer false",
        monkeypatch,
    )
    run = next(Path("runs").glob("*/phantoms/head/latest"))
    assert metrics(run)["pixel_AUROC"] >= 0.85
