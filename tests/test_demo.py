import pytest
from demo import check_demo


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_demo_finds_on_new_patients_what_no_cue_and_no_chance_finds(
    seed, tmp_path, monkeypatch
):
    check_demo(seed, tmp_path, monkeypatch)
