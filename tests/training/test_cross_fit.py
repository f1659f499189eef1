import copy
import io
import logging
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from anomalib.engine import Engine
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping
from tiny import METHODS, lesion_data, small, write_lesions

from anomalib_medclip.clip.backbone import without_clip
from anomalib_medclip.components.threshold import CROSS_FITTED, VALIDATION, learnt_from
from anomalib_medclip.data.few_shot import parts_by_patient, patients
from anomalib_medclip.models.mediclip import lightning_model
from anomalib_medclip.training import cross_fit
from anomalib_medclip.training.cross_fit import CrossFit
from anomalib_medclip.training.datamodule_view import DatamoduleView

(MEDICLIP,) = (one for one in METHODS if one.__name__ == "MediCLIP")


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Pictures of fifteen patients, so that some are left beside the support."""
    return write_lesions(tmp_path_factory.mktemp("many"), count=30).parent


@pytest.fixture(scope="module", params=METHODS, ids=lambda method: method.__name__)
def method(request):
    return request.param


def only_support(folder, **options):
    """Data that leave no image for validation."""
    return lesion_data(folder, **{"k_shot": 3, "val_ratio": 0.01, "train_batch_size": 8, **options})


def fit(model, home, data, **trainer):
    engine = Engine(
        default_root_dir=home, accelerator="cpu", enable_progress_bar=False,
        **{"max_epochs": 2, **trainer},
    )  # fmt: skip
    engine.fit(model, datamodule=data)
    return engine


def train(method, folder, home, data=None, trainer=None, **options):
    data = data or only_support(folder)
    model = small(method, **options)
    return model, fit(model, home, data, **(trainer or {})).trainer, data


@pytest.fixture(scope="module")
def fitted(method, many, tmp_path_factory):
    return train(method, many, tmp_path_factory.mktemp("fitted"), cross_fit=True)


@pytest.fixture(scope="module")
def whole(many, tmp_path_factory):
    """MediCLIP, cross-fitted once for all who look at it, and all that was said meanwhile."""
    said, logger = [], logging.getLogger("anomalib_medclip")
    handler, level = logging.Handler(), logger.level
    handler.emit = lambda record: said.append(record.getMessage())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        trained = train(MEDICLIP, many, tmp_path_factory.mktemp("whole"), cross_fit=True)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    return *trained, said


@pytest.fixture
def in_memory_and_reopened(whole):
    """The model that was cross-fitted, to go on with, and what its file gives."""
    file = whole[1].checkpoint_callback.best_model_path
    return copy.deepcopy(whole[0]), MEDICLIP.load_from_checkpoint(file)


def held_out(trainer):
    (callback,) = (one for one in trainer.callbacks if isinstance(one, CrossFit))
    return callback.held_out


def everything_of_its_patients(data):
    """Paths of the support, and of the other images that its patients have."""
    table = data.list_images()
    own = patients(table).isin(patients(data.support_data.samples))
    return set(table.loc[own, "image_path"])


def assert_same_scores(trainer, other):
    there, here = held_out(trainer), held_out(other)
    assert there.keys() == here.keys()
    assert all(torch.equal(there[path]["pred_score"], here[path]["pred_score"]) for path in there)


class Scores(Callback):
    def __init__(self):
        self.found = {}

    def on_validation_batch_end(self, trainer, pl_module, outputs, *_):
        self.found |= dict(zip(outputs.image_path, outputs.pred_score.tolist(), strict=True))


@pytest.mark.daily_for(method="MVFA")
def test_each_support_image_is_scored_by_a_model_that_never_saw_its_patient(
    fitted, method, many, tmp_path
):
    """Namely by the very model that training on the others alone gives."""
    _, trainer, data = fitted
    found = held_out(trainer)
    assert set(found) == everything_of_its_patients(data)
    fold = data.support_folds(cross_fit.FOLDS)[0]
    unseen = set(patients(fold.val_data.samples))
    assert unseen.isdisjoint(patients(fold.support_data.samples))
    scores = Scores()
    engine = Engine(
        default_root_dir=tmp_path, accelerator="cpu", max_epochs=2, enable_progress_bar=False,
        callbacks=[scores],
    )  # fmt: skip
    engine.fit(small(method, cross_fit=False), datamodule=fold)
    assert unseen.isdisjoint(patients(fold.train_data.samples))
    assert len(scores.found) >= 2
    for path, score in scores.found.items():
        assert found[path]["pred_score"].item() == pytest.approx(score, abs=1e-6)


@pytest.mark.daily_for(method="MVFA")
def test_the_threshold_is_that_of_the_scores_held_out(fitted):
    model, trainer, data = fitted
    assert model.threshold_from == CROSS_FITTED
    truth = data.support_data.samples.set_index("image_path")["label_index"]
    of_all = {path: one["pred_score"].item() for path, one in held_out(trainer).items()}
    found = {path: of_all[path] for path in truth.index}
    assert len(found) < len(of_all)
    called = pd.Series(found) > model.post_processor.image_threshold.item()
    rates = model.post_processor.own_rates
    assert called[truth[called.index] == 1].mean() == pytest.approx(rates["sensitivity"])
    assert (~called[truth[called.index] == 0]).mean() == pytest.approx(rates["specificity"])
    assert model.post_processor.image_max.item() == pytest.approx(max(found.values()))


@pytest.mark.daily_for(method="MVFA")
def test_what_is_learnt_is_the_same_without(fitted, method, many, tmp_path):
    plain, _, _ = train(method, many, tmp_path, cross_fit=False)
    assert plain.threshold_from == learnt_from(method.wants_abnormal)
    ours, theirs = (without_clip(model.state_dict()) for model in (fitted[0], plain))
    learnt = [name for name in ours if not name.startswith("post_processor")]
    assert learnt
    assert all(torch.equal(ours[name], theirs[name]) for name in learnt)
    found, other = (one["post_processor._image_threshold"] for one in (ours, theirs))
    assert found != other or not method.learns, "else each is scored without itself anyway"


@pytest.mark.daily_for(method="MVFA")
def test_no_part_chooses_the_epoch_of_the_model_that_scores_it(fitted, method, many, tmp_path):
    options = {"cross_fit": True, "epoch_choice": "validation"}
    _, chosen, _ = train(method, many, tmp_path, **options)
    assert fitted[0].hparams["epoch_choice"] == "last"
    assert_same_scores(chosen, fitted[1])


@pytest.mark.daily_for(method="MVFA")
def test_an_export_holds_no_paths_of_support_images(fitted, many):
    torch.save({"model": fitted[0]}, buffer := io.BytesIO())
    assert str(many).encode() not in buffer.getvalue()


@pytest.mark.parametrize(("limit", "done"), [(0.0, False), (1e6, True)])
def test_by_default_it_is_done_where_it_is_quick(limit, done, many, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(cross_fit, "AFFORDABLE", limit)
    with caplog.at_level(logging.WARNING, logger="anomalib_medclip"):
        model, trainer, _ = train(MEDICLIP, many, tmp_path)
    assert bool(held_out(trainer)) == done
    assert (model.threshold_from == CROSS_FITTED) == done
    assert ("--model.cross_fit true" in caplog.text) != done


def test_what_it_will_cost_is_said_beforehand(whole):
    *_, said = whole
    (told,) = (i for i, text in enumerate(said) if "about" in text and "s more" in text)
    assert told < next(i for i, text in enumerate(said) if "scoring part 1 of 3" in text)


@pytest.mark.parametrize("asked", [True, None])
def test_a_single_patient_a_class_cannot_be_left_out(asked, many, tmp_path, monkeypatch, caplog):
    """Nor is it said that it could, where nobody asks and it would take long."""
    monkeypatch.setattr(cross_fit, "AFFORDABLE", 0.0)
    data = only_support(many, k_shot=1)
    with caplog.at_level(logging.WARNING, logger="anomalib_medclip"):
        model, _, _ = train(MEDICLIP, many, tmp_path, data, cross_fit=asked)
    assert "too few patients to leave some out" in caplog.text
    assert "--model.cross_fit true" not in caplog.text
    assert model.threshold_from == learnt_from(wants_abnormal=False)
    assert model.post_processor.image_threshold.isfinite()


ENDINGS = {
    "within the first epoch": {"max_steps": 1, "max_epochs": -1},
    "within the second epoch": {"max_steps": 4, "max_epochs": -1},
    "after a validation": {"check_val_every_n_epoch": 2},
    "by a loss that stands still": {
        "callbacks": [EarlyStopping("train_loss", patience=0, min_delta=1e6)], "max_epochs": 9
    },
    "by a validation that stands still": {
        "callbacks": [EarlyStopping("val_image_AUROC", patience=0, min_delta=2.0)], "max_epochs": 9
    },
    "in half precision": {"precision": "bf16-mixed"},
}  # fmt: skip


def is_cross_fitted(model, trainer):
    """Whether the threshold is the one of the scores held out, in the file as well."""
    found = held_out(trainer)
    kept = torch.load(trainer.checkpoint_callback.best_model_path, weights_only=True)
    top = max(one["pred_score"].float().item() for one in found.values())
    return (
        model.threshold_from == kept["anomalib_medclip"]["threshold_from"] == CROSS_FITTED
        and kept["state_dict"]["post_processor.image_max"].item() == pytest.approx(top)
        and kept["state_dict"]["post_processor._image_threshold"].isfinite().item()
    )


@pytest.mark.parametrize(
    ("choice", "ending"),
    [
        *(("last", ending) for ending in list(ENDINGS)[1:]),  # the first by default, see below
        *(("validation", ending) for ending in list(ENDINGS)[:3]),
    ],
)
def test_however_training_ends_the_threshold_is_of_scores_held_out(ending, choice, many, tmp_path):
    trainer = copy.deepcopy(ENDINGS[ending])
    options = {"cross_fit": True, "epoch_choice": choice}
    model, trainer, data = train(MEDICLIP, many, tmp_path, only_support(many), trainer, **options)
    assert set(held_out(trainer)) == everything_of_its_patients(data)
    assert is_cross_fitted(model, trainer)


def test_by_default_a_training_within_one_epoch_ends_well(many, tmp_path):
    model, trainer, _ = train(MEDICLIP, many, tmp_path, trainer=ENDINGS["within the first epoch"])
    assert is_cross_fitted(model, trainer)


def test_copies_are_trained_no_longer_than_the_model_was(many, tmp_path, monkeypatch):
    steps, drawn = [], []
    monkeypatch.setattr(
        MEDICLIP, "on_train_end", lambda module: steps.append(module.global_step), raising=False
    )
    drawing = lightning_model.contact_sheet
    monkeypatch.setattr(
        lightning_model, "contact_sheet", lambda *args: drawn.append(args) or drawing(*args)
    )
    data = only_support(many, train_batch_size=1)
    train(MEDICLIP, many, tmp_path, data, {"max_steps": 4, "max_epochs": -1}, cross_fit=True)
    *apart, whole = steps
    assert whole == 4
    assert len(drawn) == 1, "what training looks like is drawn for the model alone"
    assert [most_steps(fold) for fold in data.support_folds(3)] == apart


def most_steps(fold):
    """A share of four steps, and at most two epochs, as the model's, of one normal image a step."""
    labels = fold.support_data.samples["label_index"]
    return min(round(4 * len(labels) / 6), 2 * (labels == 0).sum())


