"""``anomalib-medclip compare``: what fails is said, what is done is kept, whatever happens."""

import json
import shutil

import pytest
from comparing import (
    MVFA,
    PLAIN,
    compare,
    figures,
    lesion_entry,
    phantom_entry,
    records,
    started,
    write_config,
)

from anomalib_medclip import cli

SAID = ("RuntimeError", "no <b>luck</b>, again")
FILES = {"config.yaml", "grid.json", "cells", "claims", "features", "report.html", "table.csv"}


def of(out, **wanted):
    """Keys of the records whose cells are so."""
    found = records(out).items()
    return {k for k, r in found if all(r["cell"][name] == v for name, v in wanted.items())}


@pytest.fixture(scope="module")
def unlucky(lesions, tmp_path_factory):
    """A comparison of which some cells fail: one model, and draws that use a missing mask."""
    home = tmp_path_factory.mktemp("unlucky")
    shutil.copytree(lesions, home / "holes")
    (home / "holes" / "masks" / "abnormal" / "3.png").unlink()
    models = {
        "whole": {**MVFA, "max_epochs": 1},
        "broken": {**MVFA, "class_path": "unlucky.Raises"},
    }
    data = {"good": phantom_entry(home / "pictures"), "holes": lesion_entry(home / "holes")}
    config = write_config(home / "c.yaml", models, data, draws=2)
    return config, home / "out", compare(config, home / "out")


def test_what_fails_leaves_the_others_whole(unlucky):
    _, out, code = unlucky
    assert code == 1
    found = records(out)
    done = {key for key, record in found.items() if record["status"] == "done"}
    assert len(found) == 8
    spared = of(out, model="whole", data="holes", draw=0)  # its images are not the one without mask
    assert done == of(out, model="whole", data="good") | spared
    assert len(done) == 3


def test_a_failure_is_recorded_with_all_that_was_said(unlucky):
    _, out, _ = unlucky
    found = records(out)
    raised = [found[key]["error"] for key in of(out, model="broken", data="good")]
    assert [(e["type"], e["message"]) for e in raised] == [SAID] * 2
    assert all("its last words" in e["log"] and "training_step" in e["traceback"] for e in raised)
    masks = [found[key]["error"] for key in of(out, data="holes", draw=1)]
    assert len(masks) == 2
    assert {e["type"] for e in masks} == {"MissingMaskError"}
    assert all("3.png" in e["message"] for e in masks)


def test_the_report_shows_what_failed_and_names_no_file(unlucky):
    _, out, _ = unlucky
    page = (out / "report.html").read_text()
    assert "RuntimeError" in page
    assert "MissingMaskError" in page
    assert "<b>luck</b>" not in page
    assert "3.png" not in page
    assert str(out.parent) not in page
    assert "research use only" in page.lower()
    assert {path.name for path in out.iterdir()} >= FILES


def test_a_rerun_tries_what_failed_and_only_that(unlucky, capsys):
    config, out, _ = unlucky
    before, found = started(out), records(out)
    assert compare(config, out) == 1
    after = started(out)
    again = {key for key in before if before[key] != after[key]}
    assert again == {key for key, record in found.items() if record["status"] == "failed"}
    assert "8 cells: 3 done, 5 failed; research use only" in capsys.readouterr().err


def test_a_comparison_grows_and_keeps_what_is_done(lesions, tmp_path, capsys):
    data, out = {"phantom": lesion_entry(lesions)}, tmp_path / "out"
    assert compare(write_config(tmp_path / "c.yaml", {"Mine": PLAIN}, data), out) == 0
    before = started(out)
    more = write_config(tmp_path / "c.yaml", {"Mine": {**PLAIN, "note": "ours"}}, data, draws=2)
    assert compare(more, out) == 0
    assert before.items() < started(out).items()
    assert len(started(out)) == 2
    assert (out / "config.yaml").read_text() == more.read_text()
    table = (out / "table.csv").read_bytes()
    (out / "report.html").unlink()
    capsys.readouterr()
    assert compare(more, out, "--report-only") == 0
    assert (out / "table.csv").read_bytes() == table
    assert (out / "report.html").is_file()
    assert "2 cells: 2 done" in capsys.readouterr().err
    next(out.glob("cells/*.json")).unlink()
    assert compare(more, out, "--report-only") == 1
    assert "2 cells: 1 done, 1 not run" in capsys.readouterr().err


def test_only_the_report_needs_no_config(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["compare", "--out", str(tmp_path)])
    assert "give a CONFIG, or --report-only" in capsys.readouterr().err


def test_where_there_is_no_comparison_there_is_no_report(tmp_path, capsys):
    assert cli.main(["compare", "--out", str(tmp_path), "--report-only"]) == 2
    assert "holds no comparison; give a folder that compare wrote" in capsys.readouterr().err


@pytest.mark.slow
def test_a_damaged_record_is_named_and_made_again(lesions, tmp_path, capsys, caplog):
    data, out = {"phantom": lesion_entry(lesions)}, tmp_path / "out"
    config = write_config(tmp_path / "c.yaml", {"Mine": PLAIN}, data)
    assert compare(config, out) == 0
    whole = figures(out)
    (path,) = out.glob("cells/*.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "threshold": float("nan")}))
    assert compare(config, out, "--report-only") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"{path} is no JSON: NaN is no number in JSON; restore it, or delete it" in said
    assert compare(config, out) == 0
    assert f"a record counts as absent, and its cell is run again: {path} is no" in caplog.text
    assert figures(out) == whole
    (out / "grid.json").write_text('{"cells": [')
    assert compare(config, out, "--report-only") == 2
    assert f"{out / 'grid.json'} is no JSON" in " ".join(capsys.readouterr().err.split())
