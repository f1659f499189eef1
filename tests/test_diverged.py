"""A training that diverges, as typed: one error, and nothing that looks like a result."""

import re
import shlex
import shutil
from pathlib import Path

import fresh_process
import pytest
from command import PROGRAM

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_a_learning_rate_that_diverges_ends_with_one_error_and_no_figures(tmp_path):
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    command = "train --config configs/demo.yaml --model.lr 1e6 --trainer.accelerator cpu"
    few = "--data.patients [4,2,2] --data.slices 8 --data.k_shot 4 --data.train_batch_size 4"
    done = fresh_process.run(PROGRAM, *shlex.split(f"{command} {few}"), cwd=tmp_path)
    assert done.returncode == 2
    assert re.findall(r"^error: ", done.stderr, flags=re.MULTILINE) == ["error: "]
    assert "Traceback" not in done.stderr
    words = " ".join(done.stderr.split())
    assert "the loss is NaN or infinite in step 2 of epoch 1, at lr 1e+06" in words
    assert "Lower the learning rate (--model.lr)" in words
    assert "AUROC" not in done.stdout + done.stderr
    left = {path.name for path in tmp_path.glob("results/**/*") if path.is_file()}
    assert left == {"config.yaml"}
