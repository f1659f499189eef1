import shutil

import pytest
from demo import CONFIGS, FOUND, MARGINS, aurocs, cues, phantoms, run_demo, two_sided


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    shutil.copytree(CONFIGS, tmp_path / "configs")
    monkeypatch.chdir(tmp_path)


def assert_beats_chance_and_cues(found, seed, patch):
    untrained = two_sided(aurocs(run_demo("test", seed, patch)))
    for other in (untrained, cues(phantoms(seed))):
        assert (found - other >= MARGINS).all(), (found, other)


@pytest.mark.slow
def test_what_is_asked_of_the_demo_beats_chance_and_cues(monkeypatch):
    """``.ci/run`` trains it, in an environment of its own, and asks for this."""
    image, pixel = FOUND
    asked = (CONFIGS.parent / ".ci" / "run").read_text()
    assert f"image >= {image:.2f} and pixel >= {pixel:.3f}" in asked
    assert_beats_chance_and_cues(FOUND, 0, monkeypatch)


@pytest.mark.nightly(
    also="tests/test_demo.py::test_what_is_asked_of_the_demo_beats_chance_and_cues"
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_demo_finds_it_on_new_patients_whatever_the_seed(seed, monkeypatch):
    trained = aurocs(run_demo("train", seed, monkeypatch))
    assert (trained >= FOUND).all(), trained
    assert_beats_chance_and_cues(trained, seed, monkeypatch)
