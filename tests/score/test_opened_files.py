"""Scoring opens a file as often as it must: to see what it is, to list, to hash, to read."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from anomalib.data import InferenceBatch
from opened_files import opened
from scans import UP, numbers, write_stack, write_volume

from anomalib_medclip.cli import main
from anomalib_medclip.decisions.decisions import Decisions
from anomalib_medclip.errors import CheckpointError, MedclipError, WeightsError
from anomalib_medclip.export.description import describe
from anomalib_medclip.files import sha256
from anomalib_medclip.models.mvfa import MVFA
from anomalib_medclip.score import model_files
from anomalib_medclip.score.inferencer import Inferencer, decisions_of
from anomalib_medclip.training.checkpoints import read_checkpoint

PLAIN = Decisions().as_plain()


def scored(path, model, tmp_path):
    command = ["score", str(path), "--ckpt", str(model), "--out", str(tmp_path / "out")]
    with opened() as found:
        assert main([*command, "--intensity", "[0, 1000]", "--worst", "1"]) == 0
    return found


def test_a_nifti_file_is_looked_at_hashed_and_read(finished, tmp_path):
    path = write_volume(tmp_path / "scan.nii.gz")
    assert scored(path, finished, tmp_path)[path.name] == 3


def test_a_slice_of_a_series_is_listed_hashed_and_read(finished, tmp_path):
    paths = write_stack(tmp_path / "ct", numbers(), UP)
    found = scored(tmp_path / "ct", finished, tmp_path)
    assert (tmp_path / "out" / "ct" / "segmentation.dcm").is_file()
    assert {found[path.name] for path in paths} == {4}  # its header is read, then its pixels


def test_a_checkpoint_is_looked_into_and_loaded_and_then_hashed(finished, tmp_path):
    with opened() as found:
        Inferencer(finished)
    assert found[Path(finished).name] == 2
    path = write_volume(tmp_path / "scan.nii.gz")
    assert scored(path, finished, tmp_path)[Path(finished).name] == 3


@pytest.fixture
def exported(finished, tmp_path, monkeypatch):
    """A certified model whose graph answers as the checkpoint."""
    run = Inferencer(finished).run
    path = tmp_path / "model.onnx"
    path.write_bytes(b"stands for a graph, whose export other tests pay for\n" * 20)
    said = describe(MVFA.load_from_checkpoint(finished), None, InferenceBatch(), "onnx")
    paper = asdict(said) | {"files": {path.name: sha256(path)}}
    path.with_suffix(".json").write_text(json.dumps(paper))
    monkeypatch.setattr(model_files, "open_onnx", lambda *_: run)
    return path


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"input_size": [1.5, 1.5]}, "input_size is 1.5, and must be a whole number"),
        ({"input_size": [2**31] * 2}, "is of 2,147,483,648 x 2,147,483,648 pixels"),
        ({"slicing": {"plane": "oblique"}}, "plane 'oblique' is none of axial, coronal, sagittal"),
        ({"slicing": {"angle": 3}}, "cannot be opened: .*'angle'"),
        ({"decisions": {"rule": {}}}, "KeyError: 'references'.*; update anomalib-medclip, or"),
        ({"decisions": {**PLAIN, "later": 1}}, "'later'.*; update anomalib-medclip, or train"),
        ({"decisions": {**PLAIN, "rule": {"aim": "youden"}}}, "the rule 'youden' is not known"),
        ({"decisions": {**PLAIN, "aggregation": None}}, "TypeError.*; update anomalib-medclip"),
    ],
)
def test_a_certificate_that_nothing_can_be_made_of_is_refused_by_name(exported, said, words):
    paper = json.loads(exported.with_suffix(".json").read_text())
    exported.with_suffix(".json").write_text(json.dumps(paper | said))
    with pytest.raises(MedclipError, match=rf"model\.onnx .*{words}"):
        Inferencer(exported)


def test_a_checkpoint_with_decisions_of_another_version_is_refused_by_name(finished, tmp_path):
    state = read_checkpoint(finished)
    state["anomalib_medclip"]["decisions"]["later"] = 1
    torch.save(state, tmp_path / "newer.ckpt")
    with pytest.raises(CheckpointError, match=r"newer\.ckpt .*'later'.*; update anomalib-medclip"):
        Inferencer(tmp_path / "newer.ckpt")


@pytest.mark.parametrize(("said", "value"), [(0.0, 0.0), (0.4, 0.4), (None, 0.5)])
def test_a_threshold_of_a_former_version_is_taken_as_it_is(said, value):
    notes = {"image_threshold": said, "decisions": None}
    found = decisions_of(Path("model.onnx"), notes, has_threshold=True)
    assert found.image_threshold == value


def test_an_export_of_another_size_than_its_certificate_says_is_named(exported, monkeypatch):
    def refuse(images):
        raise RuntimeError("another size")  # noqa: EM101

    monkeypatch.setattr(model_files, "open_onnx", lambda *_: refuse)
    inferencer = Inferencer(exported)
    words = r"model\.onnx cannot be run on images \(1, 3, 32, 32\): another size; export it again"
    with pytest.raises(CheckpointError, match=words):
        inferencer.score(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("tower", "numbers", "words"),
    [
        ("vision_cfg", {"layers": 10**6}, "layers is 1000000, and it must be a .* to 512"),
        (
            "vision_cfg",
            {"width": 2**17},
            "would have .* parameters, and at most 4,294,967,296",
        ),
        ("text_cfg", {"vocab_size": 2**40}, "would have .* parameters"),
    ],
)
def test_a_checkpoint_asks_for_no_more_memory_than_a_large_clip(
    finished, tmp_path, tower, numbers, words
):
    state = torch.load(finished, weights_only=True)
    state["hyper_parameters"]["backbone"][tower] |= numbers
    torch.save(state, path := tmp_path / "large.ckpt")
    with pytest.raises(WeightsError, match=rf"large\.ckpt cannot be opened: custom CLIP .*{words}"):
        Inferencer(path)


def test_a_certificate_is_read_once_and_what_it_certifies_hashed_once(exported, tmp_path):
    path = write_volume(tmp_path / "scan.nii.gz")
    found = scored(path, exported, tmp_path)
    assert (found["model.json"], found["model.onnx"]) == (1, 1)
    made_with = json.loads((tmp_path / "out" / "scan" / "scores.json").read_text())["provenance"]
    assert made_with["model"]["sha256"] == {"model.onnx": sha256(exported)}


@pytest.mark.parametrize("ending", [".ckpt", ".pt", ".onnx"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<html>404</html>", "cannot be opened|damaged|json is missing"),
        (b"", "cannot be opened|damaged|json is missing"),
        (b"PK\3\4" + bytes(100), "cannot be opened|damaged|json is missing"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "pointer .*; fetch that by 'git lfs pull'",
        ),
    ],
)
def test_a_file_that_is_no_model_is_refused_without_the_words_of_torch(
    tmp_path, ending, content, words
):
    path = tmp_path / f"model{ending}"
    path.write_bytes(content)
    with pytest.raises(MedclipError, match=words) as raised:
        model_files.open_model(path, "cpu", trust=True)
    foreign = ("weights_only", "pickle", "load key", "miniz", "Ran out of input", "\n")
    assert not [word for word in foreign if word in str(raised.value)]
