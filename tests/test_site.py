"""The site has every page, every public name and every option, and says what errors say."""

import ast
import json
import re
from importlib import import_module
from inspect import getmembers, isclass
from pathlib import Path

import pytest
import reference_tables
import yaml

from anomalib_medclip import errors, testing

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
LISTED = (
    "anomalib_medclip",
    *(f"anomalib_medclip.{one}" for one in ("baselines", "data", "metrics")),
)
"""Packages whose stub lists what is public."""

PAGES_OF_OTHERS = {
    "index.md", "contributing.md", "report_a_weakness.md", "published.md",
}  # fmt: skip
"""Addresses of pages that lie outside of docs, as ``tools/site_hooks.py`` has them."""

FOREIGN = ("Validation failed", "unrecognized arguments", "not an image file", "CUDA out of memory")
"""Messages of jsonargparse, anomalib and torch."""


def read(path):
    return path.read_text(encoding="utf-8")


def public_names():
    """Every name that is public, by the module that offers it."""
    for package in LISTED:
        module = import_module(package)
        for name in module.__all__:
            if not name.startswith("__") and not hasattr(getattr(module, name), "__path__"):
                yield f"{package}.{name}"
    for name, _ in getmembers(errors, isclass):
        yield f"anomalib_medclip.errors.{name}"
    yield from (f"anomalib_medclip.testing.{name}" for name in testing.__all__)
    yield "anomalib_medclip.published.published"


def imported_by_authors():
    """What the pages for authors of methods and data import, of the package as it is."""
    for page in ("add_a_method.md", "add_a_dataset.md", "add_a_baseline.md"):
        found = re.findall(r"from (anomalib_medclip[\w.]*) import ([\w, ]+)", read(DOCS / page))
        for module, names in found:
            if "probe" not in module and "endoscopy" not in module:
                yield from (f"{module}.{name}" for name in names.split(", "))


def in_the_reference():
    pages = (DOCS / "reference").glob("*.md")
    return {name for page in pages for name in re.findall(r"^::: (\S+)$", read(page), re.MULTILINE)}


def test_every_public_name_is_in_the_reference():
    missing = set(public_names()) - in_the_reference() - {"anomalib_medclip.errors"}
    assert not missing


def test_what_authors_import_is_in_the_reference():
    wanted = {name for name in imported_by_authors() if not name.endswith(".lazy_names")}
    assert not wanted - in_the_reference()


@pytest.mark.parametrize("name", sorted(in_the_reference()))
def test_the_reference_names_what_there_is(name):
    module, _, last = name.rpartition(".")
    assert hasattr(import_module(module), last)


@pytest.mark.parametrize("page", ["commands.md", "configs.md"])
def test_every_command_option_and_config_is_in_the_reference(page):
    path = DOCS / "reference" / page
    assert reference_tables.written(path) == reference_tables.pages()[path]


class Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, whose names of Python's functions are no matter here."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def addresses(nav):
    """Every page of the navigation."""
    for entry in nav:
        for found in entry.values() if isinstance(entry, dict) else [entry]:
            yield from addresses(found) if isinstance(found, list) else [found]


def test_every_page_has_a_place_in_the_navigation():
    shown = list(addresses(yaml.load(read(ROOT / "mkdocs.yml"), Loader)["nav"]))
    there = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert sorted(shown) == sorted(there | PAGES_OF_OTHERS)


def texts():
    """What each file of the package may say, its texts joined, without the values put in."""
    for path in (ROOT / "src").rglob("*.py"):
        said = [
            (node.lineno, node.col_offset, node.value)
            for node in ast.walk(ast.parse(read(path)))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        yield " ".join("".join(text for *_, text in sorted(said)).split())


def test_the_messages_of_the_troubleshooting_page_are_those_of_the_package():
    heads = re.findall(r"^(`.+`)\n:   ", read(DOCS / "troubleshooting.md"), re.MULTILINE)
    assert len(heads) > 40
    known = list(texts())
    for head in heads:
        for message in re.findall(r"`([^`]+)`", head):
            parts = [part.strip(" ,;:.()") for part in message.split("...")]
            own = [part for part in parts if len(part) > 7]
            if not any(message.startswith(foreign) for foreign in FOREIGN):
                assert any(all(part in text for part in own) for text in known), message


NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_no_outputs_and_imports_what_there_is(path):
    cells = [cell for cell in json.loads(read(path))["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    trees = [ast.parse("".join(cell["source"])) for cell in cells]
    imported = [
        (node.module, name.name)
        for node in ast.walk(ast.Module([one for tree in trees for one in tree.body], []))
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    ]
    own = [(module, name) for module, name in imported if module.startswith("anomalib_medclip")]
    assert own
    assert all(hasattr(import_module(module), name) for module, name in own)


def test_the_readme_is_short_and_begins_with_a_picture():
    lines = read(ROOT / "README.md").splitlines()
    assert len(lines) < 150
    assert lines[2].startswith("![")
    assert sum(path.stat().st_size > 400_000 for path in (DOCS / "images").iterdir()) == 0


def test_pages_are_wrapped():
    wide = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]
        for number, line in enumerate(read(path).splitlines(), 1)
        if len(line) > 120 and not line.startswith(("|", "![", "<"))
    ]
    assert not wide


def test_a_page_on_what_could_not_be_run_says_so_in_its_first_line():
    for name in ("gpu", "windows", "macos", "slurm"):
        first = read(DOCS / "howto" / f"{name}.md").splitlines()[2]
        assert first.startswith("**"), name
        assert re.search(r"has run on one|not been run", first), name


def test_a_page_to_begin_with_says_what_it_needs():
    pages = [*(DOCS / "start").glob("*.md"), *(DOCS / "howto").glob("*.md")]
    assert len(pages) > 8
    assert not [path.name for path in pages if "**Needs:**" not in read(path)]
