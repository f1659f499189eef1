"""What every method promises, the next one included: it is tested by existing."""

import copy
import gc
import io
import weakref
from collections import Counter
from pathlib import Path

import pytest
import torch
from anomalib.callbacks import ModelCheckpoint
from anomalib.engine import Engine
from lightning.pytorch import Callback, Trainer
from tiny import BACKBONE, METHODS, Training, lesion_data, small

from anomalib_medclip import Inferencer
from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.clip.towers import TextTower
from anomalib_medclip.components.threshold import learnt_from
from anomalib_medclip.errors import BackboneMismatchError, CheckpointError, NotReadyError
from anomalib_medclip.models.mvfa import MVFA


class StopAt(Callback):
    """Ends training after a step, as early stopping and a time limit do."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *_args):
        trainer.should_stop = trainer.global_step >= self.step


class Epochs(Callback):
    """Remembers all that was learnt by the end of each epoch."""

    def __init__(self):
        self.states = []

    def on_train_epoch_end(self, _trainer, model):
        state = model.state_dict()
        self.states.append({n: v.clone() for n, v in state.items() if ".clip." not in n})


class Encoded(Callback):
    """Counts the images that enter the frozen tower in each epoch, validation included."""

    def __init__(self):
        self.counts = []

    def on_fit_start(self, _trainer, model):
        embed = model.model.clip._embed

        def counted(images):
            self.counts[-1] += len(images)
            return embed(images)

        model.model.clip._embed = counted

    def on_train_epoch_start(self, *_args):
        self.counts.append(0)

    def on_fit_end(self, _trainer, model):
        del model.model.clip._embed


class Work(Callback):
    """Counts in each epoch, validation included, how often frozen blocks run and texts are read."""

    def __init__(self, monkeypatch):
        self.epochs, features = [], TextTower.features
        self.now = Counter()

        def counted(*args, **kwargs):
            self.now["text"] += 1
            return features(*args, **kwargs)

        monkeypatch.setattr(TextTower, "features", counted)

    def on_fit_start(self, _trainer, model):
        for number, block in enumerate(model.model.clip.visual.transformer.resblocks, start=1):
            block.register_forward_hook(lambda *_, number=number: self.now.update([number]))

    def on_train_epoch_start(self, *_args):
        self.now = Counter()
        self.epochs.append(self.now)

    def on_fit_end(self, *_args):
        self.now = Counter()


class Gradients(Callback):
    """Remembers loss and gradients of every step, and the scores of validation."""

    def __init__(self):
        self.losses, self.gradients, self.scores = [], [], []

    def on_validation_batch_end(self, _trainer, _model, outputs, *_args):
        self.scores.append(outputs.pred_score.clone())

    def on_train_batch_end(self, _trainer, _model, outputs, *_args):
        self.losses.append(outputs["loss"].detach())

    def on_before_optimizer_step(self, _trainer, model, _optimizer):
        found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        self.gradients.append(found)


def train(method, lesions, home, epochs=None, trainer=None, data=None, **options):
    usual = Training.of(method)
    model = small(method, **options)
    engine = Engine(
        default_root_dir=home,
        accelerator="cpu",
        max_epochs=epochs or usual.epochs,
        enable_progress_bar=False,
        **(trainer or {}),
    )
    datamodule = lesion_data(lesions, **{"train_batch_size": usual.batch, **(data or {})})
    metrics = engine.train(model, datamodule=datamodule)[0]
    return model, engine, datamodule, metrics


@pytest.fixture(scope="session", params=METHODS, ids=lambda method: method.__name__)
def trained(request, lesions, tmp_path_factory):
    """A method trained on support images with masks: model, engine, datamodule, metrics."""
    return train(request.param, lesions, tmp_path_factory.mktemp(request.param.__name__))


@pytest.fixture(scope="session")
def method(trained):
    return type(trained[0])


@pytest.fixture
def images(trained):
    _, _, datamodule, _ = trained
    items = [datamodule.test_data[i] for i in range(len(datamodule.test_data))]
    return torch.stack([item.image for item in items]).as_subclass(torch.Tensor)


def checkpoint(engine):
    return engine.trainer.checkpoint_callback.best_model_path


def test_only_the_adapters_learn(trained, method):
    model = trained[0]
    fresh = small(method)
    before = dict(fresh.named_parameters())
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed
    assert not any(".clip." in name for name in changed)
    assert changed <= {n for n, p in model.named_parameters() if p.requires_grad}


def test_it_learns(trained):
    model, _, datamodule, metrics = trained
    assert {"image_AUROC", "pixel_AUROC", "image_F1Score", "pixel_F1Score"} <= set(metrics)
    assert metrics["pixel_AUROC"] > 0.8
    assert datamodule.object_name == model.object_name == "phantom"


def test_scores_and_maps_lie_in_the_unit_interval(trained, images):
    result = trained[0](images)
    for values in (result.pred_score, result.anomaly_map):
        assert values.isfinite().all()
        assert values.min() >= 0
        assert values.max() <= 1
    assert result.anomaly_map.shape == (len(images), 32, 32)
    assert result.pred_score.shape == (len(images),)
    assert len(result.pred_score.unique()) == len(images), "clipping makes ties"


def test_an_image_scores_the_same_alone_and_in_a_batch(trained, images):
    together = trained[0](images)
    alone = [trained[0](image[None]) for image in images]
    scores = torch.cat([one.pred_score for one in alone])
    maps = torch.cat([one.anomaly_map for one in alone])
    torch.testing.assert_close(scores, together.pred_score, atol=1e-5, rtol=0)
    torch.testing.assert_close(maps, together.anomaly_map, atol=1e-5, rtol=0)


def test_metrics_do_not_depend_on_the_evaluation_batch(trained, lesions):
    model, engine, _, metrics = trained
    for size in (1, 16):
        again = engine.test(model, datamodule=lesion_data(lesions, eval_batch_size=size))[0]
        assert again["image_AUROC"] == pytest.approx(metrics["image_AUROC"], abs=1e-6)
        assert again["pixel_AUROC"] == pytest.approx(metrics["pixel_AUROC"], abs=1e-5)


def test_a_checkpoint_holds_no_clip_and_no_optimiser(trained):
    model, engine, *_ = trained
    state = torch.load(checkpoint(engine), weights_only=True)
    assert not any(".clip." in name for name in state["state_dict"])
    assert state["optimizer_states"] == []
    assert any(n.startswith("model.") and ".text" in n for n in state["state_dict"])
    assert state["anomalib_medclip"]["fingerprint"] == model.model.clip.fingerprint


def test_a_checkpoint_restores_the_same_scores(trained, method, images):
    model, engine, *_ = trained
    restored = method.load_from_checkpoint(checkpoint(engine)).eval()
    assert restored.object_name == "phantom"
    with torch.no_grad():
        for mine, theirs in zip(model.eval()(images), restored(images), strict=True):
            assert torch.equal(mine, theirs)


def test_another_backbone_is_refused(trained, method):
    engine = trained[1]
    other = small(method, backbone_seed=1)
    state = torch.load(checkpoint(engine), weights_only=True)
    with pytest.raises(
        BackboneMismatchError,
        match="trained on another backbone: custom CLIP, random seed 0, 32 px",
    ):
        other.on_load_checkpoint(state)


def test_a_missing_weight_is_an_error(trained, method):
    state = torch.load(checkpoint(trained[1]), weights_only=True)
    name = next(n for n in state["state_dict"] if n.endswith("weight"))
    del state["state_dict"][name]
    with pytest.raises(CheckpointError, match=f"does not fit this model, first at {name}"):
        small(method).on_load_checkpoint(state)


def test_a_checkpoint_of_another_package_is_refused(trained, method):
    state = torch.load(checkpoint(trained[1]), weights_only=True)
    del state["anomalib_medclip"]
    with pytest.raises(CheckpointError, match="not made by a model of anomalib-medclip"):
        small(method).on_load_checkpoint(state)


def test_the_file_that_does_not_fit_is_named(trained, method, lesions):
    _, engine, *_ = trained
    other = Engine(default_root_dir=engine.trainer.default_root_dir, accelerator="cpu")
    with pytest.raises(BackboneMismatchError, match=r"weights.lightning.model.ckpt was trained"):
        other.test(
            small(method, backbone_seed=1),
            datamodule=lesion_data(lesions),
            ckpt_path=checkpoint(engine),
        )


@pytest.mark.parametrize(
    ("method", "early"),
    [
        (MVFA, {"max_steps": 7}),
        (MVFA, {"callbacks": [StopAt(5)]}),
        *((method, {"max_epochs": 2}) for method in METHODS),
    ],
    ids=lambda given: getattr(given, "__name__", None) or next(iter(given)),
)
def test_thresholds_are_found_however_training_ends(early, method, lesions, tmp_path):
    model, engine, *_ = train(
        method, lesions, tmp_path, epochs=early.pop("max_epochs", 9), trainer=early
    )
    assert model.post_processor.image_threshold.isfinite()
    state = torch.load(checkpoint(engine), weights_only=True)
    saved = [v for n, v in state["state_dict"].items() if n.endswith("_image_threshold")]
    assert saved
    assert all(value.isfinite() for value in saved)


def test_training_twice_is_as_good_as_training_anew(method, lesions, tmp_path):
    """What is kept of the support must be of the last adapters, not of those of the first run."""
    model, _, data, _ = train(method, lesions, tmp_path, epochs=1)
    before = {n: v.clone() for n, v in model.state_dict().items() if ".clip." not in n}
    Engine(accelerator="cpu", default_root_dir=tmp_path, max_epochs=1).fit(model, datamodule=data)
    kept = [n for n in before if "memory_bank" in n or "scales" in n]
    changed = {n for n, v in model.state_dict().items() if n in before and not v.equal(before[n])}
    assert changed >= set(kept)


def test_a_checkpoint_of_mid_training_is_completed_or_refused(method, lesions, tmp_path):
    """Its adapters are younger than what was kept of the support, if anything was."""
    keep_all = ModelCheckpoint(dirpath=tmp_path / "all", save_top_k=-1, filename="{epoch}")
    train(method, lesions, tmp_path, epochs=2, trainer={"callbacks": [keep_all]})
    path = tmp_path / "all" / "epoch=0.ckpt"
    alone, model = Engine(accelerator="cpu", default_root_dir=tmp_path), small(method)
    options = {"data_path": lesions / "images" / "normal", "ckpt_path": path}
    if hasattr(model.model, "fit_support"):
        with pytest.raises(NotReadyError, match="saved in the middle of training"):
            alone.predict(model, **options)
    else:
        assert alone.predict(model, **options)
    engine = Engine(accelerator="cpu", default_root_dir=tmp_path, enable_progress_bar=False)
    metrics = engine.test(small(method), datamodule=lesion_data(lesions), ckpt_path=path)[0]
    assert metrics["pixel_AUROC"] > 0.5


def test_a_seed_repeats_a_run(trained, method, lesions, tmp_path):
    first = train(method, lesions, tmp_path / "first", epochs=1)[0].state_dict()
    torch.manual_seed(12345)  # whatever happened before does not count
    again = train(method, lesions, tmp_path / "again", epochs=1)[0].state_dict()
    other = train(method, lesions, tmp_path / "other", epochs=1, seed=5)[0].state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_the_user_chooses_the_epochs(trained, method):
    engine = trained[1]
    assert engine.trainer.max_epochs == Training.of(method).epochs
    assert engine.trainer.current_epoch == Training.of(method).epochs
    assert method.default_epochs not in (Training.of(method).epochs, 1000)


def test_labels_alone_train_it_too(method, lesions, tmp_path):
    model, _, datamodule, metrics = train(
        method, lesions, tmp_path, epochs=1, data={"mask_column": None}
    )
    assert not datamodule.has_masks
    assert not model.model.has_masks
    assert set(metrics) == {"image_AUROC", "image_F1Score"}
    result = model(torch.rand(2, 3, 32, 32))
    assert result.anomaly_map.shape == (2, 32, 32)


def test_one_image_of_each_class_is_enough(method, lesions, tmp_path):
    """Thresholds come from the two; the normal one has no other to be compared with."""
    model, _, datamodule, _ = train(
        method, lesions, tmp_path, epochs=1, data={"k_shot": 1, "val_ratio": 0.1}
    )
    assert datamodule.validates_on_support
    assert model.post_processor.image_threshold.isfinite()
    assert model.threshold_from == learnt_from(model.wants_abnormal)


def test_every_test_image_has_a_picture_and_a_score(trained):
    _, engine, datamodule, _ = trained
    home = Path(engine.trainer.default_root_dir)
    pictures = list((home / "images").rglob("*.png"))
    count = len(datamodule.test_data)
    assert len(pictures) == count
    lines = (home / "test_scores.csv").read_text().splitlines()
    assert lines[0] == "image,pred_score,pred_label,gt_label,raw_score"
    assert len(lines) == count + 1
    assert "image_AUROC" in (home / "test_metrics.json").read_text()


def test_the_best_epoch_by_validation_is_kept(method, lesions, tmp_path, monkeypatch):
    def second_is_best(trainer):
        return {"val_image_AUROC": torch.tensor(float(trainer.current_epoch == 1))}

    monkeypatch.setattr(Trainer, "callback_metrics", property(second_is_best))
    epochs = Epochs()
    model, engine, *_ = train(
        method,
        lesions,
        tmp_path,
        epochs=3,
        epoch_choice="validation",
        trainer={"callbacks": [epochs]},
    )
    _, best, last = epochs.states
    assert any(not best[name].equal(last[name]) for name in best)
    for kept in (model, method.load_from_checkpoint(checkpoint(engine))):
        state = kept.state_dict()
        assert [name for name in best if not best[name].equal(state[name])] == []


def test_no_image_is_encoded_twice(method, lesions, tmp_path):
    """A method that makes new images in every epoch encodes those, and none of validation."""
    seen = Encoded()
    _, _, datamodule, _ = train(
        method,
        lesions,
        tmp_path,
        epochs=3,
        epoch_choice="validation",
        trainer={"callbacks": [seen]},
    )
    trained, validated = len(datamodule.train_data), len(datamodule.val_data)
    first, *later = seen.counts
    assert first >= trained + validated
    assert set(later) == {0 if len(method.augmentations) > 1 else trained}


def test_later_epochs_need_no_frozen_block_nor_text_that_cannot_have_changed(
    method, lesions, tmp_path, monkeypatch
):
    """Adapters that feed back need the blocks after them; new images need all, prompts the text."""
    work = Work(monkeypatch)
    model, engine, datamodule, _ = train(
        method,
        lesions,
        tmp_path,
        epochs=3,
        epoch_choice="validation",
        trainer={"callbacks": [work]},
    )
    steps = engine.trainer.num_training_batches
    first, levels = model.model.levels[0], range(1, model.model.clip.depth + 1)
    assert set(work.epochs[0]) >= set(levels), "the first epoch encodes"
    learn = isinstance(model.model.prompts, torch.nn.Module)
    for blocks in work.epochs[1:]:
        texts = blocks.pop("text", 0)
        assert texts == (steps + 1 if learn else 0), "once a step, and once for validation"
        if len(method.augmentations) == 1:
            assert set(blocks.values()) == {steps}, "validation images are not encoded again"
        elif hasattr(model.model, "adapters"):
            assert set(blocks) == set(levels[first:])
        else:
            assert not blocks
    assert len(datamodule.val_data) > 1


def test_images_learnt_from_are_not_encoded_again_to_find_the_threshold(method, lesions, tmp_path):
    """A method that makes new images of them in every epoch has not seen themselves."""
    seen = Encoded()
    _, _, data, _ = train(
        method,
        lesions,
        tmp_path,
        epochs=2,
        trainer={"callbacks": [seen]},
        data={"val_ratio": 0.2},
        cross_fit=False,
    )
    assert data.validates_on_support
    makes_new = len(method.augmentations) == 1
    assert seen.counts[0] >= len(data.train_data)
    assert seen.counts[1] == (len(data.train_data) + len(data.val_data) if makes_new else 0)


def test_a_loaded_model_holds_no_text_tower_but_one_that_every_image_needs(
    trained, method, lesions, monkeypatch
):
    built, load = [], Backbone.load

    def loaded(backbone):
        found = load(backbone)
        built.append(weakref.ref(found.clip.transformer))
        return found

    monkeypatch.setattr(Backbone, "load", loaded)
    path = checkpoint(trained[1])
    model, inferencer = method.load_from_checkpoint(path), Inferencer(path)
    assert 0 <= inferencer.predict(lesions / "images" / "normal" / "0.png").score <= 1
    gc.collect()
    held = sum(text() is not None for text in built)
    needed = hasattr(model.model, "text_tower")
    assert held == (2 if needed else 0)
    embeddings = [part for part in model.modules() if isinstance(part, torch.nn.Embedding)]
    assert bool(embeddings) is needed
    assert len(built) == (4 if needed else 2), "the text tower is read only where it is kept"


@pytest.mark.parametrize(
    ("method", "cache", "allowed"),
    [(MVFA, "float16", 5e-3), *((method, "float32", 1e-6) for method in METHODS)],
)
def test_the_cache_changes_no_loss_no_gradient_and_no_score(
    cache, allowed, method, lesions, tmp_path
):
    """In the second epoch everything is read; rounded features lead training elsewhere by then."""
    runs = []
    for kept in ("off", cache):
        runs.append(Gradients())
        train(
            method,
            lesions,
            tmp_path / kept,
            epochs=2,
            cache=kept,
            epoch_choice="validation",
            trainer={"callbacks": [runs[-1]]},
            data={"train_batch_size": 8},
        )
    without, cached = runs
    batches = len(without.losses) // 2
    for step in (0, batches) if cache == "float32" else (0,):
        allow = {"atol": allowed, "rtol": allowed}
        torch.testing.assert_close(without.losses[step], cached.losses[step], **allow)
        expected, found = without.gradients[step], cached.gradients[step]
        assert expected.keys() == found.keys()
        for name, gradient in expected.items():
            assert (gradient - found[name]).norm() <= allowed * max(1, gradient.norm())
    if cache == "float32":
        torch.testing.assert_close(without.scores, cached.scores, atol=1e-4, rtol=0)


def test_what_data_of_others_augment_by_chance_is_not_kept(method, lesions, tmp_path):
    from anomalib.data import Folder
    from torchvision.transforms.v2 import RandomHorizontalFlip

    datamodule = Folder(
        name="other", root=lesions, normal_dir="images/normal", abnormal_dir="images/abnormal",
        train_batch_size=4, eval_batch_size=4, num_workers=0,
        train_augmentations=RandomHorizontalFlip(),
    )  # fmt: skip
    seen = Encoded()
    engine = Engine(
        default_root_dir=tmp_path, accelerator="cpu", max_epochs=2, callbacks=[seen],
        limit_val_batches=0, enable_progress_bar=False,
    )  # fmt: skip
    words = {"object_name": "square"} if method.names_the_object else {}
    engine.fit(small(method, **words), datamodule=datamodule)
    assert seen.counts[1] >= len(datamodule.train_data) > 0


def test_it_refuses_to_score_before_it_is_ready(method):
    with pytest.raises(NotReadyError, match="checkpoint"):
        small(method)(torch.rand(1, 3, 32, 32))


def test_data_that_do_not_say_what_they_show_need_an_object_name(method, lesions, tmp_path):
    from anomalib.data import Folder

    datamodule = Folder(
        name="other", root=lesions, normal_dir="images/normal", abnormal_dir="images/abnormal",
        train_batch_size=4, eval_batch_size=4, num_workers=0,
    )  # fmt: skip
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", max_epochs=1)
    if not method.names_the_object:
        assert engine.train(small(method), datamodule=datamodule)
        return
    with pytest.raises(NotReadyError, match=r"--model\.object_name"):
        engine.train(small(method), datamodule=datamodule)


def test_its_options_are_plain_data(method):
    model = small(method)
    torch.save(dict(model.hparams), buffer := io.BytesIO())
    buffer.seek(0)
    assert torch.load(buffer, weights_only=True)["backbone"] == BACKBONE
    assert copy.deepcopy(model).model.clip.fingerprint == model.model.clip.fingerprint


def test_a_traced_graph_gives_the_same_numbers(trained, images):
    model = copy.deepcopy(trained[0]).eval()
    batch = torch.export.Dim("batch")
    with torch.no_grad():
        traced = torch.export.export(
            model, (images[:2],), dynamic_shapes=({0: batch},), strict=False
        ).module()
        for mine, theirs in zip(model(images[:3]), traced(images[:3]), strict=True):
            # Fusion stretches each branch by its range, and rounding with it.
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)
