import csv
import json
import logging
import string
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from anomalib.data import ImageBatch, ImageItem, PredictDataset
from anomalib.visualization import ImageVisualizer
from command import rows as named_rows
from hypothesis import given
from hypothesis import strategies as st
from lightning import LightningModule, Trainer
from PIL import Image as Pillow
from torch.utils.data import DataLoader, Dataset

from anomalib_medclip.files import write_whole
from anomalib_medclip.pictures.view import View
from anomalib_medclip.readers.picture import read_image
from anomalib_medclip.training import results
from anomalib_medclip.training.picture_names import common_folder, picture_name
from anomalib_medclip.training.results import HeatMapVisualizer, ResultsWriter
from anomalib_medclip.training.views import extent_of
from anomalib_medclip.training.worst_cases import MOST, WorstCases

# --- names of pictures

words = st.text("ab" + string.digits[:2], min_size=1, max_size=2)
endings = st.sampled_from([".png", ".jpg", ".PNG", ".jpg.png", ".png.png", ".tif"])
file_paths = st.builds(
    lambda folders, name, ending: Path("/data", *folders, name + ending),
    st.lists(words, max_size=2),
    words,
    endings,
)


@given(paths=st.lists(file_paths, min_size=1, max_size=30, unique=True))
def test_no_two_images_share_a_picture(paths):
    base = common_folder(paths)
    names = [picture_name(path, base) for path in paths]
    assert len(set(names)) == len(paths)
    for name in names:
        assert name.suffix == ".png"
        assert not name.is_absolute()
        assert ".." not in name.parts


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/data/test/good/1.png", "good/1.png"),
        ("/data/test/good/1.jpg", "good/1.jpg.png"),
        ("/data/test/Ungood/img/1.png", "Ungood/img/1.png"),
        ("/data/test/good/scan.v2.tif", "good/scan.v2.tif.png"),
    ],
)
def test_a_picture_is_named_after_its_image(path, name):
    assert picture_name(Path(path), Path("/data/test")) == Path(name)


def test_paths_that_go_up_do_not_leave_the_pictures_folder():
    paths = ["/data/a/1.png", "/data/a/../b/1.png"]
    base = common_folder(paths)
    assert {picture_name(Path(p), base) for p in paths} == {Path("a/1.png"), Path("b/1.png")}


