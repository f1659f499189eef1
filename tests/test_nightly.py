"""No promise has only a nightly test: each names the daily test of the same promise.

A test that is marked ``daily_for`` is that test itself, for other cases; so is one of a method that
``daily.waits`` leaves to the night.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DAILY = {"daily", "daily_for", "parametrize", "slow", "usefixtures"}
"""Marks of a test that runs every day, everywhere."""


def marks(node):
    """Marks of a test, by name, with the daily test that they name."""
    found = {}
    for one in node.decorator_list:
        mark = one.func if isinstance(one, ast.Call) else one
        if ast.unparse(mark).startswith("pytest.mark."):
            given = one.keywords if isinstance(one, ast.Call) else []
            named = [ast.literal_eval(word.value) for word in given if word.arg == "also"]
            found[mark.attr] = named[0] if named else ""
    return found


def functions_of(path):
    """Functions of a file, by name."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return {node.name: node for node in body if isinstance(node, ast.FunctionDef)}


def nightly():
    """What each nightly test names, by its own name."""
    found = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name, node in functions_of(path).items():
            if "nightly" in (given := marks(node)):
                place = path.relative_to(ROOT).as_posix()
                found[f"{place}::{name}"] = given["nightly"]
    return found


NIGHTLY = nightly()


@pytest.mark.parametrize("test", NIGHTLY)
def test_every_nightly_test_has_a_daily_one_of_the_same_promise(test):
    file, _, name = NIGHTLY[test].partition("::")
    assert file, f"{test} names no daily test: nightly(also='tests/...::test_...')"
    twin = functions_of(ROOT / file)[name]
    assert name.startswith("test_")
    assert set(marks(twin)) <= DAILY, f"{name} does not run every day"


def test_all_that_is_marked_is_in_the_list():
    """Found in decorators of functions only, so nobody marks a file or a class."""
    uses = [
        path
        for path in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "pytest.mark.nightly"
    ]
    assert len(uses) == len(NIGHTLY) > 0


def test_what_runs_for_some_cases_daily_runs_for_one(daily_cases):
    """A misspelt case would leave a promise to the night; seen where all files are collected."""
    assert [test for test, daily in daily_cases.items() if True not in daily] == []
