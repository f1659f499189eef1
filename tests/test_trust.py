"""Files from elsewhere run nothing: weights, checkpoints, adapters, exports; and nobody waits."""

import json
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType

import fresh_process
import pytest
import torch
from anomalib.engine import Engine
from hostile import Command, write_restoring
from safetensors.torch import save_file
from tiny import OPTIONS, lesion_data, small

from anomalib_medclip import cli
from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.clip.weights import WEIGHTS_OPTIONS, WEIGHTS_VARIABLE, read_weights
from anomalib_medclip.errors import (
    BackboneMismatchError,
    CheckpointError,
    MedclipError,
    TrustError,
    WeightsError,
)
from anomalib_medclip.models.mvfa import MVFA
from anomalib_medclip.score.inferencer import Inferencer
from anomalib_medclip.training.checkpoints import read_checkpoint


def changed(checkpoint, path, **options):
    """A checkpoint with other options."""
    state = torch.load(checkpoint, weights_only=True)
    state["hyper_parameters"] |= options
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def image(lesions):
    return lesions / "images" / "abnormal" / "1.png"


# --- scripts

TRIED = """
import json, os, sys
from anomalib_medclip import cli
from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.errors import MedclipError

backbone, scripted, image, *checkpoints = json.loads(sys.argv[1])

def attempt(load):
    try:
        load()
    except MedclipError as error:
        print(type(error).__name__, error)
    else:
        print("loaded")

attempt(Backbone(backbone, scripted, 32).load)
os.environ["ANOMALIB_MEDCLIP_WEIGHTS"] = scripted
attempt(Backbone(backbone, "openai", 32).load)
del os.environ["ANOMALIB_MEDCLIP_WEIGHTS"]
sys.stderr = sys.stdout
for number, checkpoint in enumerate(checkpoints):
    print(cli.main(["score", image, "--ckpt", checkpoint, "--out", f"out{number}"]))
"""


