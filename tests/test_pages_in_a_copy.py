"""What the pages say to write passes all checks, put into a copy of the tree as they say."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import fresh_process
import pytest
from shown_files import shown_files

from anomalib_medclip.testing.promises import PROMISES

ROOT = Path(__file__).parent.parent
PYTEST = ("-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider")
PARTS = (
    "src", "tests", "configs", "docs", "tools", "pyproject.toml", "README.md", "CONTRIBUTING.md",
    "SECURITY.md", "AGENTS.md", "CITATION.cff", "LICENSE", ".github", ".ci",
)  # fmt: skip


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The tree, with the files of both pages where the pages put them."""
    home = tmp_path_factory.mktemp("copy")
    for part in PARTS:
        there, here = ROOT / part, home / part
        if there.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(there, here, ignore=ignored)
        elif there.is_file():
            shutil.copy(there, here)
    method, data = shown_files("add_a_method.md"), shown_files("add_a_dataset.md")
    shown = {**method, **data}
    for path, text in shown.items():
        if not path.startswith("my-package/"):
            (home / path).parent.mkdir(parents=True, exist_ok=True)
            (home / path).write_text(text, encoding="utf-8")
    # The two words that the page on data asks for.
    names = home / "src" / "anomalib_medclip" / "data" / "__init__.pyi"
    line, after = "from .endoscopy import Endoscopy as Endoscopy\n", "from .folder "
    names.write_text(names.read_text().replace(after, line + after, 1))
    contracts = home / "pyproject.toml"
    text = contracts.read_text()
    assert text.count('"bmad | folder') == 1
    contracts.write_text(text.replace('"bmad | folder', '"bmad | endoscopy | folder'))
    return home


def run(copy, *command):
    environment = {**os.environ, "PYTHONPATH": str(copy / "src")}
    done = subprocess.run(
        [sys.executable, *command], cwd=copy, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout


def test_linters_are_content(copy):
    run(copy, "-m", "ruff", "check", "src")
    files = [path for path in shown_files("add_a_method.md") if path.startswith("src/")]
    files += [path for path in shown_files("add_a_dataset.md") if path.startswith("src/")]
    run(copy, "-m", "ruff", "format", "--check", *files)


def test_types_are_right(copy):
    run(copy, "-m", "mypy", "--cache-dir", str(ROOT / ".mypy_cache"))  # half a minute less


def test_imports_keep_their_order(copy):
    run(copy, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()")


COLLECT = """
import sys

import pytest

# Imported by the fork server, from the tree.
for name in [name for name in sys.modules if name.partition(".")[0] == "anomalib_medclip"]:
    del sys.modules[name]
sys.exit(pytest.main(sys.argv[1:]))
"""


def test_the_new_method_is_asked_for_its_promises(copy):
    """That it keeps all of them is looked at in a package of its own."""
    environment = {**os.environ, "PYTHONPATH": str(copy / "src")}
    words = [*PYTEST[2:], "--collect-only", "-k", "Probe", "tests/test_contract.py", "tests/export"]
    words += ["-m", ""]  # it is asked for most of them nightly
    done = fresh_process.run("-c", COLLECT, *words, cwd=copy, env=environment)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    asked = {line.partition("[Probe-")[2] for line in done.stdout.splitlines()}
    assert {f"{promise.__name__}]" for promise in PROMISES} <= asked
    assert {"torch]", "onnx]", "openvino]"} <= asked


@pytest.mark.nightly(
    also="tests/test_foreign_method.py::test_a_method_of_another_package_keeps_every_promise"
)
def test_every_test_of_every_method_takes_it(copy):
    told = run(copy, *PYTEST, "-m", "", "tests", "-k", "(Probe or probe) and not pages_in_a_copy")
    assert " passed" in told
    assert "failed" not in told


@pytest.mark.nightly(
    also="tests/test_pages_in_a_copy.py::test_the_new_method_is_asked_for_its_promises"
)
def test_nothing_else_minds_that_there_is_one_more(copy):
    rest = ["test_golden", "test_published", "test_registry", "test_released", "test_public_names",
            "test_startup", "test_configs", "test_project_files"]  # fmt: skip
    alone = "test_it_runs_with_torch_open_clip_and_jaxtyping_alone"
    files = [*(f"tests/{name}.py" for name in rest), f"tests/tools/test_bare_bench.py::{alone}"]
    told = run(copy, *PYTEST, *files)
    assert " passed" in told
    assert "failed" not in told
