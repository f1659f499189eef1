"""What a method does while it is trained."""

from typing import Any
from unittest.mock import patch

import torch
from anomalib.data import Folder
from lightning.pytorch import Trainer

from anomalib_medclip.components.threshold import learnt_from
from anomalib_medclip.errors import ConfigError, NotReadyError
from anomalib_medclip.testing.method_case import MethodCase
from anomalib_medclip.testing.promises.promise import (
    differing,
    hold,
    learnt,
    of_learning,
    of_option,
    refused,
)
from anomalib_medclip.testing.promises.watching import (
    Epochs,
    Fits,
    Halves,
    Steps,
    StopAt,
)
from anomalib_medclip.training.checkpoints import read_checkpoint
from anomalib_medclip.training.datamodule_view import DatamoduleView


def learns(case: MethodCase) -> None:
    """It finds the lesions that it was shown: pixel AUROC above 0.8 on other patients."""
    metrics, model = case.trained.metrics, case.trained.model
    names = {"image_AUROC", "pixel_AUROC", "image_F1Score", "pixel_F1Score"}
    hold(names <= metrics.keys(), f"figures are missing: {sorted(names - metrics.keys())}")
    hold(metrics["pixel_AUROC"] > 0.8, f"pixel AUROC is {metrics['pixel_AUROC']:.3f}")
    hold(model.object_name == case.trained.data.object_name, "it was told another name")


def changes_no_frozen_weight(case: MethodCase) -> None:
    """Training changes what takes a gradient, and nothing of CLIP."""
    model, before = case.trained.model, dict(case.small().named_parameters())
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    words = f"{len(changed)} parameters have changed"
    hold(bool(changed) is case.method.learns, words)
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    hold(not changed & frozen, f"frozen weights have changed: {sorted(changed & frozen)[:1]}")
    hold(not any(".clip." in name for name in changed), "weights of CLIP have changed")


def trains_as_long_as_asked(case: MethodCase) -> None:
    """The user's number of epochs is trained, and without one the method's own."""
    trainer: Any = case.trained.engine.trainer
    hold(trainer.current_epoch == case.epochs, f"{trainer.current_epoch} epochs were trained")
    with case.home() as home:
        engine = case.engine(home, callbacks=[StopAt(1)])
        engine.fit(case.small(), datamodule=case.data())
        own, asked = case.method.default_epochs, engine.trainer.max_epochs
        hold(asked == own, f"without being asked it would train {asked} epochs, not {own}")


def repeats_a_run_by_its_seed(case: MethodCase) -> None:
    """A seed gives the same weights to the bit, whatever happened before; another one does not."""
    with case.home() as home:
        first = learnt(case.fit(home / "first", epochs=1).model)
        torch.manual_seed(12345)
        again = learnt(case.fit(home / "again", epochs=1).model)
        other = learnt(case.fit(home / "other", epochs=1, seed=5).model)
    different = differing(first, again)
    hold(not different, f"a second run has other weights: {different[:1]}")
    differs = bool(differing(first, other))
    hold(differs is case.method.learns, f"that another seed gives other weights is {differs}")


@of_learning
def learns_from_a_batch_as_from_its_halves(case: MethodCase) -> None:
    """A batch's gradient is the mean of those of its halves, so that processes may divide it."""
    found, data = Halves(), case.data(train_batch_size=2)
    with case.home() as home:
        trainer = {"callbacks": [found], "max_steps": 1, "limit_val_batches": 0}
        case.fit(home, epochs=1, trainer=trainer, data=data)
    apart = float((found.of_halves - found.whole).norm() / found.whole.norm())
    hold(apart < 1e-4, f"it is {apart:.4f} of its length away")


def learns_the_same_whatever_is_tested(case: MethodCase) -> None:
    """Other test images give the same weights, memory and thresholds to the bit."""
    found = []
    for asked in (None, 1):
        with case.home() as home:
            model = case.small()
            data = case.data() if asked is None else case.data_tested_on(asked)
            case.engine(home, max_epochs=1).fit(model, datamodule=data)
            found.append(learnt(model))
    different = differing(*found)
    hold(not different, f"with other test images it has learnt other {different[:1]}")


def finds_thresholds_when_steps_end_training(case: MethodCase) -> None:
    """A number of steps that ends in the middle of an epoch leaves a threshold, saved, too."""
    _finds_thresholds(case, {"max_steps": 7})


def finds_thresholds_when_it_is_stopped(case: MethodCase) -> None:
    """A callback that stops training leaves a threshold, saved, too."""
    _finds_thresholds(case, {"callbacks": [StopAt(5)]})


def _finds_thresholds(case: MethodCase, early: dict[str, Any]) -> None:
    with case.home() as home:
        trained = case.fit(home, epochs=9, trainer=early)
        hold(trained.model.post_processor.image_threshold.isfinite(), "there is no threshold")
        state = read_checkpoint(trained.checkpoint)["state_dict"]
        hold(state["post_processor._image_threshold"].isfinite(), "the checkpoint has none")