def test_scripted_weights_are_refused_by_their_kind_and_pipes_are_not_waited_for(
    finished, image, tmp_path
):
    written, scripted, pipe = (tmp_path / name for name in ("written", "clip.pt", "pipe.pt"))
    write_restoring(scripted, written)
    os.mkfifo(pipe)
    checkpoints = [
        changed(finished, tmp_path / "scripted.ckpt", pretrained=str(scripted)),
        changed(finished, tmp_path / "pipe.ckpt", pretrained=str(pipe)),
        changed(finished, tmp_path / "adapters.ckpt", adapters=str(pipe)),
    ]
    told = [OPTIONS["backbone"], *map(str, (scripted, image, *checkpoints))]
    done = fresh_process.run("-c", TRIED, json.dumps(told), cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    refused = "clip.pt is no weights file: a TorchScript archive that restores itself by code"
    said = [line for line in done.stdout.splitlines() if refused in line or "pipe.pt" in line]
    assert [line.split()[0] for line in said] == [
        "WeightsError",
        "WeightsError",
        "error:",
        "error:",
    ]
    assert "pipe.pt is no file; give a local file by 'pretrained' (score --pretrained" in said[3]
    assert (tmp_path / "out2" / "scores.csv").is_file(), "adapters are in the checkpoint"
    assert not written.exists()
    torch.jit.load(scripted)
    assert written.exists(), "else nothing was refused"


# --- pickles


def told_by(load):
    """What a refusal says, with all that the screen would show of it."""
    try:
        load()
    except MedclipError as error:
        return str(error), "".join(traceback.format_exception(error))
    pytest.fail("it was opened")


@pytest.fixture
def evil(tmp_path):
    """A pickle that would write a file beside itself."""
    path = tmp_path / "evil.ckpt"
    torch.save({"state_dict": {}, "deep": [Command(f"touch {tmp_path / 'written'}")]}, path)
    return path


@pytest.mark.parametrize(
    "load",
    [
        read_weights,
        lambda path: small(MVFA, adapters=str(path)),
        Inferencer,
        MVFA.load_from_checkpoint,
        read_checkpoint,
        lambda path: Engine(default_root_dir=path.parent, accelerator="cpu").predict(
            small(MVFA), data_path=path.parent, ckpt_path=path
        ),
    ],
    ids=["weights", "adapters", "Inferencer", "load_from_checkpoint", "reading", "Engine"],
)
def test_a_pickle_is_refused_without_the_advice_to_run_it(load, evil, picture):
    picture(evil.parent / "image.png")
    message, shown = told_by(lambda: load(evil))
    assert "evil.ckpt" in message
    assert "it names posix.system, and so holds more than tensors and plain values" in message
    for advice in (
        "will likely succeed",
        "weights_only=False",
        "`weights_only` argument",
        "Set to F",
    ):
        assert advice not in shown
    assert not (evil.parent / "written").exists()
    torch.load(evil, weights_only=False)
    assert (evil.parent / "written").exists()


@pytest.mark.parametrize("key", ["hyper_parameters", "hparams", "module_arguments"])
@pytest.mark.parametrize("load", [Inferencer, MVFA.load_from_checkpoint])
def test_a_checkpoint_does_not_say_what_is_imported(load, key, finished, tmp_path):
    state = torch.load(finished, weights_only=True)
    state[key] = {**state.get(key, {}), "_instantiator": "lightning.pytorch.cli.instantiate_module"}
    torch.save(state, tmp_path / "evil.ckpt")
    with pytest.raises(CheckpointError, match=r"evil.ckpt says by _instantiator what to import"):
        load(tmp_path / "evil.ckpt")


@pytest.mark.parametrize("backbone", ["local-dir:here", "hf-hub:nobody/nothing"])
def test_a_checkpoint_names_no_model_to_fetch(backbone, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "open_clip_config.json").write_text(json.dumps(OPTIONS["backbone"]))
    path = changed(finished, tmp_path / "evil.ckpt", backbone=backbone)
    with pytest.raises(WeightsError, match=f"open_clip knows no model '{backbone}'"):
        Inferencer(path)


@pytest.mark.parametrize("kind", ["folder", "list"])
def test_what_is_no_checkpoint_is_named(kind, tmp_path):
    path = tmp_path / "model.ckpt"
    path.mkdir() if kind == "folder" else torch.save([1], path)
    with pytest.raises(CheckpointError, match=r"checkpoint .*model.ckpt cannot be opened"):
        read_checkpoint(path)


# --- weights that a checkpoint names


def write_weights(path, seed):
    """Write random CLIP weights."""
    state = Backbone(OPTIONS["backbone"], None, 32, seed=seed).load().clip.state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    return path


@pytest.fixture(scope="module")
def on_weights(lesions, tmp_path_factory):
    """A checkpoint whose backbone came from a file, and that file."""
    home = tmp_path_factory.mktemp("on_weights")
    weights = write_weights(home / "clip.safetensors", seed=0)
    engine = Engine(
        default_root_dir=home, accelerator="cpu", max_epochs=1, enable_progress_bar=False
    )
    engine.fit(MVFA(**OPTIONS | {"pretrained": str(weights)}), datamodule=lesion_data(lesions))
    return Path(engine.trainer.checkpoint_callback.best_model_path), weights


@pytest.fixture
def moved(on_weights, tmp_path):
    """The checkpoint, which names a file where other weights are now, and the right ones."""
    checkpoint, weights = on_weights
    other = write_weights(tmp_path / "other.safetensors", seed=1)
    return changed(checkpoint, tmp_path / "moved.ckpt", pretrained=str(other)), weights


def test_weights_that_a_checkpoint_names_are_used_only_if_they_are_those_of_training(
    moved, on_weights, image
):
    checkpoint, weights = moved
    words = r"trained on another backbone: .*other.safetensors.*\(score --pretrained"
    with pytest.raises(BackboneMismatchError, match=words) as caught:
        Inferencer(checkpoint)
    assert WEIGHTS_OPTIONS in str(caught.value), "as where there are no weights at all"
    expected = Inferencer(on_weights[0]).predict(image)
    found = Inferencer(checkpoint, pretrained=str(weights)).predict(image)
    assert found.score == expected.score
    assert torch.equal(found.full_map, expected.full_map)


def test_score_is_told_where_the_weights_are(moved, image, tmp_path, capsys):
    checkpoint, weights = moved
    words = ["score", str(image), "--ckpt", str(checkpoint), "--out", str(tmp_path / "out")]
    assert cli.main(words) == 2
    assert "score --pretrained" in capsys.readouterr().err
    assert cli.main([*words, "--pretrained", str(weights)]) == 0


def test_the_variable_is_held_to_the_fingerprint_too(on_weights, tmp_path, monkeypatch):
    other = write_weights(tmp_path / "other.safetensors", seed=1)
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(other))
    with pytest.raises(BackboneMismatchError, match="trained on another backbone"):
        Inferencer(on_weights[0])


