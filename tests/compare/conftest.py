from pathlib import Path

import pytest
from comparing import (
    CFLOW,
    METHODS,
    PATCHCORE,
    compare,
    lesion_entry,
    phantom_entry,
    write_config,
)
from fresh_process import search_path
from tiny import SHALLOW
from unlucky import ONE_DIES, RUNS


@pytest.fixture(scope="session")
def compared(tmp_path_factory):
    """The folder of a comparison of every kind of model, and the exit code of its command."""
    home = tmp_path_factory.mktemp("compared")
    models = {"MVFA": METHODS["MVFA"], "PatchCore": PATCHCORE}
    models["CFlow"] = {**CFLOW, "normals": ["support"]}
    data = {"heads": phantom_entry(home / "pictures")}
    config = write_config(home / "c.yaml", models, data, draws=2, trivial=True)
    return home / "out", compare(config, home / "out")


@pytest.fixture(scope="session")
def alone(lesions, tmp_path_factory):
    """A comparison of four trainings, and the folder in which one process ran it."""
    home = tmp_path_factory.mktemp("alone")
    mine = {"class_path": "unlucky.Counted", "init_args": SHALLOW, "max_epochs": 1}
    data = {"phantom": lesion_entry(lesions)}
    config = write_config(home / "c.yaml", {"Mine": mine}, data, draws=2, seeds=[0, 1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(RUNS, str(home / "runs.txt"))
        assert compare(config, home / "out") == 0
    return config, home / "out"


@pytest.fixture
def found_by_others(monkeypatch):
    """Lets processes of their own find the models of tests, as pytest's search path does here."""
    tests = Path(__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", search_path(tests, tests / "helpers"))


class Runs:
    """The trainings that there were, in a file."""

    def __init__(self, path):
        self.path = path
        path.touch()

    def __call__(self):
        """Seed and draw of each, sorted."""
        return sorted(line for line in self.path.read_text().splitlines() if line != ONE_DIES)

    def one_dies(self):
        """Let the first training take its process with it."""
        self.path.write_text(f"{ONE_DIES}\n")


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """The trainings that there were; ``runs.one_dies()`` lets the first kill its process."""
    monkeypatch.setenv(RUNS, str(tmp_path / "runs.txt"))
    return Runs(tmp_path / "runs.txt")
