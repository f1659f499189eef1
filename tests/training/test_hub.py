"""A shared folder is the same model, in a fresh process too, and tells nothing of patients."""

import json
import logging
import shutil
from pathlib import Path

import fresh_process
import pytest
import torch
from anomalib.engine import Engine
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from tiny import CASES, RIVALS, SHALLOW, case_of, lesion_data, write_lesions

from anomalib_medclip import Inferencer
from anomalib_medclip.cli import main
from anomalib_medclip.clip.backbone import CLIP_PREFIXES
from anomalib_medclip.errors import (
    CheckpointError,
    ConfigError,
    NotReadyError,
    ResultsError,
    UnfinishedError,
    WeightsError,
)
from anomalib_medclip.models.mvfa import MVFA


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("jane-doe")
    write_lesions(home / "scans")
    return home


@pytest.fixture(scope="module")
def run(home):
    """The folder of a run, with its record."""
    engine = Engine(
        default_root_dir=home, accelerator="cpu", max_epochs=1, logger=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    engine.train(MVFA(**SHALLOW, visualizer=False), datamodule=lesion_data(home / "scans"))
    return Path(engine.trainer.default_root_dir)


@pytest.fixture
def model(run):
    return MVFA.load_from_checkpoint(run / "weights" / "lightning" / "model.ckpt")


@pytest.fixture(scope="module")
def shared(run, home):
    model = MVFA.load_from_checkpoint(run / "weights" / "lightning" / "model.ckpt")
    assert model.save_pretrained(home / "shared", run=run / "run.json") is None
    return home / "shared"


def changed(shared, folder, **said):
    """A copy whose ``config.json`` says something else of the options."""
    shutil.copytree(shared, folder)
    config = json.loads((folder / "config.json").read_text())
    config["anomalib_medclip"]["hyper_parameters"] |= said
    (folder / "config.json").write_text(json.dumps(config))
    return folder


ANSWER = """
import sys, torch
from anomalib_medclip.models.mvfa import MVFA
model = MVFA.from_pretrained(sys.argv[1]).eval()
found = model(torch.load(sys.argv[2]))
torch.save({k: v for k, v in found._asdict().items() if v is not None}, sys.argv[3])
"""


def test_a_fresh_process_says_the_same_to_the_bit(model, shared, tmp_path):
    images = torch.rand(3, 3, 40, 48, generator=torch.Generator().manual_seed(3))
    torch.save(images, tmp_path / "images.pt")
    words = (shared, tmp_path / "images.pt", tmp_path / "found.pt")
    done = fresh_process.run("-c", ANSWER, *words)
    assert done.returncode == 0, done.stderr
    found, expected = torch.load(tmp_path / "found.pt"), model.eval()(images)._asdict()
    for name, value in found.items():
        assert torch.equal(value, expected[name]), name
    assert found.keys() == {k for k, v in expected.items() if v is not None}
    assert found["anomaly_map"].std() > 0


@pytest.mark.parametrize("case", [*CASES, *map(case_of, RIVALS)], ids=lambda case: case.name)
def test_every_method_comes_back_as_it_was(case, tmp_path):
    checkpoint = case.shallow_checkpoint
    before = case.method.load_from_checkpoint(checkpoint)
    before.save_pretrained(tmp_path / "shared")
    after = case.method.from_pretrained(tmp_path / "shared")
    images = torch.rand(2, 3, case.side, case.side, generator=torch.Generator().manual_seed(1))
    pairs = zip(before.eval()(images), after.eval()(images), strict=True)
    assert all(a is b is None or torch.equal(a, b) for a, b in pairs)
    old, new = before.state_dict(), after.state_dict()
    assert all(torch.equal(old[name], new[name]) for name in old)
    assert (after.decisions.as_plain(), after.training_facts) == (
        before.decisions.as_plain(), before.training_facts,
    )  # fmt: skip


def test_scores_and_verdicts_are_those_of_the_checkpoint(run, shared, home, tmp_path):
    picture = home / "scans" / "images" / "abnormal" / "1.png"
    checkpoint = run / "weights" / "lightning" / "model.ckpt"
    one, other = (
        Inferencer(path).predict(picture) for path in (checkpoint, shared / "model.safetensors")
    )
    assert (one.score, one.verdict) == (other.score, other.verdict)
    assert torch.equal(one.full_map, other.full_map)
    words = ["--ckpt", str(shared / "model.safetensors"), "--out", str(tmp_path / "maps")]
    assert main(["score", str(picture), *words]) == 0
    made_with = json.loads((tmp_path / "maps" / "1" / "scores.json").read_text())["provenance"]
    assert made_with["model"]["sha256"].keys() == {"model.safetensors", "config.json"}


def test_no_clip_no_picture_and_no_name_is_in_it(shared, run):
    assert sorted(p.name for p in shared.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    tensors = load_file(shared / "model.safetensors")
    assert not [name for name in tensors if name.startswith(CLIP_PREFIXES)]
    assert not [name for name, value in tensors.items() if value.dtype == torch.uint8]
    support = json.loads((run / "run.json").read_text())["data"]["support_images"]
    names = {"jane", str(run)} | {one["image"] for one in support}
    text = b"".join(path.read_bytes() for path in shared.iterdir()).decode(errors="replace")
    assert not [name for name in names if name in text]
    assert '"p1"' not in text


def test_files_of_weights_are_named_without_their_folders(model, tmp_path):
    model.hparams["pretrained"] = "/home/jane-doe/weights/clip.pt"
    model.backbone = model.backbone
    model.save_pretrained(tmp_path / "shared")
    text = "".join(path.read_text() for path in tmp_path.glob("shared/[cR]*"))
    assert '"pretrained": "clip.pt"' in text
    assert "jane-doe" not in text
    with pytest.raises(WeightsError, match=r"clip.pt does not exist; give a local file"):
        MVFA.from_pretrained(tmp_path / "shared")
    assert MVFA.from_pretrained(tmp_path / "shared", pretrained=None).hparams["pretrained"] is None


def test_the_card_says_what_the_records_say(shared, run):
    record = json.loads((run / "run.json").read_text())
    card = ModelCard.load(shared / "README.md")
    assert card.data.library_name == "anomalib-medclip"
    assert "few-shot" in card.data.tags
    known = {k: v for k, v in record["figures"].items() if v["value"] is not None}
    results = {one.metric_type: one.metric_value for one in card.data.eval_results}
    assert results == {k: round(v["value"], 4) for k, v in known.items()}
    assert all(one.dataset_name == record["data"]["name"] for one in card.data.eval_results)
    for name, one in record["figures"].items():
        shown = "-" if one["value"] is None else f"{one['value']:.3f}"
        interval = one["words"].partition(":")[0] if one["low"] is None else f"{one['low']:.3f} to"
        assert f"| {name} | {shown} | {interval}" in card.text
    for words in (
        "Research use only", "MVFA.from_pretrained", "| normal support | 2 images of 2 known",
        "| abnormal support | 2 images of 2 known", "few-shot, 1 epoch", "scans",
        "above 0.5, which is from validation", record["method"]["weights_sha256"], "custom CLIP",
        record["threshold"]["image"]["words"],
    ):  # fmt: skip
        assert words in card.text, words


def test_what_a_user_adds_is_in_the_card(model, tmp_path):
    said = {"license": "cc-by-nc-4.0", "data": "Drawn heads of nobody."}
    model.save_pretrained(tmp_path / "shared", model_card_kwargs=said)
    card = ModelCard.load(tmp_path / "shared" / "README.md")
    assert card.data.license == "cc-by-nc-4.0"
    assert "Drawn heads of nobody." in card.text
    assert "no record of a test was given" in card.text


def test_figures_of_another_model_are_refused(model, run, tmp_path):
    record = json.loads((run / "run.json").read_text())
    record["method"]["weights_sha256"] = "0" * 64
    (tmp_path / "run.json").write_text(json.dumps(record))
    for path in (tmp_path / "run.json", tmp_path / "none.json"):
        with pytest.raises(CheckpointError, match=path.name):
            model.save_pretrained(tmp_path / "shared", run=path)
    assert not (tmp_path / "shared").exists()


def test_what_is_there_is_kept_and_what_is_unfinished_is_not_shared(model, tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "mine.txt").write_text("mine")
    with pytest.raises(ResultsError, match="holds files already"):
        model.save_pretrained(tmp_path / "shared")
    with pytest.raises(ConfigError, match="leave config out"):
        model.save_pretrained(tmp_path / "new", config={"a": 1})
    model.schedule.is_finished = False
    with pytest.raises(UnfinishedError):
        model.save_pretrained(tmp_path / "new")
    assert [p.name for p in tmp_path.iterdir()] == ["shared"], "nothing is left aside"


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({"backbone": "hf-hub:someone/clip"}, WeightsError),
        ({"prompts": "theirs.yaml"}, CheckpointError),
        ({"_instantiator": "os.system"}, CheckpointError),
    ],
)
def test_a_folder_from_anybody_has_nothing_opened_fetched_or_called(shared, tmp_path, said, error):
    folder = changed(shared, tmp_path / "theirs", **said)
    with pytest.raises(error):
        MVFA.from_pretrained(folder)
    with pytest.raises(error):
        Inferencer(folder / "model.safetensors")


def test_damaged_and_missing_folders_are_named(shared, tmp_path):
    with pytest.raises(CheckpointError, match="is no folder, and no name on the hub"):
        MVFA.from_pretrained(tmp_path / "none")
    for name, content in (("config.json", b"{"), ("model.safetensors", b"\0" * 40)):
        folder = shutil.copytree(shared, tmp_path / name)
        (folder / name).write_bytes(content)
        with pytest.raises(CheckpointError, match="is no model that"):
            Inferencer(folder / "model.safetensors")
        (folder / name).unlink()
        with pytest.raises(CheckpointError, match=f"{name} is missing"):
            Inferencer(folder / "model.safetensors")
    folder = shutil.copytree(shared, tmp_path / "fewer")
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("model.fusion.scales")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model.fusion.scales"):
        MVFA.from_pretrained(folder)


def test_a_model_of_a_folder_is_not_certified_for_want_of_pictures(shared, tmp_path, caplog):
    model = MVFA.from_pretrained(shared)
    with caplog.at_level(logging.ERROR), pytest.raises(NotReadyError, match="export a checkpoint"):
        model.to_onnx(tmp_path)
