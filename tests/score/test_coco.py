"""``coco.json``: what other tools read there is what the maps say, pixel by pixel."""

import contextlib
import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scans import numbers, write_volume

from anomalib_medclip import Inferencer
from anomalib_medclip.cli import main
from anomalib_medclip.score.coco import findings, write_coco
from anomalib_medclip.score.record import describe_model


def imported(path):
    """A file, as pycocotools reads it."""
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def masks_of(coco, annotations, size):
    found = [coco.annToMask(one).astype(bool) for one in annotations]
    return np.any(found, axis=0) if found else np.zeros(size, dtype=bool)


heats = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.booleans())


@given(above=heats)
def test_masks_of_findings_are_those_of_the_map_holes_and_corners_included(above):
    heat = np.where(above, 0.75, 0.25).astype(np.float32)
    height, width = heat.shape
    found = [
        {**one, "id": i, "image_id": 1, "category_id": 1, "iscrowd": 0}
        for i, one in enumerate(findings(heat, 0.5), start=1)
    ]
    coco = COCO()
    coco.dataset = {
        "images": [{"id": 1, "height": height, "width": width}],
        "annotations": found, "categories": [{"id": 1}],
    }  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    np.testing.assert_array_equal(masks_of(coco, found, heat.shape), above)
    for one in found:
        mask = coco.annToMask(one).astype(bool)
        assert mask.sum() == one["area"], "no two findings share a pixel"
        rows, columns = np.nonzero(mask)
        left, top, across, down = one["bbox"]
        assert (columns.min(), rows.min()) == (left, top)
        assert (columns.max() + 1 - left, rows.max() + 1 - top) == (across, down)


def test_a_finding_scores_as_its_worst_pixel():
    heat = np.zeros((5, 9), dtype=np.float32)
    heat[1, 1:3], heat[2, 3], heat[4, 8] = 0.625, 0.875, 0.75
    assert [(one["score"], one["area"]) for one in findings(heat, 0.5)] == [(0.875, 3), (0.75, 1)]


@pytest.fixture(scope="module")
def scored(finished, lesions, tmp_path_factory):
    """Pictures with and without findings and a volume, scored by two shares."""
    home = tmp_path_factory.mktemp("scored")
    for index in (0, 1, 2, 3):
        word = ("normal", "abnormal")[index % 2]
        picture = Image.open(lesions / "images" / word / f"{index}.png")
        (home / "in" / word).mkdir(parents=True, exist_ok=True)
        picture.save(home / "in" / word / f"{index}.png")
    Image.new("L", (31, 17), 90).save(home / "in" / "grey.png")
    write_volume(home / "in" / "head.nii.gz", numbers())
    words = ["score", str(home / "in"), "--ckpt", str(finished), "--out", str(home / "out")]
    for share in ("0/2", "1/2"):
        assert main([*words, "--shard", share, "--coco", "--intensity", "[0, 1000]"]) == 0
    return home / "out"


def test_every_picture_is_there_with_the_masks_of_its_map(scored):
    coco = imported(scored / "coco.json")
    images = coco.loadImgs(coco.getImgIds())
    names = ["abnormal/1.png", "abnormal/3.png", "grey.png", "normal/0.png", "normal/2.png"]
    assert sorted(one["file_name"] for one in images) == names
    for one in images:
        [folder] = [
            path.parent for path in scored.glob("*/scores.json")
            if json.loads(path.read_text())["input"] == one["file_name"]
        ]  # fmt: skip
        heat = np.asarray(Image.open(folder / "map.tiff"))
        assert (one["height"], one["width"]) == heat.shape
        annotations = coco.loadAnns(coco.getAnnIds(one["id"]))
        np.testing.assert_array_equal(masks_of(coco, annotations, heat.shape), heat > 0.5)
        said = json.loads((folder / "scores.json").read_text())
        assert (one["score"], one["label"]) == (said["score"], said["label"])


def test_an_image_without_a_finding_is_there_too(scored, finished):
    heat = scored / "grey" / "map.tiff"
    before = heat.read_bytes()
    Image.fromarray(np.full((17, 31), 0.5, dtype=np.float32)).save(heat)
    write_coco(scored, describe_model(Path(finished), Inferencer(finished)), 0.5)
    coco = imported(scored / "coco.json")
    heat.write_bytes(before)
    [grey] = [one for one in coco.imgs.values() if one["file_name"] == "grey.png"]
    assert (grey["height"], grey["width"]) == (17, 31)
    assert coco.getAnnIds(grey["id"]) == []
    assert len(coco.anns) > 0


def test_a_model_that_cannot_outline_is_refused(scored, finished, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("anomalib_medclip.score.model_files.has_pixel_threshold", lambda _: False)
    words = ["--ckpt", str(finished), "--out", str(tmp_path / "out"), "--coco"]
    assert main(["score", str(scored.parent / "in" / "grey.png"), *words]) == 2
    assert "leave --coco out" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_its_annotations_are_results_that_can_be_evaluated(scored):
    coco = imported(scored / "coco.json")
    with contextlib.redirect_stdout(io.StringIO()):
        results = coco.loadRes(json.loads((scored / "coco.json").read_text())["annotations"])
        evaluations = [COCOeval(coco, results, kind) for kind in ("segm", "bbox")]
        for one in evaluations:
            one.params.maxDets = [1, 100, 10_000]
            one.evaluate()
            one.accumulate()
    for one in evaluations:
        least = one.eval["precision"][:, :, 0, 0, 2].min()
        assert least == pytest.approx(1), one.params.iouType


def test_what_is_not_in_it_is_said(scored, finished, caplog):
    words = ["--ckpt", str(finished), "--out", str(scored), "--intensity", "[0, 1000]", "--coco"]
    with caplog.at_level(logging.WARNING, "anomalib_medclip"):
        assert main(["score", str(scored.parent / "in"), *words]) == 0
    assert "coco.json has no volumes, of which there are 1" in caplog.text
    strange = scored / "grey" / "scores.json"
    said = json.loads(strange.read_text())
    said["provenance"]["model"]["sha256"] = {"model.ckpt": "0" * 64}
    before = strange.read_text()
    strange.write_text(json.dumps(said))
    with caplog.at_level(logging.WARNING, "anomalib_medclip"):
        assert main(["score", str(scored.parent / "in" / "normal"), *words]) == 0
    strange.write_text(before)
    assert "coco.json has no results of other models, of which there are 1" in caplog.text
    names = [one["file_name"] for one in json.loads((scored / "coco.json").read_text())["images"]]
    assert "grey.png" not in names