def test_relative_and_absolute_paths_are_told_apart(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    paths = ["a/1.png", str(tmp_path / "b" / "1.png")]
    base = common_folder(paths)
    assert [picture_name(Path(p), base) for p in paths] == [Path("a/1.png"), Path("b/1.png")]


# --- a run of Lightning whose model knows every score beforehand


class Scorer(LightningModule):
    """Scores an image by its brightness and logs two metrics."""

    threshold_from = ""

    def test_step(self, batch):
        brightness = batch.image.mean(dim=(1, 2, 3))
        maps = batch.image.mean(dim=1)
        metrics = {"image_AUROC": 0.75, "pixel_AUROC": torch.tensor(0.5)}
        self.log_dict(metrics, batch_size=len(maps))
        return batch.update(
            pred_score=brightness,
            pred_label=brightness > 0.5,
            anomaly_map=maps,
            pred_mask=maps > 0.5,
        )

    def predict_step(self, batch):
        brightness = batch.image.mean(dim=(1, 2, 3))
        return batch.update(pred_score=brightness, pred_label=brightness > 0.5)


class Images(Dataset):
    """Images of a table, as anomalib's data sets are."""

    def __init__(self, paths, intensity=None):
        self.samples = pd.DataFrame({"image_path": [str(path) for path in paths]})
        self.intensity = intensity

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        path = self.samples.image_path[index]
        image = read_image(path, self.intensity)
        return ImageItem(image=image, image_path=path, gt_label=torch.tensor(index % 2))


def save_image(path, value=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(np.full((16, 16, 3), value, dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def evaluate(tmp_path):
    """Runs a test, or a prediction, with one callback; results are in ``tmp_path / "run"``."""

    def run(callback, data, verb="test"):
        trainer = Trainer(
            accelerator="cpu",
            callbacks=[callback],
            default_root_dir=tmp_path / "run",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        loader = DataLoader(data, batch_size=2, collate_fn=ImageBatch.collate)
        options = {"verbose": False} if verb == "test" else {}
        getattr(trainer, verb)(Scorer(), loader, **options)
        return tmp_path / "run"

    return run


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def read_table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def brain(tmp_path):
    """Three images of the test split, two of which differ in the folder above the last alone."""
    root = tmp_path / "Brain" / "test"
    places = {"good/img/1.png": 51, "Ungood/img/1.png": 204, "Ungood/img/2.png": 153}
    return [save_image(root / place, value) for place, value in places.items()]


# --- pictures


def test_every_image_gets_a_picture_of_its_own(evaluate, brain):
    folder = evaluate(HeatMapVisualizer(), Images(brain))
    expected = ["Ungood/img/1.png", "Ungood/img/2.png", "good/img/1.png"]
    assert files(folder / "images") == expected
    contents = {(folder / "images" / name).read_bytes() for name in expected}
    assert len(contents) == 3


def test_a_picture_shows_image_and_heat_map_side_by_side(evaluate, brain):
    folder = evaluate(HeatMapVisualizer(), Images(brain))
    with Pillow.open(folder / "images" / "good/img/1.png") as picture:
        assert picture.width > 2 * picture.height
        assert len(np.unique(np.asarray(picture.convert("L")))) > 2


def test_pictures_go_where_they_are_told(evaluate, brain, tmp_path):
    evaluate(HeatMapVisualizer(output_dir=tmp_path / "elsewhere"), Images(brain))
    assert len(files(tmp_path / "elsewhere")) == 3


def test_a_16_bit_image_is_shown_as_the_model_saw_it(evaluate, tmp_path):
    deep = np.full((16, 16), 20_000, dtype=np.uint16)
    Pillow.fromarray(deep).save(tmp_path / "deep.png")
    data = Images([tmp_path / "deep.png"], intensity="dtype")
    folder = evaluate(HeatMapVisualizer(fields=["image"], overlay_fields=[]), data)
    with Pillow.open(folder / "images" / "deep.png") as picture:
        shown = np.median(np.asarray(picture.convert("L")))
    assert shown == pytest.approx(255 * 20_000 / 65_535, abs=2)


@pytest.mark.parametrize("whole_folder", [True, False])
def test_predictions_on_files_have_pictures_too(evaluate, brain, whole_folder):
    path = brain[0].parents[2] if whole_folder else brain[1]
    folder = evaluate(HeatMapVisualizer(), PredictDataset(path), verb="predict")
    assert len(files(folder / "images")) == (3 if whole_folder else 1)


# --- scores and metrics


def test_a_test_leaves_scores_and_metrics(evaluate, brain):
    folder = evaluate(ResultsWriter(), Images(brain))
    assert files(folder) == ["run.json", "test_metrics.json", "test_scores.csv"]
    metrics = json.loads((folder / "test_metrics.json").read_text())
    assert metrics == {"image_AUROC": 0.75, "pixel_AUROC": 0.5}
    rows = read_table(folder / "test_scores.csv")
    assert [row["image"] for row in rows] == [str(path) for path in brain]
    assert [float(row["pred_score"]) for row in rows] == pytest.approx([0.2, 0.8, 0.6])
    assert [row["pred_label"] for row in rows] == ["False", "True", "True"]
    assert len({row["gt_label"] for row in rows}) == 2


def test_a_prediction_leaves_scores_without_truth(evaluate, brain):
    folder = evaluate(ResultsWriter(), PredictDataset(brain[1]), verb="predict")
    assert files(folder) == ["predict_scores.csv"]
    (row,) = read_table(folder / "predict_scores.csv")
    assert row == {
        "image": str(brain[1]), "pred_score": row["pred_score"], "pred_label": "True",
    }  # fmt: skip
    assert float(row["pred_score"]) == pytest.approx(0.8)


def test_a_second_test_does_not_repeat_the_rows_of_the_first(evaluate, brain):
    writer = ResultsWriter()
    evaluate(writer, Images(brain))
    folder = evaluate(writer, Images(brain[:1]))
    assert len(read_table(folder / "test_scores.csv")) == 1


def test_names_with_commas_and_accents_survive_the_table(evaluate, tmp_path):
    path = save_image(tmp_path / "pa,tient" / 'Müller "a".png')
    folder = evaluate(ResultsWriter(), Images([path]))
    assert read_table(folder / "test_scores.csv")[0]["image"] == str(path)


def test_the_name_of_an_image_is_no_formula(evaluate, tmp_path, monkeypatch):
    save_image(tmp_path / "=1+A1.png", 51)
    monkeypatch.chdir(tmp_path)
    folder = evaluate(ResultsWriter(), Images(["=1+A1.png"]))
    [row] = read_table(folder / "test_scores.csv")
    assert row["image"] == "'=1+A1.png"
    assert list(named_rows(folder / "test_scores.csv")) == ["=1+A1.png"]
    results._write_table(tmp_path / "table.csv", [{"image": "-1+A1", "raw_score": -0.5}])
    assert read_table(tmp_path / "table.csv") == [{"image": "'-1+A1", "raw_score": "-0.5"}]


def test_a_metric_that_is_not_a_number_is_null(tmp_path):
    metrics = {"image_AUROC": torch.tensor(0.5), "pixel_AUROC": torch.tensor(torch.nan)}
    trainer = SimpleNamespace(
        loggers=[],
        default_root_dir=tmp_path,
        logged_metrics=metrics,
        is_global_zero=True,
        predicting=False,
        test_dataloaders=[],
        checkpoint_callback=None,
        ckpt_path=None,
    )
    ResultsWriter().on_test_end(trainer, SimpleNamespace(threshold_from=""))
    written = json.loads((tmp_path / "test_metrics.json").read_text(), parse_constant=pytest.fail)
    assert written == {"image_AUROC": 0.5, "pixel_AUROC": None}


def test_metrics_say_how_many_patients_the_support_has(tmp_path):
    counts = {"normal": {"images": 4, "patients": 3, "unknown": 0}}
    trainer = SimpleNamespace(
        loggers=[],
        default_root_dir=tmp_path,
        logged_metrics={"image_AUROC": torch.tensor(0.5)},
        is_global_zero=True,
        predicting=False,
        test_dataloaders=[],
        checkpoint_callback=None,
        ckpt_path=None,
        datamodule=SimpleNamespace(support_counts=counts),
    )
    ResultsWriter().on_test_end(trainer, SimpleNamespace(threshold_from=""))
    written = json.loads((tmp_path / "test_metrics.json").read_text())
    assert written == {"image_AUROC": 0.5, "support": counts}


def test_it_says_where_the_results_are(evaluate, brain, caplog):
    with caplog.at_level(logging.INFO):
        folder = evaluate(ResultsWriter(), Images(brain))
    assert f"metrics, scores and pictures are in {folder}" in caplog.text


def test_files_appear_whole_or_not_at_all(tmp_path):
    target = tmp_path / "scores.csv"
    results._write_table(target, [{"image": "old"}])

    class Broken:
        def __str__(self):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        results._write_table(target, [{"image": "new"}, {"image": Broken()}])
    assert read_table(target) == [{"image": "old"}]


def test_metrics_appear_whole_or_not_at_all(tmp_path, monkeypatch):
    target = tmp_path / "metrics.json"
    write_whole(target, "old")

    def full_disk(self, text, encoding, newline):
        with self.open("w", encoding=encoding, newline=newline) as file:
            file.write(text[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_whole(target, "new")
    assert target.read_text() == "old"


def test_an_empty_test_leaves_an_empty_table(tmp_path):
    results._write_table(tmp_path / "scores.csv", [])
    assert read_table(tmp_path / "scores.csv") == []


# --- the worst cases


class Decided(Images):
    """Images whose truth is given."""

    def __init__(self, paths, labels):
        super().__init__(paths)
        self.labels = labels

    def __getitem__(self, index):
        item = super().__getitem__(index)
        item.gt_label = torch.tensor(self.labels[index])
        return item


def test_a_test_leaves_its_worst_misses_and_false_alarms_on_a_sheet(evaluate, tmp_path):
    values = [220, 200, 30, 60, 250, 20]  # the model calls abnormal what is brighter than half
    labels = [0, 0, 1, 1, 1, 0]
    paths = [save_image(tmp_path / "in" / f"{n}.png", v) for n, v in enumerate(values)]
    folder = evaluate(HeatMapVisualizer(), Decided(paths, labels))
    rows = read_table(folder / "worst_cases.csv")
    found = [(row["kind"], Path(row["image"]).name) for row in rows]
    misses = [("missed", "2.png"), ("missed", "3.png")]
    assert found == [*misses, ("false alarm", "0.png"), ("false alarm", "1.png")]
    scores = [float(row["pred_score"]) for row in rows]
    assert scores == pytest.approx([30 / 255, 60 / 255, 220 / 255, 200 / 255], abs=1e-3)
    with Pillow.open(folder / "worst_cases.png") as sheet:
        assert sheet.height > 200


def test_the_sheet_is_bounded_and_counts_what_it_leaves_out():
    worst = WorstCases()
    image = np.zeros((2, 2, 3), np.uint8)
    for n in range(50):
        worst.add(f"{n}.png", View(image, "", score=0.9 - n / 100, decision=True, label=False))
    assert [case.path for case in worst.kept] == [f"{n}.png" for n in range(MOST)]
    assert worst.heading.startswith(
        "0 misses and 50 false alarms among 50 test images; the worst 9."
    )
    halves = [WorstCases(), WorstCases()]
    for n in range(50):
        view = View(image, "", score=0.9 - n / 100, decision=True, label=False)
        halves[n % 2].add(f"{n}.png", view)
    joined = WorstCases().join(halves)
    assert [case.path for case in joined.kept] == [case.path for case in worst.kept]
    assert joined.heading == worst.heading


def test_a_prediction_has_no_worst_cases(evaluate, brain):
    folder = evaluate(HeatMapVisualizer(), PredictDataset(brain[1]), verb="predict")
    assert not (folder / "worst_cases.png").exists()


def test_a_picture_has_the_shape_of_its_file_whatever_the_model_saw(tmp_path):
    path = tmp_path / "wide.png"
    Pillow.new("L", (200, 50)).save(path)
    assert extent_of(path) == (50, 200, False, None)
    turned = Pillow.Exif()
    turned[0x0112] = 6
    Pillow.new("L", (200, 50)).save(tmp_path / "turned.png", exif=turned)
    assert extent_of(tmp_path / "turned.png") == (200, 50, False, None)
    (tmp_path / "slice.dcm").write_bytes(b"DICM" * 40)
    assert extent_of(tmp_path / "slice.dcm") is None


def test_options_of_anomalib_s_drawing_draw_as_anomalib_does():
    item = ImageItem(image=torch.rand(3, 16, 16), anomaly_map=torch.rand(16, 16))
    asked = HeatMapVisualizer(fields=["image"]).visualize(item)
    assert asked.tobytes() == ImageVisualizer(fields=["image"]).visualize(item).tobytes()
    assert asked.tobytes() != HeatMapVisualizer().visualize(item).tobytes()
    assert HeatMapVisualizer(output_dir="here").fields is None  # what a checkpoint holds
