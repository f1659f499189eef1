"""Cells on a Ray cluster of this machine, of which a worker dies."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from comparing import MVFA, cells_of, compare, figures, lesion_entry, records, write_config
from unlucky import RUNS

from anomalib_medclip.compare.runners import _fetched

ray = pytest.importorskip("ray", reason="Ray is not installed")


@pytest.mark.slow
def test_a_cluster_finds_what_one_process_finds_though_a_worker_dies(
    lesions, tmp_path, monkeypatch
):
    runs = tmp_path / "runs.txt"
    runs.touch()
    monkeypatch.setenv(RUNS, str(runs))
    # Ray's workers are processes of their own, which know nothing of pytest's search path.
    tests = Path(__file__).parents[1]
    paths = [str(tests), str(tests / "helpers"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    models = {"Mine": {**MVFA, "class_path": "unlucky.DiesOnce", "max_epochs": 1}}
    data = {"phantom": lesion_entry(lesions)}
    config = write_config(tmp_path / "c.yaml", models, data, draws=3)
    assert compare(config, tmp_path / "ray", "--runner", "ray", "--jobs", "2") == 0
    assert not ray.is_initialized()
    assert len(runs.read_text().splitlines()) == 4, "one was killed and run again"
    assert compare(config, tmp_path / "here") == 0
    assert records(tmp_path / "ray") == records(tmp_path / "here")
    assert figures(tmp_path / "ray") == figures(tmp_path / "here")


def test_a_cell_whose_workers_die_has_failed(lesions, tmp_path):
    def get(_result):
        raise ray.exceptions.WorkerCrashedError

    (cell,) = cells_of(tmp_path / "c.yaml", {"MVFA": MVFA}, {"phantom": lesion_entry(lesions)})
    record, arrays = _fetched(None, cell, SimpleNamespace(get=get, exceptions=ray.exceptions))
    assert (record.status, record.error.type, arrays) == ("failed", "ProcessDied", {})
    assert "its Ray workers died 2 times" in record.error.message
