"""What ``run.json`` says of a training and of a test of its checkpoint."""

import json
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from anomalib import LearningType
from anomalib.engine import Engine
from comparing import SMALL
from tiny import lesion_data, write_lesions

from anomalib_medclip.components.processors import RankPreservingPostProcessor
from anomalib_medclip.decisions.decisions import Decisions
from anomalib_medclip.decisions.thresholds import Rule
from anomalib_medclip.evaluation.grounds import Grounds
from anomalib_medclip.evaluation.levels import UnitScores
from anomalib_medclip.models.mvfa import MVFA
from anomalib_medclip.training.datamodule_view import DatamoduleView
from anomalib_medclip.training.run_folder import new_run_folder
from anomalib_medclip.training.run_record import run_record, training_facts

TRAINER = SimpleNamespace(default_root_dir="/runs/v0", checkpoint_callback=None, ckpt_path=None)


def run(doing, home, **options):
    engine = Engine(
        default_root_dir=home, accelerator="cpu", max_epochs=2, logger=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    model = MVFA(**SMALL)
    model.visualizer = None
    getattr(engine, doing)(model, datamodule=lesion_data(home / "scans", k_shot=2), **options)
    folder = Path(engine.trainer.default_root_dir)
    said = json.loads((folder / "run.json").read_text(), parse_constant=pytest.fail)
    return said, folder


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("jane-home")
    write_lesions(home / "scans")
    return home


@pytest.fixture(scope="module")
def trained(home):
    return run("train", home)


def test_of_a_training_it_says_what_was_learnt_from_and_found(trained):
    said, folder = trained
    assert (said["notice"], said["command"]) == ("research use only", "train")
    assert said["method"]["name"] == "MVFA"
    assert said["method"]["options"]["image_size"] == SMALL["image_size"]
    training = said["training"]
    assert (training["setting"], training["epochs"]) == ("few-shot", 2)
    assert training["sets"] == ["scans"]
    assert 0 < training["seconds"] < 600
    support = said["data"]["support_images"]
    assert sorted(one["label"] for one in support) == [0, 0, 1, 1]
    for one in support:
        assert (folder.parents[2] / "scans" / one["image"]).exists()
        assert one["patient"]
    assert said["threshold"]["from"]
    image, pixel = said["threshold"]["image"], said["threshold"]["pixel"]
    assert image["value"] == pixel["value"] == 0.5
    assert abs(image["raw"] - 0.5) > 0
    assert image["words"].startswith("it finds")
    of = said["decisions"]["patient"]
    assert of["rule"] == "the largest F1"
    assert of["p_words"].startswith("no p-value is")
    assert of["probability_words"].startswith("no probability is known; too few patients")
    metrics = json.loads((folder / "test_metrics.json").read_text())
    for name, one in said["figures"].items():
        assert metrics[name] == one["value"], name
    assert {"image_F1Max", "image_SpecificityAtSensitivity"}.isdisjoint(said["figures"])
    for name in ("metrics", "scores", "checkpoint"):
        assert (folder / said["files"][name]).exists()
    assert said["files"]["pictures"] is None  # none were drawn
    assert "jane-home" not in json.dumps(said)


def test_of_a_test_it_says_how_the_checkpoint_was_trained(trained, home):
    said, folder = trained
    checkpoint = folder / said["files"]["checkpoint"]
    elsewhere = checkpoint.rename(home / "mine.ckpt")
    again, _ = run("test", home, ckpt_path=elsewhere)
    elsewhere.rename(checkpoint)
    assert again["command"] == "test"
    assert again["training"] == {k: v for k, v in said["training"].items() if k != "seconds"}
    assert again["files"]["checkpoint"] == "mine.ckpt"  # it does not say where that lies
    for name, one in said["figures"].items():
        if one["value"] is not None:
            assert again["figures"][name]["value"] == pytest.approx(one["value"], abs=1e-6), name


def test_zero_shot_data_are_said_to_be_and_which_sets_were_learnt_from():
    table = pd.DataFrame({"set_name": ["Liver", "Chest", "Liver"]})
    data = SimpleNamespace(zero_shot=True, train_data=SimpleNamespace(samples=table), name="BMAD")
    assert training_facts(DatamoduleView(data), 3) == {
        "setting": "zero-shot", "sets": ["Chest", "Liver"], "epochs": 3,
    }  # fmt: skip
    theirs = SimpleNamespace(name="MVTecAD", train_data=None)
    assert training_facts(DatamoduleView(theirs), 3)["sets"] == ["MVTecAD"]


def test_options_that_name_files_are_said_by_the_name_alone():
    module = SimpleNamespace(
        hparams={"pretrained": "/home/jane/clip.pt", "levels": (1, 2), "k": "v", "of": object()},
        threshold_from="",
        training_facts={},
    )
    said = run_record(TRAINER, module, None, {"my_IoU": 0.5}, 1.0)
    assert said["method"]["options"] == {"pretrained": "clip.pt", "levels": [1, 2], "k": "v"}
    assert (said["figures"], said["other_figures"]) == ({}, {"my_IoU": 0.5})
    assert (said["command"], said["decisions"]) == ("test", {})


def test_a_threshold_by_another_rule_is_the_one_that_is_said():
    units = UnitScores(
        patient=("a",), label=(1,), score=(0.9,), threshold=0.75, words="as found",
        grounds=Grounds(rule="at most 5 % false alarms", normal=30, smallest_p=1 / 31),
    )  # fmt: skip
    outcome = SimpleNamespace(
        found={}, honest={}, levels={"image": units}, froc={}, aggregated="",
        images=SimpleNamespace(unknown=0),
    )  # fmt: skip
    post = RankPreservingPostProcessor()
    post._image_threshold.fill_(3.5)
    for rule, raw in ((Rule(), 3.5), (Rule("false_alarms", 0.05), None)):
        module = SimpleNamespace(
            threshold_from="", post_processor=post, decisions=Decisions(rule=rule)
        )
        found = run_record(TRAINER, module, outcome, {}, 1.0)
        assert found["threshold"]["image"] == {"value": 0.75, "raw": raw, "words": "as found"}
    assert found["decisions"]["image"]["rule"] == "at most 5 % false alarms"
    assert "0.032" in found["decisions"]["image"]["p_words"]


def test_a_model_that_is_trained_without_a_fit_is_trained_where_its_folder_is_new(tmp_path):
    module = SimpleNamespace(threshold_from="", learning_type=LearningType.FEW_SHOT)
    latest, new = tmp_path / "latest", new_run_folder(tmp_path)
    trainer = {**vars(TRAINER), "ckpt_path": None}
    for folder, command in ((latest, "test"), (new, "train")):
        one = SimpleNamespace(**{**trainer, "default_root_dir": folder})
        assert run_record(one, module, None, {}, 1.0)["command"] == command
    module.learning_type = LearningType.ONE_CLASS  # whose training has its facts
    assert run_record(one, module, None, {}, 1.0)["command"] == "test"
    module.learning_type = LearningType.FEW_SHOT
    (new / "run.json").touch()
    assert run_record(one, module, None, {}, 1.0)["command"] == "test"
