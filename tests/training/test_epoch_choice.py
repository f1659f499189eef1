from types import SimpleNamespace

import pytest
import torch
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from pandas import DataFrame
from torch import nn
from torch.utils.data import DataLoader

from anomalib_medclip.training.epoch_choice import BestEpoch


class Counter(LightningModule):
    """Counts its epochs in a weight, and is told how good each one was on validation images."""

    def __init__(self, image_auroc, pixel_auroc=None):
        super().__init__()
        self.model = nn.ModuleDict({"head": nn.Linear(1, 1), "clip": nn.Linear(1, 1)})
        self.aurocs = {"val_image_AUROC": image_auroc, "val_pixel_AUROC": pixel_auroc}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)

    def training_step(self, batch):
        return self.model["head"](batch).sum() + self.model["clip"](batch).sum()

    def on_train_epoch_start(self):
        with torch.no_grad():
            for layer in self.model.values():
                layer.weight.fill_(self.current_epoch)

    def validation_step(self, batch):
        for name, values in self.aurocs.items():
            if values is not None:
                self.log(name, values[self.current_epoch])

    test_step = predict_step = validation_step


def fit(tmp_path, model, epochs, callbacks, **options):
    options = {"num_sanity_val_steps": 0} | options
    trainer = Trainer(
        accelerator="cpu", max_epochs=epochs, callbacks=callbacks, default_root_dir=tmp_path,
        logger=False, enable_progress_bar=False, enable_model_summary=False, **options,
    )  # fmt: skip
    loader = DataLoader(torch.ones(1, 1))
    trainer.fit(model, loader, loader)
    return trainer


def kept(model):
    return model.model["head"].weight.item()


@pytest.mark.parametrize(
    ("image", "pixel", "best"),
    [
        ([0.5, 0.9, 0.7], None, 1),
        ([0.5, 0.9, 0.7], [0.5, 0.5, 0.9], 2),
        ([0.8, 0.8, 0.7], None, 0),
        ([0.5, 0.6, 0.7], None, 2),
        ([0.0, 0.0, 0.0], None, 0),
    ],
    ids=["image alone", "sum with pixels", "first of equals", "last", "all useless"],
)
def test_the_best_epoch_is_put_back(tmp_path, image, pixel, best):
    model = Counter(image, pixel)
    fit(tmp_path, model, 3, [BestEpoch()], enable_checkpointing=False)
    assert kept(model) == best


def test_the_last_checkpoint_holds_the_best_epoch(tmp_path):
    model = Counter([0.5, 0.9, 0.7])
    checkpoint = ModelCheckpoint(dirpath=tmp_path, filename="last", save_on_train_epoch_end=True)
    fit(tmp_path, model, 3, [BestEpoch(), checkpoint])
    saved = torch.load(checkpoint.best_model_path, weights_only=True)
    assert saved["state_dict"]["model.head.weight"].item() == 1


def test_the_frozen_backbone_is_neither_copied_nor_touched(tmp_path):
    model, chooser = Counter([0.9, 0.5]), BestEpoch()
    fit(tmp_path, model, 2, [chooser], enable_checkpointing=False)
    assert kept(model) == 0
    assert model.model["clip"].weight.item() == 1
    assert not [name for name in chooser._state if "clip" in name]


def test_a_sanity_check_before_training_is_no_epoch(tmp_path):
    model = Counter([0.9, 0.5])
    model.model["head"].weight.data.fill_(-1)
    fit(tmp_path, model, 2, [BestEpoch()], enable_checkpointing=False, num_sanity_val_steps=1)
    assert kept(model) == 0


def test_validating_a_finished_model_changes_nothing(tmp_path):
    model, chooser = Counter([0.5, 0.9, 0.1]), BestEpoch()
    trainer = fit(tmp_path, model, 2, [chooser], enable_checkpointing=False)
    remembered = chooser._best
    model.aurocs["val_image_AUROC"] = [1.0] * 5
    trainer.validate(model, DataLoader(torch.ones(1, 1)), verbose=False)
    assert chooser._best == remembered
    assert kept(model) == 1


def test_the_test_images_have_no_say(tmp_path):
    model, chooser = Counter([0.5, 0.9, 0.1]), BestEpoch()
    trainer = fit(tmp_path, model, 2, [chooser], enable_checkpointing=False)
    model.aurocs["val_image_AUROC"] = [1.0] * 5
    trainer.test(model, DataLoader(torch.ones(1, 1)), verbose=False)
    assert chooser._best == pytest.approx(0.9)
    assert kept(model) == 1


def test_without_a_validation_the_last_epoch_stays(tmp_path):
    model = Counter([0.9, 0.5])
    fit(tmp_path, model, 2, [BestEpoch()], enable_checkpointing=False, limit_val_batches=0)
    assert kept(model) == 1


NORMALS = SimpleNamespace(samples=DataFrame({"label_index": [0, 0]}))


@pytest.mark.parametrize(
    ("name", "value"),
    [("validates_on_support", True), ("val_data", NORMALS), ("val_split_mode", "same_as_test")],
)
def test_a_validation_that_must_not_choose_is_not_asked(name, value, tmp_path, caplog):
    """The support is what was learnt from, of one class every AUROC is 0, and test is test."""
    model = Counter([0.9, 0.5])
    data = LightningDataModule.from_datasets(torch.ones(1, 1), torch.ones(1, 1), num_workers=0)
    setattr(data, name, value)
    trainer = Trainer(
        default_root_dir=tmp_path, max_epochs=2, callbacks=[BestEpoch()], accelerator="cpu",
        enable_checkpointing=False, logger=False, enable_progress_bar=False,
    )  # fmt: skip
    trainer.fit(model, datamodule=data)
    assert kept(model) == 1
    assert "no validation images of both classes besides support and test" in caplog.text


def test_without_a_metric_the_last_epoch_stays(tmp_path):
    model = Counter(image_auroc=None)
    fit(tmp_path, model, 2, [BestEpoch()], enable_checkpointing=False)
    assert kept(model) == 1


def test_metrics_that_are_no_number_never_win(tmp_path):
    model = Counter([float("nan"), 0.6, float("nan")])
    fit(tmp_path, model, 3, [BestEpoch()], enable_checkpointing=False)
    assert kept(model) == 1
