"""What a wheel holds is all that the package needs: no clone is at hand where it is installed."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from anomalib_medclip.cli import main
from anomalib_medclip.commands.configs import configs

ROOT = Path(__file__).parents[1]


def files_below(folder):
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A folder with what an installer takes from the wheel."""
    pytest.importorskip("hatchling", reason="wheels are built by it: pip install hatchling")
    made, site = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("site")
    build = (sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(made))
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    with zipfile.ZipFile(*made.iterdir()) as archive:
        archive.extractall(site)
    return site


def test_a_wheel_holds_the_package_its_configs_what_was_measured_and_nothing_else(wheel):
    package = files_below(ROOT / "src" / "anomalib_medclip")
    found = {f"configs/{name}" for name in files_below(ROOT / "configs")}
    found |= {f"performance/{name}" for name in files_below(ROOT / "docs" / "performance")}
    assert files_below(wheel / "anomalib_medclip") == package | found
    assert {path.name.partition("-")[0] for path in wheel.iterdir()} == {"anomalib_medclip"}


def test_it_runs_as_a_module_and_copies_configs_where_there_is_no_clone(wheel, tmp_path):
    command = (sys.executable, "-m", "anomalib_medclip", "configs", "demo", "compare/demo")
    alone = {"PYTHONPATH": str(wheel)}
    done = subprocess.run(command, cwd=tmp_path, env=alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["configs/demo.yaml", "configs/compare/demo.yaml"]
    for copy in done.stdout.split():
        assert (tmp_path / copy).read_bytes() == (ROOT / copy).read_bytes()


def test_a_clone_gives_the_same_configs_as_its_wheel():
    assert {f"{name}.yaml" for name in configs()} == files_below(ROOT / "configs")


def test_without_a_name_all_are_listed_with_what_they_are(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["configs"]) == 0
    shown = capsys.readouterr().out
    assert all(f" {name} " in shown for name in configs())
    assert "Retinal OCT with pixel masks, never seen: trained on the other sets of BMAD" in shown
    assert "Use:" not in shown


def test_all_are_copied_where_all_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["configs", "--all", "--to", "here"]) == 0
    assert files_below(Path("here")) == files_below(ROOT / "configs")


def test_a_file_that_was_changed_is_never_written_over(tmp_path, capsys):
    mine = tmp_path / "folder.yaml"
    mine.write_text("my own")
    words = ["configs", "demo", "folder", "--to", str(tmp_path)]
    assert main(words) == 2
    assert f"{mine} is there, and another; move it away" in capsys.readouterr().err
    assert mine.read_text() == "my own"
    assert not (tmp_path / "demo.yaml").exists()
    mine.unlink()
    assert main(words) == main(words) == 0  # the second finds its own


def test_an_unknown_name_is_refused_with_those_like_it(tmp_path, capsys):
    assert main(["configs", "demo", "bmad_rsec", "--to", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "no config 'bmad_rsec'; did you mean bmad_resc" in told
    assert list(tmp_path.iterdir()) == []
