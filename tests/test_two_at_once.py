"""Two processes in one folder at once: nothing is lost, doubled or mixed.

Of ``slice`` see test_slice.py, of ``compare`` compare/test_runners.py, of features test_cache.py.
"""

import json
from pathlib import Path
from textwrap import dedent

import fresh_process
import pandas as pd
import pytest
import torch
from anomalib.engine import Engine
from scans import numbers, record, write_volume
from tiny import SHALLOW, lesion_data

from anomalib_medclip.cli import main
from anomalib_medclip.compare.store import Store
from anomalib_medclip.files import sha256
from anomalib_medclip.models.mvfa import MVFA

MEETING = """
import sys, time
from pathlib import Path
sys.path[:0] = [{helpers!r}]
home, number, *given = sys.argv[1:]
replace, files = Path.replace, 0

def meet(where, seconds=60):
    there = Path(home, where)
    there.mkdir(parents=True, exist_ok=True)
    (there / number).touch()
    end = time.monotonic() + seconds
    while len(list(there.iterdir())) < 2 and time.monotonic() < end:
        time.sleep(0.005)

def late(path, target):
    global files
    files += 1
    if files == 1:
        meet("at the first file", 0.3)  # in vain, where the other may not yet
        time.sleep(0.05 * int(number))
    elif files == 2 and number == "0":
        time.sleep(0.1)
    return replace(path, target)

def met_before(function):
    def after_meeting(*given, **options):
        meet("before")
        return function(*given, **options)
    return after_meeting
"""
"""Their first files appear at one time, the last of the second process before that of the first."""


def together(script, tmp_path, *words, late=True):
    """Run a script in two processes, each with words of its own; exit codes and words said."""
    home = str(fresh_process.SERVER.parent)
    begin = "Path.replace = late\n" if late else ""
    code = MEETING.format(helpers=home) + begin + dedent(script)
    started = [
        fresh_process.start("-c", code, tmp_path / "meeting", number, *own)
        for number, own in enumerate(words)
    ]
    said = ["".join(one.communicate(timeout=300)) for one in started]
    return [one.returncode for one in started], said


@pytest.fixture(scope="module")
def models(finished, tmp_path_factory):
    """Two checkpoints of different weights."""
    other = torch.load(finished)
    learnt = next(name for name in other["state_dict"] if "adapters" in name)
    other["state_dict"][learnt] += 0.01
    path = tmp_path_factory.mktemp("model") / "model.ckpt"
    torch.save(other, path)
    return Path(finished), path


SCORE = """
from anomalib_medclip.cli import main
from anomalib_medclip.score import scorer
scorer.write_scores = met_before(scorer.write_scores)
sys.exit(main(["score", *given, "--intensity", "[0, 1000]", "--worst", "1"]))
"""


def table(out):
    return pd.read_csv(out / "scores.csv", keep_default_na=False).set_index("name")


def test_of_two_models_each_input_has_the_whole_result_of_one(models, tmp_path):
    write_volume(tmp_path / "a.nii.gz", numbers((6, 6, 3)))
    out = tmp_path / "out"
    words = [(tmp_path / "a.nii.gz", "--ckpt", model, "--out", out) for model in models]
    codes, said = together(SCORE, tmp_path, *words)
    assert sorted(codes) == [0, 1]
    assert "holds the result of another" in " ".join(said[codes.index(1)].split())
    assert list(table(out).index) == ["a"]
    made_by = record(out / "a")["provenance"]["model"]["sha256"]
    assert made_by == {"model.ckpt": sha256(models[codes.index(0)])}


@pytest.mark.nightly(
    also="tests/test_two_at_once.py::test_of_two_models_each_input_has_the_whole_result_of_one"
)
@pytest.mark.parametrize("run", range(5))
@pytest.mark.parametrize("shares", [(), ("0/2", "1/2")])
def test_two_runs_of_one_model_make_the_results_of_one(shares, run, models, tmp_path):
    for number, name in enumerate("abcd"):
        write_volume(tmp_path / "scans" / f"{name}.nii.gz", numbers((6, 6, 3), number))
    given = [str(tmp_path / "scans"), "--ckpt", str(models[0])]
    more = [("--shard", share) for share in shares] or [(), ()]
    words = [(*given, "--out", tmp_path / "two", *own) for own in more]
    codes, said = together(SCORE, tmp_path, *words, late=bool(run % 2))
    assert codes == [0, 0], said
    alone = ["score", *given, "--out", str(tmp_path / "one"), "--worst", "1"]
    assert main([*alone, "--intensity", "[0, 1000]"]) == 0
    found, expected = table(tmp_path / "two"), table(tmp_path / "one")
    assert found.drop(columns="status").equals(expected.drop(columns="status"))
    assert set(found["status"]) <= {"scored", "kept"}
    for name in "abcd":
        assert record(tmp_path / "two" / name) == record(tmp_path / "one" / name)