# --- exports


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    return MVFA.load_from_checkpoint(finished).to_torch(tmp_path_factory.mktemp("exported"))


@pytest.fixture(autouse=True)
def _nothing_is_trusted(monkeypatch):
    monkeypatch.delenv("TRUST_REMOTE_CODE", raising=False)
    monkeypatch.delenv(WEIGHTS_VARIABLE, raising=False)


def test_a_pickled_model_is_opened_only_if_it_is_trusted(exported, finished, image, monkeypatch):
    words = r"model.pt is a pickle of a whole model: opening it runs .*trust=True.*needs no trust"
    with pytest.raises(TrustError, match=words):
        Inferencer(exported)
    expected = Inferencer(finished).predict(image)
    trusting = Inferencer(exported, trust=True).predict(image)
    assert (trusting.score, trusting.label) == (expected.score, expected.label)
    assert torch.equal(trusting.full_map, expected.full_map)
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    assert Inferencer(exported).predict(image).score == expected.score


def test_score_trusts_a_pickled_model_only_if_told_to(exported, image, tmp_path, capsys):
    words = ["score", str(image), "--ckpt", str(exported), "--out", str(tmp_path / "out")]
    assert cli.main(words) == 2
    assert "score --trust" in capsys.readouterr().err
    assert cli.main([*words, "--trust"]) == 0


def test_a_pickle_named_as_an_export_runs_nothing_without_trust(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"model": Command(f"touch {tmp_path / 'written'}")}, path)
    with pytest.raises(TrustError):
        Inferencer(path)
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize("name", ["../elsewhere.bin", "pipe", "/dev/zero", "."])
def test_a_certificate_opens_nothing_but_the_files_beside_it(name, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "elsewhere.bin").touch()
    os.mkfifo(folder / "pipe")
    (folder / "model.onnx").touch()
    (folder / "model.json").write_text(json.dumps({"model": "MVFA", "files": {name: "0" * 64}}))
    with pytest.raises(CheckpointError, match=r"is not the file that .*model.json certifies"):
        Inferencer(folder / "model.onnx")


def test_weights_are_for_a_checkpoint_only(exported):
    with pytest.raises(CheckpointError, match=r"model.pt holds weights of its own; leave"):
        Inferencer(exported, pretrained="openai", trust=True)


def test_a_torch_export_whose_code_lay_elsewhere_says_what_to_export(tmp_path, monkeypatch):
    """Such as one of 0.1.0, which names the modules of then."""
    gone = ModuleType("anomalib_medclip.components.lightning_mixin")
    gone.Method = type("Method", (), {"__module__": gone.__name__, "__qualname__": "Method"})
    path = tmp_path / "model.pt"
    with monkeypatch.context() as then:
        then.setitem(sys.modules, gone.__name__, gone)
        torch.save({"model": gone.Method()}, path)
    with pytest.raises(CheckpointError, match=r"model\.pt was exported by a version .*lib export"):
        Inferencer(path, trust=True)
