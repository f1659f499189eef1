"""Cells on a Ray cluster of this machine, of which a worker dies."""

import signal
import sys
from functools import partial
from types import SimpleNamespace

import pytest
from comparing import MVFA, cells_of, compare, figures, lesion_entry, records

from anomalib_medclip.compare.cell_setup import CellSettings
from anomalib_medclip.compare.run_cell import now
from anomalib_medclip.compare.runners import CellQueue, _fetched, run_on_ray
from anomalib_medclip.compare.store import Store
from anomalib_medclip.signals import tidy_stop

ray = pytest.importorskip("ray", reason="Ray is not installed")


@pytest.fixture(autouse=True)
def _handlers_come_back():
    """Ray keeps its handler, as long as its process lives."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


class RayHere:
    """Ray's words for tasks, which are done in this process as soon as they are waited for."""

    exceptions = ray.exceptions

    def __init__(self, has_gpus=False):
        self.has_gpus = has_gpus
        self.told, self.limits, self.handler, self.tasks = [], None, None, {}

    def init(self, **options):
        self.told.append(options)
        signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(number))

    def shutdown(self):
        self.told.append("shutdown")

    def cluster_resources(self):
        return {"CPU": 2.0} | ({"GPU": 4.0} if self.has_gpus else {})

    def put(self, value):
        return SimpleNamespace(value=value)

    def remote(self, **limits):
        self.limits, self.handler = limits, signal.getsignal(signal.SIGTERM)
        return lambda function: SimpleNamespace(remote=partial(self._asked, function))

    def _asked(self, function, *given):
        name = f"task {len(self.tasks)}"
        self.tasks[name] = partial(function, *(getattr(one, "value", one) for one in given))
        return name

    def wait(self, names):
        return names[-1:], names[:-1]  # they end in any order

    def get(self, name):
        return self.tasks[name]()


def test_tasks_of_a_cluster_find_what_one_process_finds(alone, tmp_path, runs, monkeypatch):
    here = RayHere()
    monkeypatch.setitem(sys.modules, "ray", here)
    config, one = alone
    assert compare(config, tmp_path, "--runner", "ray", "--jobs", "2") == 0
    assert here.told[0].items() >= {"address": "local", "num_cpus": 2}.items()
    assert here.told[1:] == ["shutdown"]
    assert here.limits == {"num_cpus": 1, "num_gpus": 0, "max_retries": 1}
    assert len(runs()) == len(records(one))
    assert records(tmp_path) == records(one)
    assert figures(tmp_path) == figures(one)


@pytest.mark.parametrize(
    ("accelerator", "has_gpus", "gpus"),
    [("auto", True, 1), ("auto", False, 0), ("gpu", False, 1), ("cpu", True, 0)],
)
def test_a_cell_has_a_gpu_of_a_cluster_that_has_some(
    accelerator, has_gpus, gpus, tmp_path, monkeypatch
):
    """Ray hides from a task all GPUs but those that it was given."""
    here = RayHere(has_gpus)
    monkeypatch.setitem(sys.modules, "ray", here)
    settings = CellSettings(accelerator=accelerator)
    run_on_ray(CellQueue([], Store(tmp_path), settings, now()), SimpleNamespace(), None, None)
    assert here.limits["num_gpus"] == gpus


def test_a_cluster_takes_no_signal_from_us(tmp_path, monkeypatch):
    here = RayHere()
    monkeypatch.setitem(sys.modules, "ray", here)
    with tidy_stop():
        ours = signal.getsignal(signal.SIGTERM)
        work = CellQueue([], Store(tmp_path), CellSettings(), now())
        run_on_ray(work, SimpleNamespace(), None, None)
        assert here.handler is ours, "while cells run"


@pytest.mark.nightly(
    also="tests/compare/test_ray.py::test_tasks_of_a_cluster_find_what_one_process_finds"
)
@pytest.mark.usefixtures("found_by_others")
def test_a_cluster_finds_what_one_process_finds_though_a_worker_dies(alone, tmp_path, runs):
    runs.one_dies()
    config, one = alone
    assert compare(config, tmp_path, "--runner", "ray", "--jobs", "2") == 0
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
