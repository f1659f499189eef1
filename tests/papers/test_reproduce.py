"""``anomalib-medclip reproduce``: a paper's table from data to page, ours beside theirs."""

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants
from paper_tables import TABLES, config_of, every_set, grow, shrink

from anomalib_medclip import cli
from anomalib_medclip.clip.weights import WEIGHTS_VARIABLE
from anomalib_medclip.compare.comparison import read_config
from anomalib_medclip.compare.store import Store
from anomalib_medclip.papers import weights
from anomalib_medclip.papers.beside import CHOSEN_ON_TEST
from anomalib_medclip.papers.hours import Costs, effort, own_figures
from anomalib_medclip.papers.inputs import missing, placed, without
from anomalib_medclip.papers.lines import trainings
from anomalib_medclip.papers.otherwise import otherwise


def reproduce(*words):
    return cli.main(["reproduce", *map(str, words)])


def lines(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def remake(name, home, *words):
    """Run a table on the data below ``home``; the exit code, and the lines of its CSV."""
    given = name, "--data", home / "data", "--out", home / "out", "--device", "cpu", *words
    code = reproduce(*given)
    return code, lines(home / "out" / f"{name}.csv")


DAILY = {
    "mvfa-table1": (["PatchCore", "MVFA"], ["Brain"], 4),
    "madclip-table3": (["MadCLIP"], ["Retina_RESC", "octdl"], 1),
    "mediclip-table3": (["MediCLIP"], ["brainmri"], 1),
    "iqeclip-table2": (["IQE-CLIP"], ["Brain"], 2),
}
"""Of a table of each paper: models and sets that there are, and how many figures these give."""


@pytest.mark.parametrize("name", DAILY)
def test_a_table_is_filled_as_far_as_there_are_data(name, tmp_path, monkeypatch):
    models, sets, count = DAILY[name]
    grow(tmp_path / "data", sets, [4, 16])
    shrink(name, tmp_path, monkeypatch, models)
    code, found = remake(name, tmp_path)
    assert code == 0
    assert len(found) == len(TABLES[name].printed)
    done = [line for line in found if line["state"] == "done"]
    assert len(done) == count
    assert {line["model"] for line in done} == {*models}
    for line in done:
        assert line["untrained"] == "True"
        gap = float(line["fixed"]) - float(line["theirs"])
        assert float(line["difference"]) == pytest.approx(gap)
    planned = trainings(read_config(tmp_path / "out" / "config.yaml"))
    assert sum(one.cells for one in planned) == len(Store(tmp_path / "out").grid().cells)
    others = {line["state"] for line in found if line["model"] not in models}
    assert others <= {"not run: no model"}
    assert_shows_what_the_records_say(tmp_path / "out", done)
    assert_page_shows(tmp_path / "out" / f"{name}.html", found)


def test_the_page_is_written_again_without_data(tmp_path, monkeypatch):
    """Of all that was found, be it of data that have been there one after another."""
    shrink("mediclip-table3", tmp_path, monkeypatch, ["MediCLIP"])
    for count, name in enumerate(("busi", "brainmri"), start=1):
        grow(tmp_path / "data", [name], [16])
        code, found = remake("mediclip-table3", tmp_path)
        assert (code, sum(line["state"] == "done" for line in found)) == (0, count)
        shutil.rmtree(tmp_path / "data")
    page = tmp_path / "out" / "mediclip-table3.html"
    whole = page.read_text()
    page.unlink()
    code, found = remake("mediclip-table3", tmp_path, "--report-only", "--authors-epoch-choice")
    assert (code, sum(line["state"] == "done" for line in found)) == (0, 2)
    assert "<b>ours</b> to the paper" in whole
    assert "<li>the data brainmri</li>" not in whole
    assert "<li>the data brainmri</li>" in page.read_text()
    assert "<b>the authors' epoch, where there is one,</b> to the paper" in page.read_text()


def assert_shows_what_the_records_say(out, done):
    """Ours are the figures of the comparison's own table, by the protocols that authors have."""
    rows = json.loads((out / "table.json").read_text())["rows"]
    for line in done:
        found = [
            (
                100 * row["honest"][line["metric"]]["mean"],
                100 * row["oracle"][line["metric"]]["mean"],
            )
            for row in rows
            if row["model"] == line["model"]
        ]
        chosen = line["row"] in CHOSEN_ON_TEST
        assert (line["authors_epoch"] != "") == chosen
        ours = float(line["fixed"]), float(line["authors_epoch"]) if chosen else None
        assert ours in [
            (pytest.approx(fixed), pytest.approx(oracle) if chosen else None)
            for fixed, oracle in found
        ]


def assert_page_shows(page, found):
    """Every printed figure stands in the page, and says so where there is none of ours."""
    text = page.read_text()
    assert "Untrained backbone: these figures mean nothing" in text
    printed = re.findall(r'class="theirs"[^>]*>([\d.]+)', text)
    assert sorted(printed) == sorted(f"{float(line['theirs']):.1f}" for line in found)
    absent = [line["state"] for line in found if line["state"] != "done"]
    assert sorted(re.findall(r'class="state">([^<]+)', text)) == sorted(absent)


@pytest.mark.nightly(
    also="tests/papers/test_reproduce.py::test_a_table_is_filled_as_far_as_there_are_data"
)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in TABLES]
)
def test_every_row_of_a_table_is_filled(name, tmp_path, monkeypatch):
    config = config_of(name)
    grow(tmp_path / "data", every_set(config), config.k_shot)
    shrink(name, tmp_path, monkeypatch)
    code, found = remake(name, tmp_path)
    assert code == 0
    left = {(line["row"], line["state"]) for line in found if line["state"] != "done"}
    absent = {(row, "not run: no model") for row, _ in left if row not in config.models}
    assert left <= absent | {("VCP-CLIP", "not run: learns from masks alone")}


