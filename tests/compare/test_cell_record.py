"""Records on disk are read as what they are, former ones too, and nothing else is taken for one."""

import json

import pytest
from compare_results import write_results
from comparing import PLAIN, compare, lesion_entry, write_config
from right_records import failed_record, right_record

from anomalib_medclip.compare.cell_record import CellRecord
from anomalib_medclip.compare.store import Store
from anomalib_medclip.errors import ResultsError


def test_reading_and_writing_again_changes_no_byte(compared, tmp_path):
    out, _ = compared
    paths = [out / "grid.json", *out.glob("cells/*.json")]
    before, store, copy = (
        {path.name: path.read_bytes() for path in paths},
        Store(out),
        Store(tmp_path),
    )
    copy.write_grid(store.grid(), store.config())
    for cell in store.grid().cells:
        copy.write(cell.key, store.record(cell.key))
    written = [tmp_path / "grid.json", *tmp_path.glob("cells/*.json")]
    assert {path.name: path.read_bytes() for path in written} == before


def test_a_failed_cell_leaves_out_what_it_has_not_found():
    plain = failed_record(right_record("MVFA"))
    plain["measured"] = {"started": "2026-01-01T00:00:00+00:00", "seconds": 0.0}
    record = CellRecord.of_plain(plain)
    assert (record.facts, record.tests, record.measured.train_seconds) == (None, (), None)
    assert record.as_plain().keys() == plain.keys()
    assert record.as_plain()["measured"] == plain["measured"]


def test_what_a_former_version_did_not_know_is_unknown():
    plain = right_record("MVFA")
    (test,) = plain["tests"]
    for name in ("patients", "influence"):
        del test[name]
    del test["images"]["called"]
    for name in ("learns_abnormal", "epoch_choice", "zero_shot"):
        del plain["facts"][name]
    record = CellRecord.of_plain(plain)
    assert record.tests[0].patients is None
    assert record.tests[0].lesions is None
    assert record.tests[0].influence == {}
    assert record.tests[0].images.called == ()
    assert record.tests[0].images.ranked_by == record.tests[0].images.score
    facts = record.facts
    assert (facts.learns_abnormal, facts.epoch_choice, facts.zero_shot) == (None, None, None)
    assert facts.tested_epoch == facts.epochs == 4


BROKEN = {
    "no object": ([], "the record is '[]', and no object"),
    "no status": ({"status": None}, "'status' of the record is 'None', and no str"),
    "a score in words": (
        {"tests": [{**right_record("A")["tests"][0], "honest": {"image_AUROC": "high"}}]},
        "'image_AUROC' of 'honest' of 0 of 'tests' of the record is 'high', and no float",
    ),
    "a label in words": (
        {"tests": [{**right_record("A")["tests"][0], "images": {"name": ["a"], "patient": ["b"]}}]},
        "something of 'patient' of 'images' of 0 of 'tests' of the record is 'b', and no int",
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_file_that_is_no_record_is_named_with_a_remedy(how, tmp_path):
    store = write_results(tmp_path)
    key = store.grid().cells[0].key
    path = tmp_path / "cells" / f"{key}.json"
    change, words = BROKEN[how]
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({**whole, **change} if isinstance(change, dict) else change))
    with pytest.raises(ResultsError) as error:
        store.record(key)
    assert str(error.value) == (
        f"{path} is no record of a cell: {words}; restore it, or run the comparison again, which "
        "runs this cell anew"
    )


def test_a_grid_without_cells_is_named_and_written_again(lesions, tmp_path, capsys):
    config = write_config(tmp_path / "c.yaml", {"A": PLAIN}, {"phantom": lesion_entry(lesions)})
    out = tmp_path / "out"
    assert compare(config, out) == 0
    (out / "grid.json").write_text('{"title": "A"}')
    assert compare(config, out, "--report-only") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"{out / 'grid.json'} is no grid of a comparison: 'command' of the grid is lack" in said
    assert compare(config, out) == 0