def test_a_model_that_was_trained_before_has_seen_everybody(
    whole, in_memory_and_reopened, tmp_path, caplog
):
    for number, seen in enumerate(in_memory_and_reopened):
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="anomalib_medclip"):
            engine = fit(seen, tmp_path / str(number), whole[2], max_epochs=1)
        assert "the model was trained before, and may have seen any patient" in caplog.text
        assert not held_out(engine.trainer)
        assert seen.threshold_from == learnt_from(wants_abnormal=False)


def test_a_training_that_goes_on_is_cross_fitted_as_one_that_was_never_stopped(
    whole, many, tmp_path
):
    data = only_support(many)
    _, half, _ = train(MEDICLIP, many, tmp_path / "half", data, {"max_epochs": 1}, cross_fit=False)
    model = small(MEDICLIP, cross_fit=True)
    engine = Engine(
        default_root_dir=tmp_path / "on", accelerator="cpu", enable_progress_bar=False, max_epochs=2
    )
    engine.fit(model, datamodule=data, ckpt_path=half.checkpoint_callback.best_model_path)
    assert_same_scores(whole[1], engine.trainer)


def test_a_later_validation_on_the_support_changes_no_threshold(
    whole, in_memory_and_reopened, tmp_path
):
    threshold = whole[0].post_processor.image_threshold
    for number, one in enumerate(in_memory_and_reopened):
        engine = Engine(default_root_dir=tmp_path / str(number), accelerator="cpu")
        engine.validate(one, datamodule=whole[2])
        assert one.post_processor.image_threshold == threshold
        assert one.threshold_from == CROSS_FITTED


