"""What stands beside the code agrees with it: versions, links, commands, the map of the house."""

import re
import shlex
from itertools import product
from pathlib import Path

import pytest
import yaml

import anomalib_medclip

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
RELEASE = re.compile(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d{2}-\d{2})$", re.MULTILINE)


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_version_and_date_are_the_same_in_code_changelog_and_citation():
    citation = yaml.safe_load(read("CITATION.cff"))
    newest = RELEASE.findall(read("docs/changelog.md"))[0]
    assert newest == (anomalib_medclip.__version__, citation["date-released"])
    assert citation["version"] == anomalib_medclip.__version__


def test_the_citation_has_what_its_format_requires():
    citation = yaml.safe_load(read("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    assert f'license = "{citation["license"]}"' in read("pyproject.toml")
    assert all(author["name"] for author in citation["authors"])


def test_there_are_workflows():
    assert [path.name for path in WORKFLOWS] == ["checks.yml", "nightly.yml", "versions.yml"]


def commands_of(step, job):
    """The command of a step, with each combination of values of the job's matrix."""
    matrix = job.get("strategy", {}).get("matrix", {})
    used = [name for name in matrix if f"${{{{ matrix.{name} }}}}" in step.get("run", "")]
    for values in product(*(matrix[name] for name in used)) if "run" in step else ():
        command = step["run"]
        for name, value in zip(used, values, strict=True):
            command = command.replace(f"${{{{ matrix.{name} }}}}", value)
        yield command


def test_every_python_that_is_promised_is_tried():
    jobs = yaml.safe_load(read(".github/workflows/versions.yml"))["jobs"]
    promised = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', read("pyproject.toml"))
    assert jobs["versions"]["strategy"]["matrix"]["python"] == promised
    assert f'requires-python = ">={promised[0]}"' in read("pyproject.toml")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_runs_what_contributing_says_and_what_exists(path):
    # By YAML's old rules, ``on`` is a truth value.
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"name", True, "permissions", "jobs"} == set(workflow)
    known = [line.strip() for line in read("CONTRIBUTING.md").splitlines()]
    for job in workflow["jobs"].values():
        assert {"runs-on", "timeout-minutes", "steps"} == set(job) - {"strategy"}
        assert all(len(step.keys() & {"uses", "run"}) == 1 for step in job["steps"])
        for command in (one for step in job["steps"] for one in commands_of(step, job)):
            assert command in known
            for word in shlex.split(command)[1:]:
                assert "/" not in word or (ROOT / word).exists(), f"{path.name}: no {word}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_what_exists(page):
    text = page.read_text(encoding="utf-8")
    for target, section in re.findall(r"\]\((?!\w+:)([^)#\s]*)#?([^)\s]*)\)", text):
        found = page.parent / target if target else page
        assert found.exists(), target
        if section:
            heads = re.findall(r"^#+ (.*)$", found.read_text(encoding="utf-8"), re.MULTILINE)
            assert section in [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in heads]


def test_the_map_of_the_house_has_every_room():
    shown = read("CONTRIBUTING.md").partition("## Map of the house")[2].split("```")[1]
    shown = shown.partition("src/anomalib_medclip/\n")[2].partition("\ntests/")[0]
    listed = set(re.findall(r"^  (\w+(?:/|\.py\b))", shown, re.MULTILINE))
    listed |= set(re.findall(r"^  [\w.]+, (\w+/)", shown, re.MULTILINE))
    source = ROOT / "src" / "anomalib_medclip"
    rooms = {f"{path.parent.name}/" for path in source.glob("*/__init__.py")}
    files = {path.name for path in source.glob("*.py")} - {"__init__.py"}
    assert listed == rooms | files
