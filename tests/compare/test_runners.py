"""Whoever runs the cells: each is run once, and what dies takes nothing with it."""

import multiprocessing
import os
import signal
import time
from subprocess import DEVNULL
from textwrap import dedent

import fresh_process
import pytest
import torch
from comparing import (
    MVFA,
    cells_of,
    command,
    compare,
    figures,
    forked,
    held,
    lesion_entry,
    records,
    started,
    write_config,
)

from anomalib_medclip.commands.compare import run as run_command
from anomalib_medclip.compare.cell_setup import CellSettings
from anomalib_medclip.compare.processes import ProcessPool
from anomalib_medclip.compare.run_cell import now
from anomalib_medclip.compare.runners import CellQueue, rotated, run_here, run_on_ray
from anomalib_medclip.compare.store import Store
from anomalib_medclip.errors import ConfigError, ProcessDiedError, RuntimeMissingError

ALL = ["0 0", "0 1", "1 0", "1 1"]
"""Seed and draw of each training of the comparison ``alone``."""


def model(name):
    return {**MVFA, "class_path": f"unlucky.{name}", "max_epochs": 1}


@pytest.fixture
def forking(monkeypatch):
    """Processes of a pool are copies of this one, which need not import everything anew."""
    real = multiprocessing.get_context
    monkeypatch.setattr(multiprocessing, "get_context", lambda _=None: real("fork"))


BEGUN = """
    import multiprocessing, sys
    from anomalib_medclip.cli import main

    context = multiprocessing.get_context(sys.argv[1])
    multiprocessing.get_context = lambda _=None: context
    sys.exit(main(sys.argv[2:]))
"""


class Heard:
    """Remembers what it is told."""

    def __init__(self):
        self.words = []

    def started(self, cell):
        self.words.append((cell.key, "started"))

    def ended(self, cell, status):
        self.words.append((cell.key, status))


def work_of(home, lesions, name, **options):
    data = {"phantom": lesion_entry(lesions)}
    cells = cells_of(home / "c.yaml", {"Mine": model(name)}, data, **options)
    return CellQueue(cells, Store(home / "out"), CellSettings(accelerator="cpu"), now())


def test_a_share_begins_elsewhere_and_leaves_nothing_out():
    cells = list(range(7))
    shares = [rotated(cells, number, 3) for number in range(3)]
    assert [share[0] for share in shares] == [0, 2, 4]
    assert all(sorted(share) == cells for share in shares)


def test_each_cell_is_run_once_and_told_and_a_held_one_left_to_its_holder(lesions, tmp_path, runs):
    work, heard = work_of(tmp_path, lesions, "Counted", draws=2), Heard()
    first, second = (cell.key for cell in work.cells)
    with work.store.claim(first):
        run_here(work, heard, wait=False)
    assert runs() == ["0 1"]
    for _ in range(2):
        run_here(work, heard)
        assert runs() == ["0 0", "0 1"]
    assert heard.words == [(key, word) for key in (second, first) for word in ("started", "done")]


def test_a_failure_of_before_is_tried_again_and_one_of_now_is_not(lesions, tmp_path):
    work, heard = work_of(tmp_path, lesions, "Raises"), Heard()
    (cell,) = work.cells
    for _ in range(2):
        run_here(work, heard)
    assert [word for _, word in heard.words] == ["started", "failed"]
    run_here(work._replace(since=now()), heard)
    assert [word for _, word in heard.words] == ["started", "failed"] * 2
    assert work.status(cell) == "failed"


def test_a_pool_outlives_its_dead(lesions, tmp_path, forking):
    models = {"dies": model("Dies"), "raises": model("Raises")}
    data = {"phantom": lesion_entry(lesions)}
    config = write_config(tmp_path / "c.yaml", models, data, draws=2)
    assert compare(config, tmp_path / "out", "--jobs", "2") == 1
    found = [(one["cell"]["model"], one["error"]) for one in records(tmp_path / "out").values()]
    types = sorted((name, error["type"]) for name, error in found)
    assert types == [("dies", "ProcessDied")] * 2 + [("raises", "RuntimeError")] * 2
    died = [error["message"] for name, error in found if name == "dies"]
    assert all("ended with code -9; was there enough memory?" in one for one in died)
    assert held(tmp_path / "out") == []
    assert "ProcessDied" in (tmp_path / "out" / "report.html").read_text()


