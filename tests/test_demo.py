import pytest
from demo import check_demo


@pytest.mark.slow
def test_the_demo_finds_on_new_patients_what_no_cue_and_no_chance_finds(tmp_path, monkeypatch):
    check_demo(0, tmp_path, monkeypatch)


@pytest.mark.nightly(
    also="tests/test_demo.py::test_the_demo_finds_on_new_patients_what_no_cue_and_no_chance_finds"
)
@pytest.mark.parametrize("seed", [1, 2])
def test_it_does_so_whatever_the_seed(seed, tmp_path, monkeypatch):
    check_demo(seed, tmp_path, monkeypatch)
