"""``anomalib-medclip reproduce``: a paper's table from data to page, ours beside theirs."""

import csv

import pytest
from paper_tables import grow, shrink

from anomalib_medclip import cli


def reproduce(*words):
    return cli.main(["reproduce", *map(str, words)])


def lines(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def mvfa(tmp_path_factory):
    """MVFA's table 1 of two sets and two models, and what the command said."""
    home = tmp_path_factory.mktemp("mvfa")
    grow(home / "data", ["Brain", "Chest"], [4])
    with pytest.MonkeyPatch.context() as patch:
        shrink("mvfa-table1", home, patch, ["PatchCore", "MVFA", "MedCLIP"])
        words = "mvfa-table1", "--data", home / "data", "--out", home / "out", "--device", "cpu"
        code = reproduce(*words)
    return home / "out", code


def test_a_table_is_filled_with_ours_beside_theirs(mvfa, capsys):
    out, code = mvfa
    assert code == 0
    found = lines(out / "mvfa-table1.csv")
    assert len(found) == 96
    done = [line for line in found if line["state"] == "done"]
    assert {line["row"] for line in done} == {"PatchCore", "MVFA", "MedCLIP"}
