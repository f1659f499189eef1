"""Cells on a Ray cluster of this machine, of which a worker dies."""

import pytest
from comparing import MVFA, compare, figures, lesion_entry, records, write_config
from unlucky import RUNS

ray = pytest.importorskip("ray", reason="Ray is not installed")


@pytest.mark.slow
def test_a_cluster_finds_what_one_process_finds_though_a_worker_dies(
    lesions, tmp_path, monkeypatch
):
    runs = tmp_path / "runs.txt"
    runs.touch()
    monkeypatch.setenv(RUNS, str(runs))
    models = {"Mine": {**MVFA, "class_path": "unlucky.DiesOnce", "max_epochs": 1}}
    models["dead"] = {**models["Mine"], "class_path": "unlucky.Dies"}
    data = {"phantom": lesion_entry(lesions)}
    config = write_config(tmp_path / "c.yaml", models, data, draws=2)
    assert compare(config, tmp_path / "ray", "--runner", "ray", "--jobs", "2") == 1
    assert not ray.is_initialized()
    found = records(tmp_path / "ray").values()
    mine = {r["key"]: r for r in found if r["cell"]["model"] == "Mine"}
    assert [record["status"] for record in mine.values()] == ["done", "done"]
    assert len(runs.read_text().splitlines()) == 3, "one was killed and run again"
    dead = [record for record in found if record["cell"]["model"] == "dead"]
    assert [record["error"]["type"] for record in dead] == ["ProcessDied"] * 2
    del models["dead"]
    config = write_config(tmp_path / "c.yaml", models, data, draws=2)
    assert compare(config, tmp_path / "here") == 0
    assert records(tmp_path / "here") == mine
    assert compare(config, tmp_path / "ray") == 0
    assert figures(tmp_path / "ray") == figures(tmp_path / "here")
