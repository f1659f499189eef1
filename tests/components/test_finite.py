"""What is NaN or infinite stops training, and is never a score, a model or a figure."""

import logging
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from anomalib.data import ImageBatch
from anomalib.engine import Engine
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from sklearn.metrics import roc_auc_score
from tiny import METHODS, lesion_data, small
from torch.utils.data import DataLoader

from anomalib_medclip.components.finite import (
    non_finite,
    refuse_non_finite,
    refuse_non_finite_state,
)
from anomalib_medclip.errors import NonFiniteError
from anomalib_medclip.models.mvfa import MVFA
from anomalib_medclip.training.divergence import FiniteOnly

QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


class Learner(LightningModule):
    """Two epochs of five steps, whose losses are given."""

    def __init__(self, losses):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.losses, self.steps = list(losses), 0

    def training_step(self, _batch):
        self.steps += 1
        return self.weight * self.losses[self.steps - 1]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.25)


def learn(losses, home, **options):
    model = Learner(losses)
    saving = ModelCheckpoint(dirpath=home, every_n_epochs=1)
    callbacks = {"callbacks": [FiniteOnly(), saving], "max_epochs": 2, "default_root_dir": home}
    trainer = Trainer(**QUIET, **callbacks, **options)
    trainer.fit(model, DataLoader(torch.zeros(5, 1), batch_size=1))
    return model


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("step", [1, 4, 5])
def test_training_stops_at_a_loss_that_is_not_finite_and_names_the_step(bad, step, tmp_path):
    losses = [1.0] * (step - 1) + [bad] + [1.0] * 9
    words = rf"NaN or infinite in step {step} of epoch 1, at lr 0.25: .*Lower the learning rate"
    with pytest.raises(NonFiniteError, match=words):
        learn(losses, tmp_path)
    assert not list(tmp_path.iterdir()), "the epoch that broke is not saved"


def test_what_was_saved_before_is_kept_and_finite(tmp_path):
    with pytest.raises(NonFiniteError, match="step 2 of epoch 2"):
        learn([1.0] * 6 + [math.nan] * 4, tmp_path)
    [saved] = tmp_path.iterdir()
    weights = torch.load(saved, weights_only=True)["state_dict"]["weight"]
    assert weights.isfinite()


def test_finite_losses_pass(tmp_path):
    assert learn([3.0, -2.0, 0.0, 1.0, 2.0] * 2, tmp_path).steps == 10


def test_a_loss_of_another_process_stops_this_one():
    trainer = SimpleNamespace(
        current_epoch=0,
        optimizers=[],
        strategy=SimpleNamespace(reduce=lambda own, reduce_op: own + 1),  # another's was broken
    )
    callback = FiniteOnly()
    callback.on_train_batch_end(trainer, None, {"loss": torch.tensor(1.0)}, None, 0)
    with pytest.raises(NonFiniteError, match="step 1 of epoch 1"):
        callback.on_train_epoch_end(trainer, None)


def test_a_model_that_diverges_leaves_neither_checkpoint_nor_figures(lesions, tmp_path):
    engine = Engine(default_root_dir=tmp_path, **QUIET, max_epochs=2)
    with pytest.raises(NonFiniteError, match=r"at lr 1e\+06"):
        engine.train(small(MVFA, lr=1e6), datamodule=lesion_data(lesions))
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert not left & {"model.ckpt", "test_metrics.json", "test_scores.csv"}


# --- scores and maps


def test_a_number_that_is_not_finite_is_found_wherever_it_is():
    scores, maps = torch.zeros(4), torch.zeros(4, 1, 3, 3)
    assert not non_finite(scores, maps).any()
    scores[1], maps[3, 0, 2, 2] = math.nan, -math.inf
    assert non_finite(scores, maps).tolist() == [False, True, False, True]
    assert non_finite(None, maps).tolist() == [False, False, False, True]
    refuse_non_finite(None, None)
    with pytest.raises(NonFiniteError, match=r"score or map of c\.png is NaN or infinite"):
        refuse_non_finite(None, maps, ["a.png", "b.png", "d.png", "c.png"])


def broken_batch(batch):
    """What a model says whose last image has overflowed."""
    scores = torch.linspace(0.1, 0.9, len(batch.image))
    maps = torch.zeros(len(scores), *batch.image.shape[-2:])
    maps[-1, 0, 0] = math.inf
    return batch.update(pred_score=scores, anomaly_map=maps)


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_no_verb_takes_a_map_that_is_not_finite(verb, finished, lesions, tmp_path, monkeypatch):
    monkeypatch.setattr(MVFA, "validation_step", lambda _self, batch, *_: broken_batch(batch))
    monkeypatch.setattr(MVFA, "test_step", lambda _self, batch, *_: broken_batch(batch))
    monkeypatch.setattr(MVFA, "predict_step", lambda _self, batch, *_: broken_batch(batch))
    engine = Engine(default_root_dir=tmp_path, **QUIET)
    with pytest.raises(NonFiniteError, match=r"map of .*\d+\.png is NaN or infinite"):
        getattr(engine, verb)(MVFA.load_from_checkpoint(finished), datamodule=lesion_data(lesions))
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".csv", ".json", ".png")]


# --- models