def test_of_two_exports_the_files_of_one_remain(models, tmp_path):
    script = """
        from anomalib_medclip.export import exporter
        from anomalib_medclip.models.mvfa import MVFA
        exporter.as_json = met_before(exporter.as_json)
        MVFA.load_from_checkpoint(given[0]).to_torch(given[1])
    """
    codes, said = together(script, tmp_path, *((model, tmp_path / "out") for model in models))
    assert codes == [0, 0], said
    home = tmp_path / "out" / "weights" / "torch"
    paper = json.loads((home / "model.json").read_text())
    assert paper["files"] == {"model.pt": sha256(home / "model.pt")}
    assert paper["checkpoint"]["sha256"] in [sha256(model) for model in models]


def test_config_and_grid_of_a_comparison_are_of_one_run(tmp_path):
    script = """
        from anomalib_medclip.compare.cell_record import ComparisonGrid
        from anomalib_medclip.compare.store import Store
        plan = {"command": "", "versions": {}, "published": {}, "cells": ()}
        meet("before")
        Store(Path(given[0])).write_grid(ComparisonGrid(title=number, **plan), number)
    """
    codes, said = together(script, tmp_path, [tmp_path / "out"], [tmp_path / "out"])
    assert codes == [0, 0], said
    store = Store(tmp_path / "out")
    assert store.config() == store.grid().title


TRAIN = """
from anomalib.engine import Engine
from tiny import SHALLOW, lesion_data
from anomalib_medclip.models.mvfa import MVFA
engine = Engine(
    default_root_dir=given[0], accelerator="cpu", max_epochs=1, enable_progress_bar=False
)
data, model = lesion_data(Path(given[1])), MVFA(**SHALLOW, seed=int(number))
meet("before")
"""


FIRST_FOLDER = """
mkdir = Path.mkdir
def met(path, *given, **options):
    if path.name == "v0":
        meet("about to make it")
    return mkdir(path, *given, **options)
Path.mkdir = met
"""


def test_two_trainings_get_a_folder_each_and_latest_leads_to_the_second(lesions, tmp_path):
    script = f"{TRAIN}{FIRST_FOLDER}"
    script += "engine._setup_workspace(model, datamodule=data, versioned_dir=True)"
    codes, said = together(script, tmp_path, *[[tmp_path / "out", lesions]] * 2, late=False)
    assert codes == [0, 0], said
    [runs] = (tmp_path / "out").glob("MVFA/*")
    assert {one.name for one in runs.iterdir()} == {"v0", "v1", "latest"}
    assert (runs / "latest").readlink() == Path("v1")


@pytest.mark.nightly(
    also="tests/test_two_at_once.py::"
    "test_two_trainings_get_a_folder_each_and_latest_leads_to_the_second"
)
def test_two_trainings_side_by_side_learn_what_each_learns_alone(lesions, tmp_path):
    script = f"{TRAIN}\ntime.sleep(int(number))\nengine.fit(model, datamodule=data)"
    codes, said = together(script, tmp_path, *[[tmp_path / "out", lesions]] * 2, late=False)
    assert codes == [0, 0], said
    for seed in range(2):
        engine = Engine(default_root_dir=tmp_path / "alone", accelerator="cpu", max_epochs=1)
        engine.fit(MVFA(**SHALLOW, seed=seed), datamodule=lesion_data(lesions))
        [path] = (tmp_path / "out").glob(f"MVFA/*/v{seed}/weights/lightning/model.ckpt")
        expected = torch.load(engine.trainer.checkpoint_callback.best_model_path)["state_dict"]
        found = torch.load(path)["state_dict"]
        assert all(found[name].equal(value) for name, value in expected.items())