def sees_its_support_after_the_last_step(case: MethodCase) -> None:
    """What it keeps of the support is of the last adapters, in a second training as well."""
    with case.home() as home:
        fits = Fits()
        trained = case.fit(home, epochs=1, trainer={"callbacks": [fits]})
        before, first = learnt(trained.model), (fits.steps, fits.last)
        fits = Fits()
        again = case.engine(home, max_epochs=1, callbacks=[fits])
        again.fit(trained.model, datamodule=trained.data)
    changed = bool(differing(before, learnt(trained.model)))
    hold(changed is case.method.learns, f"that a second training changed anything is {changed}")
    model, kept = trained.model, learnt(trained.model)
    model.support.learnt()  # handed over once more, it should change nothing
    model.preparation.refit(DatamoduleView(trained.data), model.pre_processor)
    for name, value in learnt(model).items():
        torch.testing.assert_close(value, kept[name], atol=2e-3, rtol=0, equal_nan=True)
    for steps, last in (first, (fits.steps, fits.last)):
        seen = trained.model.model.has_memory
        hold(bool(steps) is seen, f"it was handed the support {len(steps)} times")
        hold(not seen or steps[-1] == last, f"last seen after step {steps[-1:]} of {last}")


def learns_from_labels_alone(case: MethodCase) -> None:
    """Without masks it is trained on labels, and measured on images only."""
    with case.home() as home:
        trained = case.train(home, epochs=1, data=case.data(mask_column=None))
    hold(not trained.model.model.has_masks, "it thinks that there are masks")
    names = set(trained.metrics)
    hold(names == {"image_AUROC", "image_F1Score"}, f"figures are {sorted(names)}")
    shape = trained.model(torch.rand(2, 3, case.side, case.side)).anomaly_map.shape
    hold(shape == (2, case.side, case.side), f"maps are {shape}")


def learns_from_one_image_of_each_class(case: MethodCase) -> None:
    """One normal and one abnormal image are enough, and that the threshold is from them is said."""
    with case.home() as home:
        trained = case.fit(home, epochs=1, data=case.data(k_shot=1, val_ratio=0.1))
    hold(trained.model.post_processor.image_threshold.isfinite(), "there is no threshold")
    said = trained.model.threshold_from
    hold(said == learnt_from(trained.model.wants_abnormal), f"the threshold is said from {said!r}")


@of_learning
def keeps_the_best_epoch_by_validation(case: MethodCase) -> None:
    """With ``epoch_choice`` validation the state of that epoch comes back, and is saved."""

    def second_is_best(trainer: Trainer) -> dict[str, torch.Tensor]:
        return {"val_image_AUROC": torch.tensor(float(trainer.current_epoch == 1))}

    epochs = Epochs()
    with case.home() as home, patch.object(Trainer, "callback_metrics", property(second_is_best)):
        trained = case.fit(
            home, epochs=3, trainer={"callbacks": [epochs]}, epoch_choice="validation"
        )
        kept = case.method.load_from_checkpoint(trained.checkpoint)
    _, best, last = epochs.states
    hold(differing(best, last), "the last epoch learnt nothing")
    for model in (trained.model, kept):
        different = differing(best, learnt(model))
        hold(not different, f"not of the best epoch: {different[:1]}")


def asks_what_the_images_show_if_it_must_know(case: MethodCase) -> None:
    """If prompts name the object, nameless data are refused; if not, the option is."""
    data = Folder(
        name="other", root=case.lesions, normal_dir="images/normal",
        abnormal_dir="images/abnormal", train_batch_size=4, eval_batch_size=4, num_workers=0,
    )  # fmt: skip
    with case.home() as home:
        engine = case.engine(home, max_epochs=1)
        if case.method.names_the_object:
            with refused(NotReadyError, "--model.object_name"):
                engine.train(case.small(), datamodule=data)
        else:
            if not case.method.needs_abnormal:
                hold(engine.train(case.small(), datamodule=data), "it was not trained")
            with refused(ConfigError, "leave object_name out"):
                case.small(object_name="square")


@of_learning
@of_option("precision")
def learns_in_bf16_as_in_fp32(case: MethodCase) -> None:
    """With frozen blocks in bf16 the first gradient is nearly that of fp32, and the loss falls."""
    runs: dict[str, Steps] = {}
    for precision in ("fp32", "bf16"):
        runs[precision] = Steps()
        with case.home() as home:
            options: dict[str, Any] = {
                "precision": precision,
                "trainer": {"callbacks": [runs[precision]]},
            }
            case.fit(home, epochs=2, data=case.data(train_batch_size=8), **options)
    exact, found = (runs[precision].first_gradient() for precision in ("fp32", "bf16"))
    hold(found.dtype == torch.float32, f"gradients are {found.dtype}")
    apart = float((found - exact).norm() / exact.norm())
    hold(0 < apart < 0.02, f"the first gradient is {apart:.4f} of its length away")
    before, after = torch.stack(runs["bf16"].losses).chunk(2)
    hold(after.mean() < before.mean(), f"the loss goes from {before.mean()} to {after.mean()}")
