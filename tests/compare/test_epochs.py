"""Scores of the test images are recorded after each epoch, and training never knows."""

import random

import numpy as np
import pytest
import torch
from anomalib.engine import Engine
from anomalib.models import Cflow
from comparing import CFLOW, SMALL
from lightning import seed_everything
from lightning.pytorch import Callback
from tiny import METHODS, Training, lesion_data

from anomalib_medclip.compare.epochs import EpochScores
from anomalib_medclip.compare.evaluator import GalleryFindings
from anomalib_medclip.models.mvfa import MVFA
from anomalib_medclip.training.frozen_features import SharedFeatures

EPOCHS = 2


class Notes(Callback):
    """Remembers random numbers and modes as each epoch finds them, and the losses."""

    def __init__(self):
        self.chance, self.modes, self.losses = [], [], []

    def on_train_epoch_start(self, trainer, model):
        numbers = np.random.get_state()[1]  # noqa: NPY002
        self.chance.append((torch.get_rng_state().tolist(), numbers.tolist(), random.getstate()))
        self.modes.append([part.training for part in model.modules()])

    def on_train_batch_end(self, trainer, model, outputs, *_args):
        self.losses.append(float(outputs["loss"]))


def model_of(kind, **options):
    if kind is not Cflow:
        return kind(**SMALL, **Training.of(kind).options, **options)
    pre_processor = Cflow.configure_pre_processor((CFLOW["image_size"],) * 2)
    # The scores of a smaller backbone may tie.
    given = {**CFLOW["init_args"], "backbone": "resnet18", **options}
    return Cflow(**given, pre_processor=pre_processor)


def train(kind, lesions, home, every, epochs=EPOCHS, features=None, **options):
    """A trained model, what was recorded, and what the epochs found."""
    seed_everything(1, workers=True)
    data = lesion_data(lesions, train_batch_size=16, val_ratio=0.7)
    model, notes = model_of(kind, **options), Notes()
    recorded = EpochScores({"lesions": data}, every)
    model.evaluator, model.visualizer = GalleryFindings(), None
    if features is not None:
        model.features.shared = features
    engine = Engine(
        callbacks=[recorded, notes], default_root_dir=home, accelerator="cpu", max_epochs=epochs,
        enable_progress_bar=False, enable_model_summary=False, logger=False,
    )  # fmt: skip
    engine.fit(model, datamodule=data)
    engine.test(model, datamodule=data, verbose=False)
    return model, recorded, notes


def assert_same(one, other):
    (model, _, notes), (twin, _, told) = one, other
    state, again = model.state_dict(), twin.state_dict()
    assert state.keys() == again.keys()
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    unequal = [name for name, value in tensors.items() if not torch.equal(value, again[name])]
    assert [name for name in unequal if not tensors[name].isnan().all()] == []
    assert model.evaluator.result.images.scores == twin.evaluator.result.images.scores
    assert model.evaluator.result.figures == twin.evaluator.result.figures
    assert notes.losses == told.losses
    assert notes.chance == told.chance
    assert notes.modes == told.modes


LEARNING = [method for method in METHODS if method.learns]


@pytest.fixture(scope="module", params=[*LEARNING, Cflow], ids=lambda kind: kind.__name__)
def recorded(request, lesions, tmp_path_factory):
    return train(request.param, lesions, tmp_path_factory.mktemp("recorded"), every=1)


@pytest.mark.daily_for(recorded="Cflow")  # which this package knows least of
def test_recording_feeds_nothing_back(recorded, lesions, tmp_path):
    silent = train(type(recorded[0]), lesions, tmp_path, every=0)
    assert list(recorded[1].epochs["lesions"]) == list(range(1, EPOCHS))
    assert all(one["pixel_AUROC"] is not None for one in recorded[1].epochs["lesions"].values())
    assert recorded[1].seconds > 0
    assert silent[1].epochs["lesions"] == {}
    assert len(recorded[2].chance) == EPOCHS
    assert_same(recorded, silent)


@pytest.mark.daily_for(recorded="Cflow")
def test_an_epoch_is_recorded_as_a_training_that_ends_there_is_tested(recorded, lesions, tmp_path):
    short, nothing, _ = train(type(recorded[0]), lesions, tmp_path, every=1, epochs=1)
    assert nothing.epochs["lesions"] == {}, "the last epoch is left to the test"
    # Normalised scores are float32, too, and may tie where raw ones differ.
    for name, value in recorded[1].epochs["lesions"][1].items():
        assert value == pytest.approx(short.evaluator.result.figures[name], abs=1e-5), name


def test_nor_where_validation_chooses_the_epoch_and_features_are_shared(lesions, tmp_path):
    found = []
    for every in (1, 0):
        shared = SharedFeatures(tmp_path / f"features{every}", "", 1.0)
        options = {"features": shared, "epoch_choice": "validation"}
        found.append(train(MVFA, lesions, tmp_path / str(every), every, **options))
    assert list(found[0][1].epochs["lesions"]) == [1, 2], "any may be the one tested"
    assert_same(*found)


def test_every_second_epoch_can_be_recorded(lesions, tmp_path):
    _, recorded, _ = train(MVFA, lesions, tmp_path, every=2, epochs=5)
    assert list(recorded.epochs["lesions"]) == [2, 4]
