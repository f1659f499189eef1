"""Run folders, as anomalib's engine makes them once a method is imported."""

from pathlib import Path

import pytest
from anomalib.engine import engine

from anomalib_medclip.errors import OutputError
from anomalib_medclip.training import processes, run_folder


@pytest.fixture
def begin():
    """What the engine calls."""
    assert processes  # which tells it to
    return engine.create_versioned_dir


def test_runs_are_numbered_and_latest_leads_to_the_newest_wherever_it_is_moved(begin, tmp_path):
    made = [begin(tmp_path / "runs" / "here").name for _ in range(11)]
    assert made == [f"v{number}" for number in range(11)]
    (tmp_path / "runs").rename(tmp_path / "moved")
    moved = tmp_path / "moved" / "here"
    assert (moved / "latest").resolve() == moved / "v10"


def test_there_is_a_latest_at_every_moment(begin, tmp_path, monkeypatch):
    first = begin(tmp_path)

    def killed(*given, **options):
        raise KeyboardInterrupt

    for step in ("symlink_to", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, step, killed)
            with pytest.raises(KeyboardInterrupt):
                begin(tmp_path)
        assert (tmp_path / "latest").resolve() == first
    assert begin(tmp_path) == (tmp_path / "latest").resolve()
    assert {path.name for path in tmp_path.iterdir()} == {"v0", "v1", "v2", "v3", "latest"}


def test_latest_leads_to_the_newest_though_an_older_run_is_the_last_to_say(
    begin, tmp_path, monkeypatch
):
    link = run_folder.replace_link

    def late(path, target):
        if target == "v0":
            assert begin(tmp_path).name == "v1"
        link(path, target)

    monkeypatch.setattr(run_folder, "replace_link", late)
    assert begin(tmp_path).name == "v0"
    assert (tmp_path / "latest").readlink() == Path("v1")


def test_a_file_takes_a_number_too(begin, tmp_path):
    (tmp_path / "v0").touch()
    assert begin(tmp_path).name == "v1"


def test_a_folder_called_latest_is_refused_before_a_run_is_made(begin, tmp_path):
    (tmp_path / "latest").mkdir()
    with pytest.raises(OutputError, match="latest is a folder, and no link to the newest run"):
        begin(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["latest"]