def planned(said):
    """Of each table that a plan shows: trainings, hours, and those without looks at the test."""
    rows = [[cell.strip() for cell in line.split("│")] for line in said.splitlines() if "│" in line]
    return {row[1]: [float(cell.replace(",", "")) for cell in row[2:5]] for row in rows if row[1]}


def test_the_plan_of_all_tables_needs_no_data(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    assert reproduce("--plan") == 0
    said = capsys.readouterr().out
    found = planned(said)
    assert found.keys() == TABLES.keys()
    for name, (count, hours, unlooked) in found.items():
        config = config_of(name)
        assert count == sum(one.cells for one in trainings(config)) > 0
        assert hours > unlooked > 0
    assert "Hours are of one process on AMD EPYC, 2 cores, as `bench` has measured it" in said


def test_hours_are_those_of_the_machine_asked_for(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    found = json.loads(own_figures().read_text())
    for row in found["rows"]:
        row["ms_per_image"] /= 1000
    found["runs"][-1]["hardware"]["cpu"] = "Fast"
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(found))
    assert reproduce("iqeclip-table1", "--plan", "--bench", path) == 0
    said = capsys.readouterr().out
    assert "on Fast, 2 cores" in said
    config = config_of("iqeclip-table1")
    hours = effort(config, Costs()).hours / 1000
    assert planned(said)["iqeclip-table1"][1] == pytest.approx(hours, abs=0.5)


def test_hours_are_those_of_epochs_and_of_looks_at_the_test_images():
    """MVFA on brain MRI: 88 images in 50 epochs, and 3,715 test images after each."""
    config = config_of("mvfa-table1")
    config = replace(
        config, models={"MVFA": config.models["MVFA"]}, data={"brain": config.data["brain"]}
    )
    learnt = 88 * (2344.24692 + 49 * 1967.189301)
    for every, looks in ((1, 50), (10, 5), (0, 1)):
        told = effort(placed(config, Path("datasets"), every), Costs())
        hours = (learnt + looks * 3715 * 1080.771385) / 3.6e6
        assert told.hours == pytest.approx(hours, rel=1e-3)


def test_a_table_that_is_not_there_is_answered_with_those_that_are(capsys):
    assert reproduce("mvfa-table9") == 2
    assert "no table 'mvfa-table9'; choose one of iqeclip-table1, " in capsys.readouterr().err


def test_a_table_has_to_be_named(capsys):
    with pytest.raises(SystemExit, match="2"):
        reproduce("--data", "datasets")
    assert "give a TABLE, --list or --plan" in capsys.readouterr().err


@pytest.mark.daily_for(name="madclip-table3")
@pytest.mark.parametrize("name", TABLES)
def test_without_data_it_says_what_to_request_where_and_how_it_should_lie(name, tmp_path, capsys):
    assert reproduce(name, "--data", tmp_path / "nowhere", "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    config = config_of(name)
    for data in config.data:
        (line,) = [line for line in said.splitlines() if line.startswith(f"{data} is left out: ")]
        assert re.search(r"(From|To be requested from) .*https://", line)
        assert str(tmp_path / "nowhere") in line
    assert f"nothing of {name} can be run; see above, and name its folder by --data" in said
    assert not (tmp_path / "out" / "grid.json").exists()


def test_a_missing_list_says_whose_it_is_and_where_to_copy_it(write_bmad, tmp_path, capsys):
    write_bmad("Brain", root=tmp_path / "BMAD")
    assert reproduce("mvfa-table5", "--data", tmp_path, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    path = tmp_path / "support_lists" / "mvfa" / "Brain" / "4-shot.txt"
    assert (
        f"brain is left out: no support list {path}. From https://github.com/MediaBrain-SJTU/"
        in said
    )
    assert "datasets/support_lists/mvfa: <set>/<K>-shot.txt" in said


def _empty(root, _):
    (root / "support_lists" / "mvfa" / "Brain" / "4-shot.txt").write_text("n-0:\na-0:\n")


def _unknown(root, _):
    path = root / "support_lists" / "mvfa" / "Brain" / "4-shot.txt"
    path.write_text(path.read_text().replace(": ", ": nobody.png ", 1))


def _no_valid(_, brain):
    shutil.rmtree(brain / "valid")


def _nothing_abnormal(_, brain):
    shutil.rmtree(brain / "test" / "Ungood")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_empty, "4-shot.txt names no normal image (alternative 0); add one"),
        (_unknown, "4-shot.txt: 0 times normal image 'nobody.png' in "),
        (_no_valid, "holds only normal images outside the test split"),
        (_nothing_abnormal, "the test split of "),
    ],
)
def test_bad_lists_and_splits_are_said_before_anything_is_run(spoil, said, tmp_path):
    table = "mvfa-table5"
    config = config_of(table)
    config = placed(replace(config, data={"brain": config.data["brain"]}), tmp_path)
    grow(tmp_path, ["Brain"], [4])
    assert not missing(config, TABLES[table].config).data
    spoil(tmp_path, tmp_path / "BMAD" / "Brain_AD")
    assert said in missing(config, TABLES[table].config).data["brain"]