@pytest.fixture
def planted(finished, tmp_path):
    """The finished checkpoint with one number changed: ``planted(part of a name, number)``."""

    def plant(part, number):
        checkpoint = torch.load(finished, weights_only=True)
        state = checkpoint["state_dict"]
        name = next(name for name in state if part in name)
        state[name].view(-1)[0] = number
        torch.save(checkpoint, tmp_path / "planted.ckpt")
        return tmp_path / "planted.ckpt"

    return plant


@pytest.mark.parametrize("part", ["adapters", "memory_bank", "model.text", "image_threshold"])
@pytest.mark.parametrize("number", [math.inf, math.nan])
def test_a_checkpoint_that_is_not_finite_is_not_opened(part, number, planted):
    path = planted(part, number)
    if part == "image_threshold" and math.isnan(number):
        MVFA.load_from_checkpoint(path)  # NaN stands for a threshold that nobody has found
        return
    with pytest.raises(NonFiniteError, match=f"{part}.* is NaN or infinite.*lower learning rate"):
        MVFA.load_from_checkpoint(path)


def test_a_model_that_is_not_finite_is_neither_saved_nor_exported(finished, tmp_path):
    model = MVFA.load_from_checkpoint(finished)
    next(p for name, p in model.named_parameters() if "adapters" in name).data[0, 0] = math.nan
    with pytest.raises(NonFiniteError, match=r"adapters.* of the model to save is NaN"):
        model.on_save_checkpoint({"state_dict": model.state_dict()})
    for export in (model.to_torch, model.to_onnx, model.to_openvino):
        with pytest.raises(NonFiniteError, match=r"adapters.* of the model to export is NaN"):
            export(tmp_path)
    assert not list(tmp_path.rglob("model.*"))


def test_whole_numbers_and_unknown_thresholds_pass():
    unknown = torch.tensor(torch.nan)
    refuse_non_finite_state({"step": torch.tensor(3), "post_processor.x": unknown}, "")
    with pytest.raises(NonFiniteError, match="adapter"):
        refuse_non_finite_state({"step": torch.tensor(3), "adapter.x": unknown}, "")


# --- the methods' own figures


def collapsed(count=100_000):
    """Distinct scores with labels, and a batch whose normalised scores nearly all tie."""
    generator = torch.Generator().manual_seed(0)
    scores = 1 + torch.arange(count) / count
    labels = torch.rand(count, generator=generator) < 0.3 + 0.4 * (scores - 1)
    assert len(scores.unique()) == count
    batch = ImageBatch(image=torch.zeros(count, 3, 1, 1), gt_label=labels)
    batch.gt_mask = labels.view(-1, 1, 1)
    return scores, labels, batch.update(pred_score=scores, anomaly_map=scores.view(-1, 1, 1))


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
def test_auroc_is_exact_where_normalised_scores_tie(method):
    model = small(method)
    for name, value in {"min": 1.0, "max": 2.0, "threshold": -1000.0}.items():
        for part in ("image", "pixel"):
            attribute = f"_{part}_{name}" if name == "threshold" else f"{part}_{name}"
            getattr(model.post_processor, attribute).fill_(value)
    scores, labels, batch = collapsed()
    trainer = SimpleNamespace(test_dataloaders=[], world_size=1)
    model.evaluator.on_test_epoch_start(trainer, model)
    for callback in model.configure_callbacks():  # in the order in which they are called
        if callback in (model.post_processor, model.evaluator):
            callback.on_test_batch_end(trainer, model, batch, batch, 0)
    assert len(batch.pred_score.unique()) < 100, "normalised scores do collapse here"
    expected = roc_auc_score(labels, scores)
    assert expected > 0.55
    found = {metric.name: metric.compute() for metric in model.evaluator.test_metrics}
    assert found["image_AUROC"].item() == pytest.approx(expected, abs=1e-12)
    assert found["pixel_AUROC"].item() == pytest.approx(expected, abs=1e-12)


def test_validation_figures_are_exact_beyond_zero_and_one(caplog):
    """torchmetrics' own would squash a batch with scores beyond [0, 1], and not the others."""
    model, scores, labels = small(MVFA), torch.tensor([0.2, 0.8, 3.0, 0.9]), [0, 1, 1, 0]
    for part in (slice(0, 2), slice(2, 4)):
        batch = ImageBatch(image=torch.zeros(2, 3, 1, 1), gt_label=torch.tensor(labels[part]))
        batch = batch.update(pred_score=scores[part])
        model.evaluator.on_validation_batch_end(None, model, batch, batch, 0)
    with caplog.at_level(logging.WARNING):
        found = {metric.name: metric.compute() for metric in model.evaluator.val_metrics}
    assert found["val_image_AUROC"].item() == roc_auc_score(labels, scores) == 0.75
    assert found["val_pixel_AUROC"] is None


def test_a_file_of_a_trained_model_holds_no_test_scores(finished, lesions, tmp_path):
    """The evaluator is part of a ``.pt`` file, and the scores of patients are not."""
    model = MVFA.load_from_checkpoint(finished)
    Engine(default_root_dir=tmp_path / "run", **QUIET).test(model, datamodule=lesion_data(lesions))
    tested = Path(model.to_torch(tmp_path / "tested")).stat().st_size
    fresh = Path(MVFA.load_from_checkpoint(finished).to_torch(tmp_path / "fresh")).stat().st_size
    assert abs(tested - fresh) < 2_000
