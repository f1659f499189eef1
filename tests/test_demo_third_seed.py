"""A file of its own, because a file is tested by one worker."""

import pytest
from demo import check_demo


@pytest.mark.slow
def test_the_demo_finds_on_new_patients_what_no_cue_and_no_chance_finds(tmp_path, monkeypatch):
    check_demo(2, tmp_path, monkeypatch)
