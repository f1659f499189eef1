"""What is said of a picture or a volume, and how sure, as one asks for it."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.engine import Engine
from cohort import SIDE, cohort_data, fit, patients, write_cohort
from scans import record, write_volume
from tiny import CASES
from volumes import save_nifti, volume

from anomalib_medclip import Inferencer
from anomalib_medclip.cli import main
from anomalib_medclip.data import Volumes, VolumeSource
from anomalib_medclip.decisions.decisions import Asked
from anomalib_medclip.decisions.thresholds import Rule
from anomalib_medclip.errors import ConfigError
from anomalib_medclip.models.mvfa import MVFA
from anomalib_medclip.score.record import TABLE_COLUMNS
from anomalib_medclip.score.summary import words_of

PAGE = (Path(__file__).parents[2] / "docs" / "score.md").read_text()
pytestmark = pytest.mark.xdist_group("MVFA")  # whose graph is traced once
[CASE] = [case for case in CASES if case.method is MVFA]


def trained(home, *validation):
    """The checkpoint of a training on patients whose validation is given."""
    rows = [*patients("support", 2, 2), *validation, *patients("test", 1, 1)]
    data = cohort_data(write_cohort(home, rows))
    return Path(fit(CASE.shallow(), data, home, epochs=1).file)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """A model that knows 5 normal and 8 abnormal patients, with two images each."""
    return trained(tmp_path_factory.mktemp("few"), *patients("valid", 5, 8, images=(2,)))


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """One that knows enough for a probability: 21 normal patients are left of 42."""
    return trained(tmp_path_factory.mktemp("many"), *patients("valid", 42, 21, images=(2,)))


@pytest.fixture
def score(tmp_path):
    """Runs the command on a volume: ``score(model, *options)`` gives the record and the row."""
    voxels = np.random.default_rng(0).normal(90, 12, (SIDE, SIDE, 4)).round()
    path = write_volume(tmp_path / "head.nii.gz", voxels.astype(np.int16), np.eye(4))

    def command(model, *options, anew=False, code=0):
        out = tmp_path / "out"
        given = ["--ckpt", str(model), "--out", str(out), "--intensity", "[0, 255]"]
        given += [] if anew else ["--overwrite"]
        assert main(["score", str(path), *given, *options]) == code
        with (out / "scores.csv").open(newline="") as file:
            [row] = csv.DictReader(file)
        return record(out / "head"), row

    return command


def test_too_few_patients_give_no_verdict_unless_one_insists(few, score):
    asked = ("--decide-by", "sensitivity=0.95")
    found, row = score(few, *asked)
    verdict = found["verdict"]
    assert found["label"] is verdict["label"] is None
    threshold = verdict["threshold"]
    assert threshold["sensitivity"] == {
        "found": 8,
        "of": 8,
        "bound": pytest.approx(0.05 ** (1 / 8)),
    }
    assert not threshold["holds"]
    assert "needs 59 abnormal ones without a miss" in verdict["no_verdict"]
    assert "at least 69 % with 95 % confidence" in verdict["no_verdict"]
    assert "needs 59 abnormal ones" in row["no_verdict"]
    assert (row["label"], row["threshold_holds"]) == ("", "False")
    insisted, row = score(few, *asked, "--insist")
    assert (row["label"], row["threshold_holds"]) == (str(insisted["label"]), "False")
    words = ("normal", "abnormal")[insisted["label"]]
    assert words_of(insisted).startswith(
        f"{words}, insisted (too few patients for a sensitivity of 95 %"
    )
    assert insisted["label"] == int(found["score"] > threshold["value"])
    assert insisted["verdict"]["threshold"] == threshold
    assert insisted["verdict"]["no_verdict"] is None


def test_few_patients_give_no_probability_and_a_p_value_that_is_not_small(few, score):
    verdict = score(few, "--prevalence", "0.1")[0]["verdict"]
    assert (verdict["probability"], verdict["prevalence"]) == (None, None)
    assert "too few patients: 5 normal and 8 abnormal" in verdict["no_probability"]
    assert verdict["p_value"]["smallest"] == pytest.approx(1 / 6)
    assert verdict["p_value"]["value"] >= 1 / 6


def odds(share):
    return share / (1 - share)


def test_a_prevalence_moves_the_probability_and_is_named(many, score):
    as_known = score(many)[0]["verdict"]
    rare, row = score(many, "--prevalence", "0.01")
    assert as_known["prevalence"] == pytest.approx(1 / 3)
    assert rare["verdict"]["prevalence"] == 0.01
    moved = odds(rare["verdict"]["probability"]) / odds(as_known["probability"])
    assert moved == pytest.approx(odds(0.01) / odds(1 / 3))
    assert row["probability"] == str(rare["verdict"]["probability"])
    assert row["prevalence"] == "0.01"


def test_the_table_says_of_each_number_how_sure_it_is(few, many, score):
    for model, decided in ((few, False), (many, True)):
        found, row = score(model)
        verdict = found["verdict"]
        parts = {name: verdict[name] or {} for name in ("threshold", "p_value", "unlike")}
        expected = {
            **{name: verdict[name] for name in ("level", "probability", "prevalence")},
            **{name: verdict[name] for name in ("no_verdict", "no_probability", "no_unlike")},
            "threshold": parts["threshold"]["value"],
            "threshold_holds": parts["threshold"]["holds"],
            "p_value": parts["p_value"]["value"],
            "p_smallest": parts["p_value"]["smallest"],
            "p_is_approximate": parts["p_value"]["is_approximate"],
            "abstains": parts["unlike"]["abstains"],
            "distance": parts["unlike"]["distance"],
            "distance_limit": parts["unlike"]["limit"],
        }
        for name, value in expected.items():
            assert row[name] == ("" if value is None else str(value)), name
        assert verdict["level"] == "patient"
        assert (verdict["prevalence"] is not None) is decided


@pytest.mark.parametrize(
    "asked",
    [
        ["--decide-by", "sensitivity=0.95"],
        ["--decide-by", "sensitivity=0.95", "--insist"],
        ["--decide-by", "false_alarms=0.2", "--prevalence", "0.1"],
    ],
)
def test_another_rule_is_decided_by_without_the_model(asked, many, score, monkeypatch):
    expected, said = score(many, *asked)
    once, _ = score(many, "--prevalence", "0.3")
    monkeypatch.setattr(Inferencer, "answer", None)
    found, row = score(many, *asked, anew=True)
    assert (found, row) == (expected, said | {"status": "kept"})
    assert found["verdict"] != once["verdict"]
    assert score(many, "--prevalence", "0.3", anew=True)[0] == once


def test_what_cannot_be_decided_anew_is_to_be_scored_again(few, score, tmp_path):
    score(few)
    path = tmp_path / "out" / "head" / "scores.json"
    kept = json.loads(path.read_text())
    kept["slices"][0]["score"] += 0.5  # by which it was not decided
    path.write_text(json.dumps(kept))
    _, row = score(few, "--insist", anew=True, code=1)
    assert row["error"].endswith("give --overwrite to score it again")
    assert json.loads(path.read_text()) == kept
    assert score(few, "--insist")[1]["status"] == "scored"


def test_python_asks_the_same(few, many, tmp_path):
    path = write_cohort(tmp_path, patients("test", 1)) / "images" / "0.png"
    asked = Asked(Rule("sensitivity", 0.95))
    model = Inferencer(few)
    found = model.predict(path, asked)
    assert found.label is None
    assert "needs 59 abnormal ones" in found.verdict.no_label
    assert model.predict(path, Asked(asked.rule, insist=True)).label in (True, False)
    known = Inferencer(many).decisions
    own, rare = (
        known.verdict("patient", [0.6, 0.4], asked=Asked(prevalence=share)).probability
        for share in (None, 0.01)
    )
    assert rare < own
    with pytest.raises(ConfigError, match="share between 0 and 1"):
        Asked(prevalence=1.5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--decide-by", "sensitivity=95"), "the rate of the rule sensitivity is 95"),
        (("--decide-by", "sensitivity"), "the rate of the rule sensitivity is None"),
        (("--decide-by", "youden"), "the rule 'youden' is not known"),
        (("--decide-by", "f1="), "'f1=' is no rule; give f1, sensitivity=0.95"),
        (("--prevalence", "10"), "'10' is no number between 0 and 1; give a share, such as 0.1"),
        (("--prevalence", "10%"), "'10%' is no number"),
    ],
)
def test_what_cannot_be_asked_is_one_error(options, words, tmp_path, capfd):
    try:
        code = main(["score", str(tmp_path), "--ckpt", "x", "--out", str(tmp_path), *options])
    except SystemExit as stopped:  # by argparse
        code = stopped.code
    said = capfd.readouterr().err
    assert code == 2
    assert words in said
    assert "Traceback" not in said


def names(value):
    """All fields of a record, at any depth."""
    if isinstance(value, dict):
        return set(value).union(*map(names, value.values()))
    return set().union(*map(names, value)) if isinstance(value, list) else set()


def test_each_field_and_column_is_explained_on_the_page(few, many, score):
    known = set(re.findall(r"`(\w+)`", PAGE))
    assert set(TABLE_COLUMNS) <= known
    for found in (score(model)[0] for model in (few, many)):
        text = json.dumps(found["verdict"], allow_nan=False)
        assert names(json.loads(text)) | set(found["aggregation"]) <= known


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
@pytest.mark.daily_for(kind="onnx")
def test_an_export_decides_as_its_checkpoint(kind, tmp_path):
    file = CASE.shallow_checkpoint  # which others export, too
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", logger=False)
    model = MVFA.load_from_checkpoint(file)
    ours, theirs = (
        Inferencer(one)
        for one in (file, engine.export(model, kind, export_root=tmp_path, ckpt_path=file))
    )
    assert theirs.decisions == ours.decisions
    assert ours.decisions.references
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = [model.answer(images) for model in (ours, theirs)]
    one, other = (
        model.decide(said.scores, said.areas, is_volume=False)
        for model, said in zip((ours, theirs), found, strict=True)
    )
    assert other.score == pytest.approx(one.score, abs=1e-4)
    assert other._replace(score=one.score, no_unlike=one.no_unlike) == one
    assert "score with the checkpoint" in other.no_unlike


@pytest.fixture(scope="module")
def of_volumes(tmp_path_factory):
    """A volume, and a model that was validated on such."""
    home = tmp_path_factory.mktemp("volumes")
    for number in range(10):
        voxels, mask = volume(number, (1, 3) if number % 2 else ())
        save_nifti(home / "in" / f"P{number}" / "ct.nii.gz", voxels)
        save_nifti(home / "in" / f"P{number}" / "seg.nii.gz", mask)
    source = VolumeSource("{patient}/ct.nii.gz", "{patient}/seg.nii.gz")
    data = Volumes(
        home / "in", [source], k_shot=1, val_ratio=0.6, intensity=[0, 1000], train_batch_size=4
    )
    case = next(case for case in CASES if case.name == "MVFA")
    return home / "in" / "P0" / "ct.nii.gz", fit(case.small(), data, home, epochs=1).file


def test_a_volume_that_is_cut_otherwise_is_not_compared(of_volumes, tmp_path):
    """Another spacing or range makes other slices, of which validation knows nothing."""
    scan, checkpoint = of_volumes
    for number, (more, cut) in enumerate(
        [([], ""), (["--spacing", "2", "2", "4"], "spacing"), (["--slices", "1", "4"], "slices")]
    ):
        out = tmp_path / str(number)
        for insist in ([], ["--insist"]):  # which is decided anew, from the scores of the first
            command = ["score", str(scan), "--ckpt", str(checkpoint), "--out", str(out)]
            assert main([*command, *more, *insist]) == 0
            verdict = json.loads(next(out.glob("*/scores.json")).read_text())["verdict"]
            assert (verdict["label"] is None) is bool(cut and not insist)
            assert verdict["threshold"] is None or verdict["threshold"]["holds"] is not bool(cut)
            said = verdict["no_verdict"] or (verdict["threshold"] or {}).get("words", "")
            assert ("cut otherwise than in training" in said) is bool(cut)
            assert cut in said