def test_weights_that_cannot_be_had_offline_are_said_beforehand(tmp_path, monkeypatch):
    config = placed(config_of("mvfa-table1"), tmp_path)
    path = TABLES["mvfa-table1"].config
    monkeypatch.setattr(weights, "_offline", lambda: True)
    monkeypatch.setattr(weights, "try_to_load_from_cache", lambda *_: None)
    said = missing(config, path).models
    assert {"CFlow-AD", "RD4AD", "PatchCore"} <= said.keys()
    assert "no weights timm/wide_resnet50_2.racm_in1k in " in said["PatchCore"]
    assert "HF_HOME" in said["PatchCore"]
    monkeypatch.setattr(weights, "try_to_load_from_cache", lambda _, file: file)
    assert "PatchCore" not in missing(config, path).models


def test_weights_of_clip_that_cannot_be_had_are_said_beforehand(tmp_path, monkeypatch):
    config, path = placed(config_of("mvfa-table1"), tmp_path), TABLES["mvfa-table1"].config
    monkeypatch.delenv(WEIGHTS_VARIABLE, raising=False)
    monkeypatch.setattr(weights, "_offline", lambda: True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    said = missing(config, path).models
    assert {"CLIP", "WinCLIP", "APRIL-GAN", "MVFA", "MVFA (transductive)"} <= said.keys()
    assert "could not download the weights ViT-L-14-336/openai" in said["MVFA"]
    assert WEIGHTS_VARIABLE in said["MVFA"]
    (tmp_path / "clip.pt").touch()
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path / "clip.pt"))
    assert "MVFA" not in missing(config, path).models


def test_what_is_never_looked_at_stays_so(tmp_path):
    config = config_of("mediclip-table1")
    every = {
        name: entry.get("record_every")
        for name, entry in placed(config, tmp_path, 10).models.items()
    }
    assert {name for name, number in every.items() if number == 0} == {"AnoDDPM", "PatchSVDD"}
    assert every["MediCLIP"] == every["SimpleNet"] == 10


def test_a_plan_of_a_table_says_what_is_done_otherwise(capsys):
    assert reproduce("mediclip-table1", "--plan") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert all(sentence in said for sentence in otherwise("mediclip-table1"))


def test_training_sets_without_a_set_to_test_on_are_nothing_to_run(tmp_path, capsys):
    grow(tmp_path, ["Chest"], [16])
    assert reproduce("madclip-table3", "--data", tmp_path, "--out", tmp_path / "out") == 2
    assert "nothing of madclip-table3 can be run; see above" in capsys.readouterr().err


def test_missing_weights_leave_out_their_models_alone(tmp_path):
    config = placed(config_of("mvfa-table1"), tmp_path)
    lacking = missing(config, TABLES["mvfa-table1"].config)
    assert lacking.models.keys() == {"MedCLIP", "MKD", "DRA", "BGAD"} & config.models.keys()
    assert str(tmp_path / "weights" / "medclip-vit.zip") in lacking.models["MedCLIP"]
    there = without(config, lacking._replace(data={}))
    assert config.models.keys() - there.models.keys() == lacking.models.keys()
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "medclip-vit.zip").touch()
    assert "MedCLIP" not in missing(config, TABLES["mvfa-table1"].config).models
