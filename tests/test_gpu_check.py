"""What is asked of a GPU is asked of a processor here, and says so when the answer is wrong."""

import os
import subprocess
import sys
from pathlib import Path

import bare_bench
import gpu_check
import pytest
import torch
from lean import OTHERS

from anomalib_medclip.components.faiss_index import FlatIndex

SCRIPT = Path(gpu_check.__file__).with_suffix(".sh")


def lines(said, verdict):
    return [line for line in said.splitlines() if line.startswith(f"{verdict}: ")]


@pytest.mark.parametrize(
    ("found", "verdict"), [(1.05, "pass"), (1.2, "fail"), (float("nan"), "fail")]
)
def test_a_difference_is_judged(found, verdict, capsys):
    pairs = [torch.zeros(2), torch.tensor([found])], [torch.zeros(2), torch.ones(1)]
    gpu_check.near("it", *pairs, 0.1)
    assert capsys.readouterr().out.startswith(f"{verdict}: it: differs by ")


def test_what_is_not_installed_is_skipped_and_what_breaks_is_not(capsys):
    for name in ("scipy.nothing", "anomalib_medclip.nothing"):
        with gpu_check.attempt("it"):
            raise ModuleNotFoundError(name=name)  # as an import does
    with gpu_check.attempt("it"):
        raise ValueError
    assert capsys.readouterr().out.splitlines() == [
        "skip: it: scipy is not installed", "fail: it: ModuleNotFoundError",
        "fail: it: ValueError",
    ]  # fmt: skip


@pytest.mark.parametrize("part", ["machine", "bank", "models"])
def test_a_processor_computes_what_it_computes(part, capsys):
    gpu_check.PARTS[part]("cpu")
    said = capsys.readouterr().out
    assert lines(said, "pass")
    assert not lines(said, "fail")


def test_a_wrong_index_is_found(monkeypatch, capsys):
    nearest, rows = FlatIndex.nearest, torch.nn.functional.normalize(torch.rand(9, 8), dim=-1)
    monkeypatch.setattr(FlatIndex, "nearest", lambda *given: [nearest(*given)[0] + 1e-5])
    gpu_check._indexes(rows[:4], rows, torch.ones(4))
    assert "bank: FAISS's index: differs by 1.0e-05" in capsys.readouterr().out.splitlines()[0]


def test_a_model_that_computes_otherwise_elsewhere_is_found(monkeypatch, capsys):
    moved = torch.nn.Module.to
    monkeypatch.setattr(
        torch.nn.Module, "to", lambda model, _: moved(model, torch.bfloat16).float()
    )
    gpu_check.models("cpu")
    found = lines(capsys.readouterr().out, "fail")
    assert any("in float32" in line for line in found)
    assert any("loss and gradients" in line for line in found)


def test_gradients_of_another_size_in_autocast_are_found(monkeypatch, capsys):
    def moved(model, _device):
        for one in filter(lambda one: one.requires_grad, model.parameters()):
            one.register_hook(lambda grad: grad * (0.7 if torch.is_autocast_enabled("cpu") else 1))
        return model

    model = gpu_check._small(bare_bench.METHODS["madclip"])
    monkeypatch.setattr(torch.nn.Module, "to", moved)
    gpu_check._same_gradients("it", model, "cpu")
    (found,) = lines(capsys.readouterr().out, "fail")
    assert found.startswith("fail: it: loss and gradients in bf16 autocast: differs by 3.0e-01")


# --- the whole script

SAYS = """#!/usr/bin/env sh
echo "pass: $4: one"
case $4 in
  bank) echo "skip: bank: two" ;;
  models) echo "{bad}: models: three"; echo "because" >&2 ;;
  bench) exit {status} ;;
esac
"""


def run(*words, **environment):
    ran = subprocess.run(
        ["bash", SCRIPT, *words], capture_output=True, text=True, env={**os.environ, **environment}
    )
    return ran.returncode, ran.stdout.splitlines()


@pytest.mark.parametrize(
    ("bad", "status", "summary"),
    [
        ("skip", 0, "passed 6, skipped 2 (bank: two; models: three), failed 0"),
        ("fail", 0, "passed 6, skipped 1 (bank: two), failed 1"),
        ("skip", 139, "passed 6, skipped 2 (bank: two; models: three), failed 1"),
    ],
)
def test_the_last_line_counts_them(bad, status, summary, tmp_path):
    python = tmp_path / "python"
    python.write_text(SAYS.format(bad=bad, status=status))
    python.chmod(0o755)
    left, said = run(PYTHON=str(python))
    assert said[-1] == summary
    assert left == int(not summary.endswith("failed 0"))
    assert ("because" in said) is (bad == "fail")


@pytest.mark.nightly(also="tests/test_gpu_check.py::test_a_processor_computes_what_it_computes")
def test_all_of_it_runs_on_a_processor():
    left, said = run("--device", "cpu", PYTHON=sys.executable, SECONDS_IN_ALL="1000")
    assert left == 0, said
    skipped = "bank: FAISS's index in half precision, streams and shards: only on GPUs"
    assert said[-1].endswith(f"skipped 1 ({skipped}), failed 0")


@pytest.mark.nightly(also="tests/test_gpu_check.py::test_the_last_line_counts_them")
@pytest.mark.parametrize("has_open_clip", [True, False])
def test_little_of_it_runs_with_little(has_open_clip, tmp_path):
    without = [*OTHERS, *([] if has_open_clip else ["open_clip"])]
    (tmp_path / "sitecustomize.py").write_text(
        f"import sys\nsys.modules.update(dict.fromkeys({without}))"
    )
    left, said = run("--device", "cpu", PYTHON=sys.executable, PYTHONPATH=str(tmp_path))
    assert left == 0, said
    for part in ("bank: FAISS's index: FAISS", "engine: lightning", "devices: anomalib"):
        assert f"skip: {part} is not installed" in said
    assert ("skip: models: open_clip is not installed" in said) is not has_open_clip
    assert any(line.startswith("pass: bank: plain products") for line in said)
    assert any(line.startswith("pass: mvfa, few-shot") for line in said) is has_open_clip
