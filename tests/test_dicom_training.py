"""DICOM pictures are trained on, tested and predicted as PNGs are."""

import csv
import logging

import numpy as np
import pytest
from anomalib.data import PredictDataset
from anomalib.engine import Engine
from anomalib.models import Patchcore
from dicom_series import write_picture
from PIL import Image
from tiny import OPTIONS, lesion_data

from anomalib_medclip.data import MedicalFolder
from anomalib_medclip.errors import ImageReadError
from anomalib_medclip.models.mvfa import MVFA
from anomalib_medclip.score.inferencer import Inferencer
from anomalib_medclip.training.results import HeatMapVisualizer


def as_dicom(table, ending):
    """Copy the pictures of a table to DICOM files of the same numbers, and list those."""
    root = table.parent
    rows = list(csv.DictReader(table.open()))
    for row in rows:
        pixels = np.asarray(Image.open(root / row["image"]))
        row["image"] = row["image"].replace("images/", "dicom/").replace(".png", ending)
        write_picture(root / row["image"], pixels)
    with (root / "dicom.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return root / "dicom.csv"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    from tiny import write_lesions

    return write_lesions(tmp_path_factory.mktemp("lesions")).parent


def scores_of(data, folder):
    """Image and score of a run on the data, and the pictures it left."""
    engine = Engine(
        default_root_dir=folder, accelerator="cpu", max_epochs=1, enable_progress_bar=False
    )
    model = MVFA(**OPTIONS)
    engine.fit(model, datamodule=data)
    engine.test(model, datamodule=data, verbose=False)
    rows = csv.DictReader(next(folder.rglob("test_scores.csv")).open())
    pictures = {path.name for path in folder.glob("**/images/**/*.png")}
    return {row["image"]: row["pred_score"] for row in rows}, pictures, engine


@pytest.fixture(scope="module")
def runs(home, tmp_path_factory):
    """One run on PNGs, one on DICOM files, of the same numbers."""
    png = scores_of(lesion_data(home), tmp_path_factory.mktemp("png"))
    table = as_dicom(home / "table.csv", ".dcm")
    data = MedicalFolder(
        table=table, patient_column="patient", mask_column="mask", object_name="phantom",
        k_shot=2, val_ratio=0.4, num_workers=0,
    )  # fmt: skip
    return png, scores_of(data, tmp_path_factory.mktemp("dicom"))


def test_dicom_is_scored_as_png_is(runs):
    (png, _, _), (dicom, _, _) = runs
    assert len(dicom) == 12
    renamed = {
        path.replace("images", "dicom").replace(".png", ".dcm"): s for path, s in png.items()
    }
    assert dicom == renamed


def test_every_dicom_picture_has_a_heat_map_that_can_be_opened(runs):
    _, (scores, pictures, _) = runs
    names = {path.rpartition("/")[2] for path in scores}
    assert pictures == {f"{name}.png" for name in names}


def test_dicom_files_of_a_folder_are_found(home, tmp_path):
    as_dicom(home / "table.csv", ".dcm")
    data = MedicalFolder(root=home / "dicom", k_shot=1, num_workers=0)
    data.setup()
    assert len(data.load_table()) == 24
    assert data.test_data[0].image.shape == (3, 40, 48)


def test_files_without_ending_are_read_where_a_table_names_them(home):
    table = as_dicom(home / "table.csv", "")
    data = MedicalFolder(table=table, mask_column="mask", k_shot=1, num_workers=0)
    data.setup()
    item = data.test_data[0]
    assert item.image_path.rpartition(".")[2] not in {"png", "dcm"}
    pixels = np.asarray(Image.open(item.image_path.replace("/dicom/", "/images/") + ".png"))
    assert np.array_equal(item.image[0].numpy(), (pixels / 255).astype(np.float32))


def test_the_inferencer_reads_dicom_as_png(runs, home):
    (_, _, engine), _ = runs
    inferencer = Inferencer(engine.best_model_path)
    as_dicom(home / "table.csv", ".dcm")
    one = inferencer.predict(home / "images" / "abnormal" / "1.png")
    two = inferencer.predict(home / "dicom" / "abnormal" / "1.dcm")
    assert one.score == two.score
    assert one.full_map.equal(two.full_map)


def test_anomalibs_own_prediction_lists_no_dicom_and_says_so(home):
    as_dicom(home / "table.csv", ".dcm")
    with pytest.raises(ValueError, match=r"Found 0 images in .*dicom"):
        PredictDataset(home / "dicom")
    with pytest.raises(ValueError, match=r"is not an image file: .*1.dcm"):
        PredictDataset(home / "dicom" / "abnormal" / "1.dcm")


def test_dicom_beside_pictures_is_not_left_out_without_a_word(runs, tmp_path, caplog):
    (_, _, engine), _ = runs
    for name in ("1.png", "2.png"):
        Image.fromarray(np.zeros((40, 48), dtype=np.uint8)).save(tmp_path / name)
    write_picture(tmp_path / "3.dcm", np.zeros((40, 48), dtype=np.uint8))
    with caplog.at_level(logging.WARNING):
        engine.predict(MVFA(**OPTIONS), data_path=tmp_path, ckpt_path=engine.best_model_path)
    said = "is DICOM, which anomalib's prediction does not list, and is left out; give it to"
    assert f"{tmp_path / '3.dcm'} {said} anomalib-medclip score" in caplog.text


def test_a_damaged_dicom_file_is_named(runs, home, tmp_path):
    (_, _, engine), _ = runs
    path = write_picture(tmp_path / "cut.dcm", np.zeros((40, 48), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ImageReadError, match=r"cut.dcm"):
        Inferencer(engine.best_model_path).predict(path)


def patchcore(**options):
    return Patchcore(
        backbone="resnet18",
        layers=["layer1"],
        pre_trained=False,
        pre_processor=Patchcore.configure_pre_processor((32, 32)),
        **options,
    )


def test_a_baseline_is_told_before_training_that_it_cannot_draw_dicom(home, tmp_path):
    table = as_dicom(home / "table.csv", ".dcm")
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", logger=False, max_epochs=1)
    data = MedicalFolder(table=table, mask_column="mask", k_shot=2, num_workers=0)
    with pytest.raises(
        ImageReadError, match=r"is DICOM or a slice, which anomalib's visualizer cannot open"
    ):
        engine.fit(patchcore(), datamodule=data)
    engine.train(patchcore(visualizer=HeatMapVisualizer()), datamodule=data)
    assert len(list(tmp_path.rglob("*.dcm.png"))) == len(data.test_data)
