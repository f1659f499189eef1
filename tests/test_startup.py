"""Commands start at once: what is heavy is imported by those who use it. Nothing here is timed.

The start is what is tested, so each process is a new interpreter, and none a fork.
"""

import subprocess
import sys

import pytest

HEAVY = {"faiss", "highdicom", "monai", "nibabel", "nncf", "onnx", "onnxruntime", "pydicom", "ray"}
"""What a method or its data use, but neither anomalib nor a reader of their options."""

WITH_ANOMALIB = """
import sys
import anomalib.cli, anomalib.data, anomalib.engine, anomalib.models
its_own = set(sys.modules)
import anomalib_medclip
from anomalib_medclip import data
for name in anomalib_medclip.list_models():
    __import__(f"anomalib_medclip.models.{name}.lightning_model")
for name in data.__all__:
    getattr(data, name)
assert "anomalib_medclip.components.memory_bank" in sys.modules
print(*set(sys.modules) - its_own)
"""

HELP = """
import contextlib, sys
from anomalib_medclip import cli
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(sys.stderr):
    cli.main({words})
print(*sys.modules)
"""


def imported(script):
    """Top-level packages that a fresh process has imported."""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    return {name.partition(".")[0] for name in found.stdout.split()}


@pytest.mark.parametrize("words", [["--help"], ["--version"]], ids=" ".join)
def test_help_imports_neither_torch_nor_anomalib(words):
    found = imported(HELP.format(words=words))
    assert "anomalib_medclip" in found
    assert not found & (HEAVY | {"torch", "anomalib", "lightning", "numpy", "open_clip"})


def test_methods_and_data_import_nothing_heavy_that_anomalib_does_not():
    found = imported(WITH_ANOMALIB)
    assert "anomalib_medclip" in found
    assert not found & HEAVY
