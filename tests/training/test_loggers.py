"""What loggers are told of a training and its test: losses, options, figures, pictures."""

import csv
import json
import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from anomalib.engine import Engine
from anomalib.loggers import (
    AnomalibMLFlowLogger,
    AnomalibTensorBoardLogger,
    AnomalibWandbLogger,
)
from anomalib.loggers.base import ImageLoggerBase
from lightning.pytorch import loggers as of_lightning
from PIL import Image
from tiny import SHALLOW, lesion_data

from anomalib_medclip.models.mvfa import MVFA
from anomalib_medclip.training import loggers
from anomalib_medclip.training.loggers import tell_figures, worst

THEIRS = {
    "tensorboard": (AnomalibTensorBoardLogger, of_lightning.TensorBoardLogger),
    "mlflow": (AnomalibMLFlowLogger, of_lightning.MLFlowLogger),
    "wandb": (AnomalibWandbLogger, of_lightning.WandbLogger),
}


class Listener(ImageLoggerBase, of_lightning.CSVLogger):
    """Keeps what it is told."""

    def __init__(self, folder):
        super().__init__(folder)
        self.figures, self.pictures = {}, {}

    def log_metrics(self, metrics, step=None):
        self.figures |= metrics

    def add_image(self, image, name=None, **kwargs):
        assert kwargs.keys() == {"global_step"}
        self.pictures[name] = image


def engine(home, told):
    return Engine(
        default_root_dir=home, accelerator="cpu", max_epochs=1, logger=told,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def heard(lesions, tmp_path_factory):
    """A training with its test: who listened, and the run's folder."""
    home = tmp_path_factory.mktemp("heard")
    listener = Listener(home)
    trained = engine(home, [listener])
    trained.train(MVFA(**SHALLOW), datamodule=lesion_data(lesions))
    folder = Path(trained.trainer.default_root_dir)
    with (folder / "test_scores.csv").open() as file:
        return SimpleNamespace(listener=listener, folder=folder, rows=list(csv.DictReader(file)))


def record(heard):
    return json.loads((heard.folder / "run.json").read_text())


def test_every_figure_that_is_known_is_told_with_its_interval(heard):
    told, known = heard.listener.figures, record(heard)["figures"]
    assert {"train_loss_epoch", "val_image_AUROC"} <= told.keys()
    for name, found in known.items():
        if found["value"] is None:
            assert name not in told or name == "image_AUROC", name  # which Lightning is told of
        else:
            assert told[name] == pytest.approx(found["value"]), name
    figures = {"AP": {"value": 0.5, "low": 0.25, "high": 0.75}, "F1": {"value": None, "low": None}}
    tell_figures(SimpleNamespace(loggers=[heard.listener], global_step=3), {"figures": figures})
    assert {n: told[n] for n in ("AP", "AP_low", "AP_high")} == {
        "AP": 0.5, "AP_low": 0.25, "AP_high": 0.75,
    }  # fmt: skip
    assert "F1" not in told


def test_the_pictures_that_are_told_are_those_of_the_run(heard):
    files = {p.relative_to(heard.folder): p for p in (heard.folder / "images").rglob("*.png")}
    assert len(heard.listener.pictures) == len(files) == len(heard.rows) == 12
    for name, pixels in heard.listener.pictures.items():
        with Image.open(files[Path(name)]) as picture:
            np.testing.assert_array_equal(pixels, picture.convert("RGB"))


def test_of_many_images_the_worst_of_each_class_are_told():
    scores = np.random.default_rng(0).permutation(200) / 200
    rows = [{"image": i, "pred_score": s, "gt_label": i % 2} for i, s in enumerate(scores)]
    told = list(map(int, worst(rows)))
    assert len(told) == 2 * loggers.WORST
    normal, abnormal = scores[::2], scores[1::2]
    assert sorted(scores[told[: loggers.WORST]]) == sorted(normal)[-loggers.WORST :]
    assert sorted(scores[told[loggers.WORST :]]) == sorted(abnormal)[: loggers.WORST]


def test_without_pictures_figures_are_told_alone(heard, lesions, tmp_path):
    checkpoint = heard.folder / record(heard)["files"]["checkpoint"]
    model, listener = MVFA(**SHALLOW, visualizer=False), Listener(tmp_path)
    engine(tmp_path, [listener]).test(
        model, datamodule=lesion_data(lesions), ckpt_path=checkpoint, verbose=False
    )
    assert listener.figures["pixel_AUPRO"] > 0
    assert not listener.pictures


# --- those that people have


@pytest.fixture(params=["anomalib", "lightning"])
def of(request):
    """Makes a logger of anomalib's or Lightning's, where its package is installed."""

    def make(name, **options):
        pytest.importorskip(name, reason=f"{name} is not installed (extra 'loggers')")
        return THEIRS[name][request.param == "lightning"](**options)

    return make


@pytest.fixture
def tested(heard, lesions, tmp_path, monkeypatch):
    """Tests the model of ``heard`` with a logger."""
    monkeypatch.chdir(tmp_path)
    handlers = {one: list(one.handlers) for one in (logging.getLogger(),)}

    def test(told):
        checkpoint = heard.folder / record(heard)["files"]["checkpoint"]
        model = MVFA(**SHALLOW)
        engine(tmp_path, [told]).test(
            model, datamodule=lesion_data(lesions), ckpt_path=checkpoint, verbose=False
        )
        return told

    yield test
    for one, kept in handlers.items():
        one.handlers = kept


def close(found, heard):
    """Whether a logger has the figures of the run, in float32."""
    known = {k: v["value"] for k, v in record(heard)["figures"].items() if v["value"] is not None}
    assert len(known) > 5
    for name, value in known.items():
        assert found[name] == pytest.approx(value, abs=1e-6), name


def test_tensorboard_has_figures_and_pictures(of, tested, heard):
    told = tested(of("tensorboard", save_dir="logs"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(told.log_dir, size_guidance={"images": 0}).Reload()
    close({tag: found.Scalars(tag)[0].value for tag in found.Tags()["scalars"]}, heard)
    assert sorted(found.Tags()["images"]) == sorted(heard.listener.pictures)


def test_mlflow_has_figures_options_and_pictures(of, tested, heard):
    home = {"tracking_uri": "sqlite:///mlflow.db", "artifact_location": "kept"}
    told = tested(of("mlflow", **home))
    run = told.experiment.get_run(told.run_id)
    close(run.data.metrics, heard)
    assert run.data.params["image_size"] == str(SHALLOW["image_size"])
    pictures = [p.relative_to(next(Path("kept").glob("*/artifacts"))).as_posix()
                for p in Path("kept").rglob("*.png")]  # fmt: skip
    assert sorted(pictures) == sorted(heard.listener.pictures)


def test_wandb_has_figures_options_and_pictures_offline(of, tested, heard, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    told = tested(of("wandb", save_dir=".", offline=True))
    run = told.experiment
    close(dict(run.summary), heard)
    assert run.config["image_size"] == SHALLOW["image_size"]
    captions = run.summary["images"]["captions"]
    assert sorted(f"images/{name}" for name in captions) == sorted(heard.listener.pictures)
    folder = Path(run.dir)
    run.finish()
    assert len(list(folder.rglob("*.png"))) == len(captions)
