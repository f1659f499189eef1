"""Commands start at once: what is heavy is imported by those who use it. Nothing here is timed.

The start is what is tested, so each process is a new interpreter, and none a fork; but the fork
server is a new one, too, and has noted what it imported.
"""

import subprocess
import sys

import fresh_process
import pytest

HEAVY = {"faiss", "highdicom", "monai", "nibabel", "nncf", "onnx", "onnxruntime", "pydicom", "ray"}
"""What a method or its data use, but neither anomalib nor a reader of their options."""

HELP = """
import contextlib, sys
from anomalib_medclip import cli
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(sys.stderr):
    cli.main({words})
print(*sys.modules)
"""


def imported(done):
    """Top-level packages that a process has imported, as it says."""
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize("words", [["--help"], ["--version"]], ids=" ".join)
def test_help_imports_neither_torch_nor_anomalib(words):
    script = [sys.executable, "-c", HELP.format(words=words)]
    found = imported(subprocess.run(script, capture_output=True, text=True))
    assert "anomalib_medclip" in found
    assert not found & (HEAVY | {"torch", "anomalib", "lightning", "numpy", "open_clip"})


def test_methods_and_data_import_nothing_heavy_that_anomalib_does_not(monkeypatch):
    home = fresh_process.SERVER.parent
    monkeypatch.setenv("PYTHONPATH", fresh_process.search_path(home))
    script = "from fork_server import of_methods; print(*of_methods())"
    done = fresh_process.run("-c", script)
    assert "anomalib_medclip.components.memory_bank" in done.stdout.split()
    found = imported(done)
    assert "anomalib_medclip" in found
    assert not found & HEAVY
