"""Commands start at once: what is heavy is imported by those who use it. Nothing here is timed.

The start is what is tested, so each process is a new interpreter, and none a fork.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from lean import run_lean

import anomalib_medclip

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

COMPUTE = (
    "models/*/torch_model.py",
    "components/memory_bank.py",
    "components/model.py",
    "clip/*.py",
)
TIME = tuple(f"bench/{name}.py" for name in ("machine", "profile", "roofline", "scoring", "timing"))

EACH = """
import json
from importlib import import_module

barred = {}
for name in sys.argv[1:]:
    try:
        import_module(name)
    except ImportError as error:
        barred[name] = error.name
print(json.dumps(barred))
"""
"""What each module imports against the rule."""


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


def test_torch_models_and_what_times_them_import_neither_anomalib_nor_lightning():
    source = Path(anomalib_medclip.__file__).parents[1]
    package = source / "anomalib_medclip"
    files = [path for pattern in (*COMPUTE, *TIME) for path in sorted(package.glob(pattern))]
    methods = {path.parent for path in package.glob("models/*/lightning_model.py")}
    assert methods == {path.parent for path in files if path.name == "torch_model.py"}
    names = [".".join(path.relative_to(source).with_suffix("").parts) for path in files]
    found = run_lean(EACH, *names)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout) == {}
