"""The house keeps its own rules, so that ``pytest`` is the only command."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*command):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("mypy",),
    ],
    ids=" ".join,
)
def test_tool_is_content(command):
    run(sys.executable, "-m", *command)


def test_imports_keep_their_order():
    script = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    run(sys.executable, "-c", script)


def test_importing_the_package_imports_nothing_heavy():
    script = (
        "import sys, anomalib_medclip, anomalib_medclip.data\n"
        "assert anomalib_medclip.list_models()\n"
        "heavy = {'torch', 'numpy', 'lightning', 'anomalib', 'monai', 'open_clip', 'faiss'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    run(sys.executable, "-c", script)


def test_json_is_read_and_written_in_one_place():
    """Python's own functions write NaN, which is no JSON, and read it."""
    words = {"dump", "dumps", "load", "loads", "JSONEncoder", "JSONDecoder"}
    found = []
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = isinstance(node, ast.Attribute) and node.attr in words
            of_json = called and isinstance(node.value, ast.Name) and node.value.id == "json"
            if of_json or (isinstance(node, ast.ImportFrom) and node.module == "json"):
                found.append(path.name)
    assert set(found) == {"files.py"}


def lengths(path):
    """Lines of a file, and of every function in it, without signature and docstring."""
    text, name = path.read_text(encoding="utf-8"), path.relative_to(ROOT)
    yield str(name), "file", len(text.splitlines())
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            count = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            yield f"{name}: {node.name}", "function", count


def test_files_and_functions_stay_short():
    most = {"file": 310, "function": 40}
    paths = [path for room in ("src", "tools") for path in (ROOT / room).rglob("*.py")]
    files = [found for path in paths for found in lengths(path)]
    assert [(name, count) for name, kind, count in files if count > most[kind]] == []


CLAIMS = {"raises", "fail", "assert_close", "assert_allclose", "assert_array_equal", "check"}
"""What a test may call to claim something, besides ``assert`` and functions that do; ``check`` is a
promise of the contract suite."""


def called(node):
    """Names of what is called in a function; a check that a test is given claims something."""
    calls = [one.func for one in ast.walk(node) if isinstance(one, ast.Call)]
    names = {call.attr if isinstance(call, ast.Attribute) else ast.unparse(call) for call in calls}
    given = "check" in names and "check" in {one.arg for one in node.args.args}
    return names | {"fail"} if given else names


def test_every_test_claims_something():
    trees = {path: ast.parse(path.read_text("utf-8")) for path in (ROOT / "tests").rglob("*.py")}
    functions = [
        (path, node)
        for path, tree in trees.items()
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
    ]
    asserting = [
        (path, node)
        for path, node in functions
        if called(node) & CLAIMS or any(isinstance(one, ast.Assert) for one in ast.walk(node))
    ]
    helpers = {node.name for _, node in asserting if not node.name.startswith("test_")}
    assert [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path, node in functions
        if node.name.startswith("test_")
        and (path, node) not in asserting
        and not called(node) & helpers
    ] == []


def test_the_project_names_no_machine():
    """A path that exists here, other than what any Unix has, need not exist anywhere else."""
    absolute = re.compile(r"(?<![\w./:~}-])/(?!usr/|dev/)[\w.-]+/[\w.-]*\w")
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    files = [ROOT / name for name in tracked]
    found = [
        f"{path.relative_to(ROOT)}: {place}"
        for path in files
        if path.suffix in {".py", ".md", ".yaml", ".toml", ""} and path.is_file()
        for place in absolute.findall(path.read_text(encoding="utf-8"))
        if Path(place).exists()
    ]
    assert not found