def test_a_pool_finds_what_one_process_finds_though_one_dies(alone, tmp_path, runs, forking):
    (config, one), out = alone, tmp_path / "pool"
    runs.one_dies()
    assert compare(config, out, "--jobs", "2") == 0
    assert set(runs()) == set(ALL)
    assert len(runs()) == len(ALL) + 1, "the cell that died was run again, no other was"
    assert records(out) == records(one)
    assert figures(out) == figures(one)
    assert held(out) == []


def test_shares_run_each_cell_once_and_report_all(alone, tmp_path, runs):
    (config, one), out = alone, tmp_path / "out"
    shares = [forked(config, out, "--shard", f"{number}/2") for number in range(2)]
    for share in shares:
        share.join(300)
    codes = sorted(share.exitcode for share in shares)
    assert codes in ([0, 0], [0, 1]), "the first to end may leave the other its last cell"
    assert runs() == ALL
    assert records(out) == records(one)
    assert held(out) == []
    assert figures(out) == figures(one), "the last to end reported all"


@pytest.mark.daily_for(begun="fork")  # else each process imports everything anew
@pytest.mark.parametrize("begun", ["fork", "spawn"])
@pytest.mark.usefixtures("found_by_others")
def test_a_kill_in_the_middle_costs_only_what_was_running(begun, alone, tmp_path, runs):
    """The whole group is killed, as a job that ran out of memory or time is."""
    (config, undisturbed), killed = alone, tmp_path / "killed"
    words = [dedent(BEGUN), begun, *command(config, killed, "--jobs", "2")]
    process = fresh_process.start("-c", *words, new_session=True, stdout=DEVNULL, stderr=DEVNULL)
    while not list(killed.glob("cells/*.json")) and process.poll() is None:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was in the middle"
    assert held(killed) == []
    before, survived = started(killed), records(killed)
    assert 0 < len(before) < len(ALL)
    assert survived.items() < records(undisturbed).items(), "another process has the same keys"
    assert not (killed / "report.html").exists()
    assert compare(config, killed) == 0
    assert before.items() < started(killed).items(), "what was done is not run again"
    assert records(killed) == records(undisturbed)
    assert figures(killed) == figures(undisturbed)


def _ends(*_args):
    os._exit(3)


def test_a_pool_that_cannot_begin_says_so(lesions, tmp_path, monkeypatch, forking):
    monkeypatch.setattr("anomalib_medclip.compare.processes._work_on", _ends)
    work = work_of(tmp_path, lesions, "Counted")
    with pytest.raises(ProcessDiedError, match=r"code 3, .*; run with one job to see why"):
        ProcessPool(work, Heard(), 2).run()
    assert records(tmp_path / "out") == {}


@pytest.mark.parametrize(
    ("there", "told", "seen"),
    [
        (2, None, ["0", "1", "0"]),
        (2, "4,7", ["4", "7", "4"]),
        (1, "5", ["5", "5", "5"]),
    ],
)
def test_processes_of_a_pool_take_the_gpus_in_turn(
    there, told, seen, lesions, tmp_path, monkeypatch, forking
):
    visible = "CUDA_VISIBLE_DEVICES"
    monkeypatch.delenv(visible, raising=False)
    if told:
        monkeypatch.setenv(visible, told)

    def note(work, words):
        place = work.cells[0].draw  # each process begins with another
        (tmp_path / f"seen {place}").write_text(str(os.environ.get(visible)))

    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    monkeypatch.setattr("anomalib_medclip.compare.processes._work_on", note)
    ProcessPool(work_of(tmp_path, lesions, "Counted", draws=3), Heard(), 3).run()
    assert [path.read_text() for path in sorted(tmp_path.glob("seen *"))] == seen
    assert os.environ.get(visible) == told, "this process sees what it saw"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_missed_before_any_work(lesions, tmp_path):
    config = write_config(tmp_path / "c.yaml", {}, {"data": lesion_entry(lesions)}, trivial=True)
    with pytest.raises(ConfigError, match="torch sees no GPU here; leave the device to be chosen"):
        run_command([str(config), "--out", str(tmp_path / "out"), "--device", "gpu"])
    assert not (tmp_path / "out").exists()


def test_without_ray_there_is_a_word(lesions, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    work = work_of(tmp_path, lesions, "Counted")
    with pytest.raises(RuntimeMissingError, match=r"medclip\[ray\].*, or use --runner local"):
        run_on_ray(work, Heard(), None, 2)
