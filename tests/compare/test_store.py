"""Records are written whole or not at all; a cell is held by one, until he is done or dead."""

import json
import multiprocessing
import os
import signal
import tracemalloc
from dataclasses import replace
from zipfile import ZipFile

import numpy as np
import pytest
from right_records import grid_of, right_record

from anomalib_medclip.compare.cell_record import CellRecord
from anomalib_medclip.compare.store import Store
from anomalib_medclip.errors import ResultsError

KEY = "0123456789abcdef"


SMALL, LARGE = right_record("MVFA"), right_record("MVFA", patients=1000)


def record_of(plain=SMALL, **measured):
    """A record, but for what it cost."""
    return CellRecord.of_plain({**plain, "measured": {**plain["measured"], **measured}})


def test_a_record_and_its_arrays_come_back(tmp_path):
    store = Store(tmp_path / "new")
    arrays = {"maps": np.arange(6, dtype=np.uint8).reshape(1, 2, 3)}
    assert store.record(KEY) is None
    assert store.arrays(KEY) == {}
    store.write(KEY, record_of(seconds=1 / 3), arrays)
    assert store.record(KEY) == record_of(seconds=1 / 3)
    written = json.loads((tmp_path / "new" / "cells" / f"{KEY}.json").read_text())
    assert list(written)[:2] == ["notice", "key"]
    assert written["notice"] == "research use only"
    (found,) = store.arrays(KEY).items()
    assert found[0] == "maps"
    assert found[1].dtype == np.uint8
    assert np.array_equal(found[1], arrays["maps"])


def test_what_was_planned_comes_back(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(ResultsError, match="holds no comparison; give a folder that compare wrote"):
        store.grid()
    grid = grid_of([right_record("MVFA")])
    store.write_grid(grid, "title: A  # ä\n")
    assert store.grid() == grid
    assert store.config() == "title: A  # ä\n"


@pytest.mark.parametrize("bad", [float("nan"), object()])
def test_a_record_that_cannot_be_written_leaves_the_old_one(bad, tmp_path):
    store = Store(tmp_path)
    store.write(KEY, record_of(seconds=1.0))
    written, worse = record_of(seconds=1.0), replace(record_of().measured, seconds=bad)
    with pytest.raises((ValueError, TypeError)):
        store.write(KEY, replace(written, measured=worse))
    assert store.record(KEY) == written
    assert [path.name for path in (tmp_path / "cells").iterdir()] == [f"{KEY}.json"]


def test_arrays_are_there_before_their_record_is(tmp_path):
    """Whoever sees a record finds its pictures, so a crash in between costs the record."""
    store = Store(tmp_path)
    with pytest.raises(ValueError, match="nan"):
        store.write(KEY, record_of(seconds=float("nan")), {"maps": np.zeros(3)})
    assert store.record(KEY) is None


@pytest.mark.parametrize("ending", ["json", "npz"])
def test_what_cannot_be_read_counts_as_absent(ending, tmp_path, caplog):
    store = Store(tmp_path)
    store.write(KEY, record_of(), {"maps": np.arange(600)})
    store.forget_damaged(KEY)
    assert store.record(KEY) == record_of()
    path = tmp_path / "cells" / f"{KEY}.{ending}"
    path.write_bytes(path.read_bytes()[:-30])
    store.forget_damaged(KEY)
    assert store.record(KEY) is None
    assert caplog.text.count("counts as absent, and its cell is run again") == 1


def _claim(path, shape, dtype):
    """Write an array of 24 bytes that says it is of something else."""
    said = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    head = b"\x93NUMPY\1\0" + len(said).to_bytes(2, "little") + said
    with ZipFile(path, "w") as archive:
        archive.writestr("maps.npy", head + bytes(24))


CLAIMS = {
    "more": ("(2000000000,)", "<f4", r"\(2000000000,\) float32 numbers, and holds 24 bytes"),
    "objects": ("(3,)", "|O", "Object arrays cannot be loaded"),
    "no shape": ("6", "<f4", "shape is not valid"),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_arrays_that_are_none_are_named_before_memory_is_taken_for_them(claim, tmp_path):
    store = Store(tmp_path)
    store.write(KEY, record_of(), {"maps": np.arange(6)})
    *said, words = CLAIMS[claim]
    _claim(tmp_path / "cells" / f"{KEY}.npz", *said)
    tracemalloc.start()
    try:
        with pytest.raises(ResultsError, match=rf"{KEY}\.npz holds no arrays of a cell: .*{words}"):
            store.arrays(KEY)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("key", ["../elsewhere", "n" * 300])
def test_a_cell_is_called_by_no_name_of_another_place(key, tmp_path):
    store = Store(tmp_path)
    store.write_grid(grid_of([{"cell": {**SMALL["cell"], "key": key}}]), "")
    with pytest.raises(ResultsError, match=r"grid\.json is no grid .*the key of a cell is"):
        store.grid()


def _write_for_ever(folder, ready):
    store, number = Store(folder), 0
    while True:
        number += 1
        record = record_of(LARGE, seconds=number, train_seconds=number)
        store.write(KEY, record, {"maps": np.full(50_000, number)})
        if number == 2:
            ready.set()


def test_a_killed_writer_leaves_nothing_half_written(tmp_path):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    writer = context.Process(target=_write_for_ever, args=(tmp_path, ready))
    writer.start()
    assert ready.wait(60)
    store = Store(tmp_path)
    for _ in range(5):  # while it writes, too
        measured = store.record(KEY).measured
        assert measured.seconds == measured.train_seconds
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    found = store.record(KEY)
    assert found.tests == record_of(LARGE).tests
    assert found.measured.seconds == found.measured.train_seconds > 0
    assert len(np.unique(store.arrays(KEY)["maps"])) == 1
    json.loads((tmp_path / "cells" / f"{KEY}.json").read_text())


def test_a_cell_is_held_by_one(tmp_path):
    store, other = Store(tmp_path), Store(tmp_path)
    with store.claim(KEY):
        assert other.claim(KEY) is None
        with other.claim("another"):
            pass
    with other.claim(KEY) as lock:
        assert lock is not None


def _hold(folder, held):
    with Store(folder).claim(KEY), Store(folder).claim_report():
        held.set()
        signal.pause()


def test_a_lock_held_by_a_dead_process_is_free(tmp_path):
    context = multiprocessing.get_context("fork")
    held = context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, held))
    holder.start()
    assert held.wait(60)
    store = Store(tmp_path)
    assert store.claim(KEY) is None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with store.claim(KEY) as lock, store.claim_report():
        assert lock is not None