def test_a_later_validation_on_other_images_finds_a_threshold_and_says_so(
    in_memory_and_reopened, lesions, tmp_path
):
    model, _ = in_memory_and_reopened
    before = model.post_processor.image_threshold.clone()
    other = lesion_data(lesions)
    Engine(default_root_dir=tmp_path / "other", accelerator="cpu").validate(model, datamodule=other)
    assert not other.validates_on_support
    assert model.threshold_from == VALIDATION
    assert model.post_processor.image_threshold != before


def test_without_a_validation_there_is_nothing_to_find():
    data = DatamoduleView(SimpleNamespace(validates_on_support=True, support_folds=list))
    for limit in (0, 1.0):
        trainer = SimpleNamespace(limit_val_batches=limit)
        assert CrossFit(asked=True)._is_wanted(trainer, data) is bool(limit)


tables = st.lists(
    st.tuples(st.sampled_from(["", "a", "b", "c", "d", "e", "f"]), st.integers(0, 1)),
    min_size=2, max_size=24,
)  # fmt: skip


@given(rows=tables, seed=st.integers(0, 3), labels=st.sampled_from([(0,), (0, 1)]))
def test_parts_of_the_support_share_no_patient_and_leave_every_class(rows, seed, labels):
    rows = [row for row in rows if row[1] in labels]
    if set(labels) - {label for _, label in rows}:
        return
    support = pd.DataFrame(
        {
            "image_path": [f"{index}.png" for index in range(len(rows))],
            "label_index": [label for _, label in rows],
            "group": [group for group, _ in rows],
        },
        index=range(5, 5 + len(rows)),
    )
    parts = parts_by_patient(support, 3, seed, labels)
    if not parts:
        return
    paths = pd.concat([part["image_path"] for part in parts])
    assert sorted(paths) == sorted(support["image_path"])
    seen = [set(patients(part)) for part in parts]
    assert sum(map(len, seen)) == len(set.union(*seen))
    for part in parts:
        assert set(support.drop(part.index)["label_index"]) == set(labels)


def test_enough_patients_give_as_many_parts_as_asked_for():
    support = pd.DataFrame(
        {
            "image_path": [f"{index}.png" for index in range(8)],
            "label_index": [0, 0, 0, 0, 1, 1, 1, 1],
            "group": "",
        }
    )
    parts = parts_by_patient(support, 3, seed=0)
    assert sorted(map(len, parts)) == [2, 3, 3]
