"""Cells on a Ray cluster of this machine, of which a worker dies."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from comparing import MVFA, cells_of, compare, figures, lesion_entry, records

from anomalib_medclip.compare.runners import _fetched

ray = pytest.importorskip("ray", reason="Ray is not installed")


@pytest.mark.slow
def test_a_cluster_finds_what_one_process_finds_though_a_worker_dies(
    alone, tmp_path, runs, monkeypatch
):
    # Ray's workers are processes of their own, which know nothing of pytest's search path.
    tests = Path(__file__).parents[1]
    paths = [str(tests), str(tests / "helpers"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    runs.one_dies()
    config, one = alone
    assert compare(config, tmp_path, "--runner", "ray", "--jobs", "1") == 0
    assert not ray.is_initialized()
    assert len(runs()) == len(records(one)) + 1, "one was killed and run again"
    assert records(tmp_path) == records(one)
    assert figures(tmp_path) == figures(one)


def test_a_cell_whose_workers_die_has_failed(lesions, tmp_path):
    def get(_result):
        raise ray.exceptions.WorkerCrashedError

    (cell,) = cells_of(tmp_path / "c.yaml", {"MVFA": MVFA}, {"phantom": lesion_entry(lesions)})
    record, arrays = _fetched(None, cell, SimpleNamespace(get=get, exceptions=ray.exceptions))
    assert (record.status, record.error.type, arrays) == ("failed", "ProcessDied", {})
    assert "its Ray workers died 2 times" in record.error.message
