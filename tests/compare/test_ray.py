"""Cells on a Ray cluster of this machine, of which a worker dies."""

from types import SimpleNamespace

import pytest
from comparing import MVFA, cells_of, compare, figures, lesion_entry, records

from anomalib_medclip.compare.runners import _fetched

ray = pytest.importorskip("ray", reason="Ray is not installed")


@pytest.mark.slow
@pytest.mark.daily_for(dies=False)  # another worker imports everything anew
@pytest.mark.parametrize("dies", [False, True])
@pytest.mark.usefixtures("found_by_others")
def test_a_cluster_finds_what_one_process_finds_though_a_worker_dies(dies, alone, tmp_path, runs):
    if dies:
        runs.one_dies()
    config, one = alone
    assert compare(config, tmp_path, "--runner", "ray", "--jobs", "1") == 0
    assert not ray.is_initialized()
    assert len(runs()) == len(records(one)) + dies, "one was killed and run again"
    assert records(tmp_path) == records(one)
    assert figures(tmp_path) == figures(one)


def test_a_cell_whose_workers_die_has_failed(lesions, tmp_path):
    def get(_result):
        raise ray.exceptions.WorkerCrashedError

    (cell,) = cells_of(tmp_path / "c.yaml", {"MVFA": MVFA}, {"phantom": lesion_entry(lesions)})
    record, arrays = _fetched(None, cell, SimpleNamespace(get=get, exceptions=ray.exceptions))
    assert (record.status, record.error.type, arrays) == ("failed", "ProcessDied", {})
    assert "its Ray workers died 2 times" in record.error.message
