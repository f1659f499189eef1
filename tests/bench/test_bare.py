"""The timed core: what it builds, and that it runs where its other packages are missing."""

import json
import subprocess
import sys
from inspect import signature

import pytest
import torch

from anomalib_medclip.bench import bare, build, scoring
from anomalib_medclip.bench.settings import SMALL, Setting
from anomalib_medclip.clip.backbone import Backbone

PACKAGES = (
    "anomalib", "faiss", "jaxtyping", "jsonargparse", "lightning", "monai", "nibabel", "pandas",
    "pydicom", "rich", "scipy", "sklearn", "torchmetrics",
)  # fmt: skip
WITHOUT = f"""
import runpy, sys

sys.modules.update(dict.fromkeys({PACKAGES}))  # what is None there cannot be imported
runpy.run_module("anomalib_medclip.bench.bare", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("method", bare.METHODS)
def test_it_builds_what_a_method_is_by_default(method):
    of_class = signature(build.method_class(method)).parameters
    entry = bare.METHODS[method]
    assert entry == {name: of_class[name].default for name in entry}
    full = build.build(Setting(method=method, backbone=SMALL, image_size=32)).model
    alone = bare.build(method, Backbone(SMALL, **{**entry, "image_size": 32}), "fp32").eval()
    assert alone.clip.backbone == full.clip.backbone
    assert type(alone) is type(full)
    scoring.know_prompts(alone)
    alone.few_shot = False
    state = full.state_dict()  # with learnable prompts, which scoring does not need
    alone.load_state_dict({name: state[name] for name in alone.state_dict()})
    images = scoring.random_images(full, 2)
    with torch.inference_mode():
        torch.testing.assert_close(alone(images), full(images), atol=0, rtol=0)


def test_a_bank_holds_the_copies_that_mvfa_makes():
    assert len(build.method_class("mvfa").augmentations) == bare.COPIES


def without_packages(*arguments):
    """The module in a new interpreter, because a fork has imported what shall be missing."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, *arguments], capture_output=True, text=True, check=False
    )


def test_it_runs_with_torch_open_clip_and_numpy_alone():
    small = ["--backbone", json.dumps(SMALL), "--image-size", "32", "--batch-size", "1", "2"]
    ran = without_packages(*small, "--precision", "bf16")
    assert ran.returncode == 0, ran.stderr
    about, *rows = map(json.loads, ran.stdout.splitlines())
    assert about["versions"]["torch"] == torch.__version__
    assert rows.pop()["left out"].startswith("it smooths by scipy")
    assert [(row["method"], row["batch_size"]) for row in rows] == [
        (method, size) for method in ("mvfa", "madclip", "mediclip") for size in (1, 2)
    ]
    for row in rows:
        assert row["ratio"] > 0
        assert 0 < row["map_difference"] < 0.2, "in bf16, and near fp32"


def test_a_bank_on_a_processor_needs_faiss():
    ran = without_packages("--k-shot", "1")
    assert ran.returncode == 2
    assert "searches the memory bank by FAISS" in ran.stderr
