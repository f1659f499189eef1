import shutil

import pytest
from demo import CONFIGS, FOUND, MARGINS, aurocs, cues, phantoms, run_demo, two_sided


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    shutil.copytree(CONFIGS, tmp_path / "configs")
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_neither_cues_nor_chance_find_what_the_demo_finds(monkeypatch):
    """``.ci/run`` trains the demo itself, and asks it for as much."""
    untrained = two_sided(aurocs(run_demo("test", 0, monkeypatch)))
    for other in (untrained, cues(phantoms(0))):
        assert (FOUND - other >= MARGINS).all(), other


@pytest.mark.nightly(
    also="tests/test_demo.py::test_neither_cues_nor_chance_find_what_the_demo_finds"
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_demo_finds_it_on_new_patients_whatever_the_seed(seed, monkeypatch):
    trained = aurocs(run_demo("train", seed, monkeypatch))
    assert (trained >= FOUND).all(), trained
    untrained = two_sided(aurocs(run_demo("test", seed, monkeypatch)))
    for other in (untrained, cues(phantoms(seed))):
        assert (trained - other >= MARGINS).all(), (trained, other)
