"""Files of trainings that were not finished, and of those that never found a threshold."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest
import torch
from anomalib.metrics import AUROC, Evaluator
from anomalib.post_processing import PostProcessor
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from PIL import Image
from scans import UP, numbers, record, write_stack
from tiny import CASES, SHALLOW

from anomalib_medclip import Inferencer
from anomalib_medclip.cli import main
from anomalib_medclip.components.processors import RankPreservingPostProcessor
from anomalib_medclip.errors import UnfinishedError
from anomalib_medclip.pictures.heat import HeatScale
from anomalib_medclip.pictures.view import View
from anomalib_medclip.score.montage import draw_montage
from anomalib_medclip.training.checkpoints import read_checkpoint

CASE = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


class Middle(Callback):
    """Saves a checkpoint between two epochs."""

    def __init__(self, path):
        self.path = path

    def on_train_epoch_start(self, trainer, pl_module):
        del pl_module
        if trainer.current_epoch == 1:
            trainer.save_checkpoint(self.path)


def from_the_middle(case, home, **options):
    path = home / "middle.ckpt"
    case.fit(home, epochs=2, trainer={"callbacks": [Middle(path)]}, **options)
    return path


def refused_by_all(case, path, out, capsys):
    """Whether Inferencer, ``score`` and export refuse a checkpoint, and leave nothing behind."""
    with pytest.raises(UnfinishedError, match=rf"{path.name} is of a training that was not fin"):
        Inferencer(path)
    pictures = str(case.lesions / "images")
    assert main(["score", pictures, "--ckpt", str(path), "--out", str(out / "scores")]) == 2
    assert "anomalib train --ckpt_path" in capsys.readouterr().err
    with pytest.raises(UnfinishedError, match=f"{path.name} is of a training that was not finish"):
        case.engine(out).export(case.small(), "torch", export_root=out / "export", ckpt_path=path)
    assert not list(out.rglob("*.json"))
    assert not list(out.rglob("model.pt"))


@CASE
@pytest.mark.daily_for(case="MVFA")
def test_a_file_from_the_middle_is_refused_and_finished_by_its_data(case, tmp_path, capsys):
    path = from_the_middle(case, tmp_path)
    refused_by_all(case, path, tmp_path / "out", capsys)
    [found] = case.engine(tmp_path).test(case.small(), datamodule=case.data(), ckpt_path=path)
    assert 0 <= found["image_AUROC"] <= 1


@CASE
@pytest.mark.daily_for(case="MadCLIP")
def test_a_file_from_the_middle_is_refused_even_if_its_epoch_was_validated(case, tmp_path, capsys):
    path = from_the_middle(case, tmp_path, epoch_choice="validation")
    assert read_checkpoint(path)["state_dict"]["post_processor._image_threshold"].isfinite()
    refused_by_all(case, path, tmp_path / "out", capsys)


def test_files_of_former_versions_are_finished_if_they_know_a_threshold(tmp_path, photo):
    [case] = [case for case in CASES if case.name == "MVFA"]
    whole = read_checkpoint(case.trained.checkpoint)
    del whole["anomalib_medclip"]["is_finished"]
    torch.save(whole, tmp_path / "former.ckpt")
    assert Inferencer(tmp_path / "former.ckpt").predict(photo).label in (True, False)
    for name in ("_image_threshold", "_pixel_threshold"):
        whole["state_dict"][f"post_processor.{name}"] = torch.tensor(torch.nan)
    torch.save(whole, tmp_path / "without.ckpt")
    with pytest.raises(UnfinishedError):
        Inferencer(tmp_path / "without.ckpt")


def test_a_checkpoint_that_a_metric_has_chosen_is_finished_once_its_training_is(tmp_path, photo):
    [case] = [case for case in CASES if case.name == "MVFA"]
    auroc = AUROC(fields=["pred_score", "gt_label"], prefix="val_")
    best = ModelCheckpoint(tmp_path, "best", monitor="val_AUROC", mode="max")
    middle = Middle(tmp_path / "middle.ckpt")
    measured = Evaluator(val_metrics=[auroc])
    case.fit(tmp_path, epochs=2, trainer={"callbacks": [best, middle]}, evaluator=measured)
    assert Inferencer(best.best_model_path).predict(photo).label in (True, False)
    assert not read_checkpoint(middle.path)["anomalib_medclip"]["is_finished"]


@pytest.fixture(scope="module")
def undecided(request):
    """A method, and a checkpoint of it that knows no threshold."""
    [case] = [case for case in CASES if case.name == request.param]
    with case.home() as home:
        model, engine = case.shallow(), case.engine(home, max_epochs=1, limit_val_batches=0)
        engine.fit(model, datamodule=case.data(train_batch_size=16))
        assert not model.post_processor.image_threshold.isfinite()
        yield case, engine.trainer.checkpoint_callback.best_model_path


EVERY = pytest.mark.parametrize("undecided", [case.name for case in CASES], indirect=True)


class Breaks(Callback):
    """Fails in a validation, after its threshold was found."""

    def on_validation_end(self, trainer, pl_module):
        del pl_module
        if trainer.state.fn == "fit":
            message = "broken"
            raise RuntimeError(message)


def test_a_training_that_breaks_in_its_last_validation_is_not_finished(tmp_path):
    [case] = [case for case in CASES if case.name == "MVFA"]
    saved = OnExceptionCheckpoint(tmp_path, "broken")
    with pytest.raises(RuntimeError, match="broken"):
        case.fit(tmp_path, epochs=1, trainer={"callbacks": [Breaks(), saved]})
    with pytest.raises(UnfinishedError):
        Inferencer(tmp_path / "broken.ckpt")


def test_the_last_of_a_watching_callback_is_finished_and_a_lost_one_costs_nothing(
    tmp_path, photo, caplog
):
    class Loses(Callback):
        def on_train_end(self, trainer, pl_module):
            del trainer, pl_module
            next(iter(tmp_path.glob("epoch=*"))).unlink()

    [case] = [case for case in CASES if case.name == "MVFA"]
    auroc = AUROC(fields=["pred_score", "gt_label"], prefix="val_")
    options = {"monitor": "val_AUROC", "mode": "max", "save_last": True, "save_top_k": -1}
    kept = ModelCheckpoint(tmp_path, "{epoch}", **options)
    trainer = {"callbacks": [kept, Loses()]}
    case.fit(tmp_path, epochs=2, trainer=trainer, evaluator=Evaluator(val_metrics=[auroc]))
    assert "is missing: it is not marked as finished" in caplog.text
    for path in (tmp_path / "last.ckpt", *tmp_path.glob("epoch=*")):
        assert Inferencer(path).predict(photo).label in (True, False)


@EVERY
@pytest.mark.daily_for(undecided="MVFA")
def test_without_a_threshold_there_are_scores_and_no_verdict(undecided, tmp_path, photo, caplog):
    case, path = undecided
    found = Inferencer(path).predict(photo)
    assert caplog.text.count("knows no threshold") == 1
    assert found.label is None
    predicted = case.engine(tmp_path).predict(case.shallow(), data_path=photo, ckpt_path=path)
    assert predicted[0].pred_label is None
    assert float(predicted[0].pred_score) == pytest.approx(found.score)
    assert caplog.text.count("no threshold is known") == 1
    [tested] = case.engine(tmp_path).test(case.shallow(), datamodule=case.data(), ckpt_path=path)
    assert {"image_AUROC", "pixel_AUROC"} <= tested.keys()
    assert not {"image_F1Score", "pixel_F1Score"} & tested.keys()
    [scores] = tmp_path.rglob("test_scores.csv")
    assert "pred_label" not in scores.read_text()


@pytest.mark.parametrize("undecided", ["MVFA"], indirect=True)
def test_of_anomalibs_own_labels_without_a_threshold_a_word_is_said(
    undecided, tmp_path, photo, caplog
):
    case, path = undecided
    model = case.small(**SHALLOW, post_processor=PostProcessor())
    case.engine(tmp_path).predict(model, data_path=photo, ckpt_path=path)
    assert "PostProcessor labels by 0.5, which was found on no image" in caplog.text


def test_labels_without_masks_give_a_verdict_and_no_segmentation(tmp_path):
    [case] = [case for case in CASES if case.name == "MVFA"]
    data = case.data(mask_column=None, train_batch_size=16)
    trained = case.fit(tmp_path, epochs=1, data=data)
    write_stack(tmp_path / "in" / "ct", numbers(), UP)
    command = ["score", str(tmp_path / "in"), "--ckpt", str(trained.checkpoint)]
    options = "--insist", "--intensity", "[0, 1000]", "--out", str(tmp_path / "out")
    assert main([*command, *options]) == 0
    series = record(tmp_path / "out" / "ct")
    assert series["label"] in (0, 1)
    assert series["segmentation"] == "none: the model knows no threshold of pixels"


@EVERY
@pytest.mark.parametrize("kind", ["torch", "onnx", "openvino"])
@pytest.mark.daily_for(undecided="MVFA", kind="torch")
def test_an_export_without_a_threshold_has_no_verdict_either(undecided, kind, tmp_path, photo):
    case, path = undecided
    model = case.shallow()
    file = case.engine(tmp_path).export(model, kind, export_root=tmp_path, ckpt_path=path)
    assert model.post_processor.enable_thresholding, "as it was asked to"
    paper = json.loads(file.with_suffix(".json").read_text())
    for name in ("image_threshold", "pixel_threshold"):
        assert paper[name] is paper[f"raw_{name}"] is None
    exported = Inferencer(file, trust=True)
    assert exported.run(torch.zeros(1, 3, 32, 32)).pred_label is None
    found = exported.predict(photo)
    assert found.label is None
    assert found.score == pytest.approx(Inferencer(path).predict(photo).score, rel=1e-4)


@pytest.mark.parametrize("undecided", ["MVFA"], indirect=True)
def test_score_without_a_threshold_writes_scores_maps_and_no_verdict(
    undecided, photo, tmp_path, capsys
):
    write_stack(tmp_path / "in" / "ct", numbers(), UP)
    photo.rename(tmp_path / "in" / "photo.png")
    command = ["score", str(tmp_path / "in"), "--ckpt", undecided[1], "--intensity", "[0, 1000]"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    words = capsys.readouterr().err
    assert "no verdict (no threshold is known)" in " ".join(words.split())
    table = pd.read_csv(tmp_path / "out" / "scores.csv")
    assert list(table["status"]) == ["scored", "scored"]
    assert table["label"].isna().all()
    assert table["score"].notna().all()
    assert set(table["threshold_from"]) == {"none is known"}
    series = record(tmp_path / "out" / "ct")
    assert series["label"] is None
    assert {row["label"] for row in series["slices"]} == {None}
    assert series["segmentation"] == "none: the model knows no threshold of pixels"
    assert series["provenance"]["threshold"] == {"value": None, "from": "none is known"}
    assert not (tmp_path / "out" / "ct" / "segmentation.dcm").exists()
    found = pydicom.dcmread(tmp_path / "out" / "ct" / "map.dcm")
    [item] = found.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    assert item.LUTExplanation == "How abnormal, no threshold of pixels is known"
    voxels = nib.load(tmp_path / "out" / "ct" / "map.nii.gz").get_fdata()
    last = item.DoubleFloatRealWorldValueLastValueMapped
    assert last == pytest.approx(voxels.max(), rel=1e-6)


def test_a_model_that_is_to_find_no_threshold_gives_none(tmp_path, photo):
    [case] = [case for case in CASES if case.name == "MVFA"]
    processor = RankPreservingPostProcessor(enable_thresholding=False)
    trained = case.fit(tmp_path, epochs=1, post_processor=processor)
    assert Inferencer(trained.checkpoint).predict(photo).label is None


def test_the_sheet_without_a_threshold_has_the_colours_of_its_own_range(tmp_path, monkeypatch):
    seen = []

    def look(views, heading, threshold):
        seen.extend([heading, HeatScale.of(views[0].heat, threshold)])
        return Image.new("L", (1, 1))

    monkeypatch.setattr("anomalib_medclip.score.montage.draw_sheet", look)
    heat = np.linspace(2, 3, 12, dtype=np.float32).reshape(3, 4)
    view = View(np.zeros((3, 4, 3), np.uint8), "slice 0", heat)
    draw_montage(tmp_path / "sheet.png", [view], has_threshold=False)
    words, scale = seen
    assert words.endswith("no threshold of pixels is known")
    assert scale == (2, 3, None)
