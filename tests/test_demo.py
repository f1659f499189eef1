import pytest
from demo import check_demo

HALF = "--trainer.max_epochs 6"


@pytest.mark.slow
def test_half_the_demo_finds_on_new_patients_what_no_cue_and_no_chance_finds(tmp_path, monkeypatch):
    check_demo(0, tmp_path, monkeypatch, HALF)


@pytest.mark.nightly(
    also="tests/test_demo.py::test_half_the_demo_finds_on_new_patients_what_no_cue_and_no_chance_finds"
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_demo_does_so_whatever_the_seed(seed, tmp_path, monkeypatch):
    check_demo(seed, tmp_path, monkeypatch)
