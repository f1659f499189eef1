"""Scoring opens a file as often as it must: to list, to tell what it is by its hash, to read."""

import json
import os
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest
from anomalib.data import InferenceBatch
from scans import UP, numbers, write_stack, write_volume

from anomalib_medclip.cli import main
from anomalib_medclip.export.description import describe
from anomalib_medclip.files import sha256
from anomalib_medclip.models.mvfa import MVFA
from anomalib_medclip.score import model_files
from anomalib_medclip.score.inferencer import Inferencer

_COUNTERS = []


def _count(event, arguments):
    if event == "open" and _COUNTERS and isinstance(arguments[0], str | os.PathLike):
        _COUNTERS[-1][Path(arguments[0]).name] += 1


@contextmanager
def opened():
    """How often files of each name are opened, by whomever in this process."""
    if not _count.__dict__:  # a hook cannot be taken away, so there is one
        sys.addaudithook(_count)
        _count.added = True
    _COUNTERS.append(Counter())
    try:
        yield _COUNTERS[-1]
    finally:
        _COUNTERS.pop()


def scored(path, model, tmp_path):
    command = ["score", str(path), "--ckpt", str(model), "--out", str(tmp_path / "out")]
    with opened() as found:
        assert main([*command, "--intensity", "[0, 1000]", "--worst", "1"]) == 0
    return found


def test_a_nifti_file_is_hashed_and_read(finished, tmp_path):
    path = write_volume(tmp_path / "scan.nii.gz")
    assert scored(path, finished, tmp_path)[path.name] == 2


def test_a_slice_of_a_series_is_listed_hashed_and_read(finished, tmp_path):
    paths = write_stack(tmp_path / "ct", numbers(), UP)
    found = scored(tmp_path / "ct", finished, tmp_path)
    assert (tmp_path / "out" / "ct" / "segmentation.dcm").is_file()
    assert {found[path.name] for path in paths} == {3}


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
    path.write_bytes(b"stands for a graph, whose export other tests pay for")
    said = describe(MVFA.load_from_checkpoint(finished), None, InferenceBatch(), "onnx")
    paper = asdict(said) | {"files": {path.name: sha256(path)}}
    path.with_suffix(".json").write_text(json.dumps(paper))
    monkeypatch.setattr(model_files, "open_onnx", lambda *_: run)
    return path


def test_a_certificate_is_read_once_and_what_it_certifies_hashed_once(exported, tmp_path):
    path = write_volume(tmp_path / "scan.nii.gz")
    found = scored(path, exported, tmp_path)
    assert (found["model.json"], found["model.onnx"]) == (1, 1)
    made_with = json.loads((tmp_path / "out" / "scan" / "scores.json").read_text())["provenance"]
    assert made_with["model"]["sha256"] == {"model.onnx": sha256(exported)}
