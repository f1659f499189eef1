"""``anomalib-medclip reproduce``: a paper's table from data to page, ours beside theirs."""

import csv
import json
import re

import pytest
import yaml
from paper_tables import TABLES, every_set, grow, shrink

from anomalib_medclip import cli
from anomalib_medclip.compare.comparison import read_config
from anomalib_medclip.compare.grid import plan_cells
from anomalib_medclip.compare.store import Store
from anomalib_medclip.papers.lines import trainings


def reproduce(*words):
    return cli.main(["reproduce", *map(str, words)])


def lines(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def remake(name, home, *words):
    """Run a table on the data below ``home``; the exit code, and the lines of its CSV."""
    given = name, "--data", home / "data", "--out", home / "out", "--device", "cpu", *words
    code = reproduce(*given)
    return code, lines(home / "out" / f"{name}.csv")


DAILY = {
    "mvfa-table1": (["PatchCore", "MVFA"], ["Brain"], 4),
    "madclip-table3": (["MadCLIP"], ["Retina_RESC", "octdl"], 1),
    "mediclip-table3": (["MediCLIP"], ["brainmri"], 1),
    "iqeclip-table2": (["IQE-CLIP"], ["Brain"], 2),
}
"""Of a table of each paper: models and sets that there are, and how many figures these give."""


@pytest.mark.parametrize("name", DAILY)
def test_a_table_is_filled_as_far_as_there_are_data(name, tmp_path, monkeypatch):
    models, sets, count = DAILY[name]
    grow(tmp_path / "data", sets, [4, 16])
    shrink(name, tmp_path, monkeypatch, models)
    code, found = remake(name, tmp_path)
    assert code == 0
    assert len(found) == len(TABLES[name].printed)
    done = [line for line in found if line["state"] == "done"]
    assert len(done) == count
    assert {line["model"] for line in done} == {*models}
    for line in done:
        assert line["untrained"] == "True"
        gap = float(line["fixed"]) - float(line["theirs"])
        assert float(line["difference"]) == pytest.approx(gap)
    others = {line["state"] for line in found if line["model"] not in models}
    assert others <= {"not run: no model"}
    assert_shows_what_the_records_say(tmp_path / "out", done)
    assert_page_shows(tmp_path / "out" / f"{name}.html", found)


def assert_shows_what_the_records_say(out, done):
    """Ours are the figures of the comparison's own table, by both protocols."""
    rows = json.loads((out / "table.json").read_text())["rows"]
    for line in done:
        found = [
            (100 * row["honest"][line["metric"]]["mean"], 100 * row["oracle"][line["metric"]]["mean"])
            for row in rows
            if row["model"] == line["model"]
        ]
        assert (float(line["fixed"]), float(line["authors_epoch"])) in [
            (pytest.approx(fixed), pytest.approx(oracle)) for fixed, oracle in found
        ]


def assert_page_shows(page, found):
    """Every printed figure stands in the page, and says so where there is none of ours."""
    text = page.read_text()
    assert "Untrained backbone: these figures mean nothing" in text
    printed = re.findall(r'class="theirs"[^>]*>([\d.]+)', text)
    assert sorted(printed) == sorted(f"{float(line['theirs']):.1f}" for line in found)
    absent = [line["state"] for line in found if line["state"] != "done"]
    assert re.findall(r'class="state">([^<]+)', text).sort() == absent.sort()


@pytest.mark.nightly(
    also="tests/papers/test_reproduce.py::test_a_table_is_filled_as_far_as_there_are_data"
)
@pytest.mark.parametrize("name", TABLES)
def test_every_row_of_a_table_is_filled(name, tmp_path, monkeypatch):
    config = read_config(TABLES[name].config)
    grow(tmp_path / "data", every_set(config), config.k_shot)
    shrink(name, tmp_path, monkeypatch)
    code, found = remake(name, tmp_path)
    assert code == 0
    left = {line["row"]: line["state"] for line in found if line["state"] != "done"}
    assert left == {row: "not run: no model" for row in left}
    assert not left.keys() & config.models.keys()
