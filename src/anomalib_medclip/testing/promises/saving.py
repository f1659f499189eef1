"""What a method leaves in a checkpoint, and what comes back."""

import gc
import weakref
from inspect import signature
from typing import Any
from unittest.mock import patch

import torch
from anomalib.callbacks import ModelCheckpoint
from anomalib.data import InferenceBatch

from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.errors import BackboneMismatchError, CheckpointError, NotReadyError
from anomalib_medclip.testing.method_case import MethodCase
from anomalib_medclip.testing.promises.promise import differing, hold, learnt, of_option, refused
from anomalib_medclip.training.checkpoints import read_checkpoint


def saves_no_clip_and_no_optimiser(case: MethodCase) -> None:
    """The checkpoint of a finished run holds what was learnt: no frozen tower, no optimiser."""
    state = read_checkpoint(case.trained.checkpoint)
    towers = [name for name in state["state_dict"] if ".clip." in name or ".text_tower." in name]
    hold(not towers, f"it holds {towers[:1]}")
    hold(state["optimizer_states"] == [], "it holds the state of the optimiser")
    hold("model.text" in state["state_dict"], "it does not hold the text features")
    threshold = state["state_dict"]["post_processor._image_threshold"]
    hold(threshold.isfinite(), "it holds no threshold")
    noted = state["anomalib_medclip"]["fingerprint"]
    hold(noted == case.trained.model.model.clip.fingerprint, "it notes another backbone")


def restores_the_same_scores(case: MethodCase) -> None:
    """A checkpoint gives the scores and maps of the run to the bit, without any data."""
    model, path = case.trained.model.eval(), case.trained.checkpoint
    restored = case.method.load_from_checkpoint(path).eval()
    hold(restored.object_name == model.object_name, "the object's name is another one")
    with torch.inference_mode():
        hold(_equal(model(case.images), restored(case.images)), _OTHERWISE)


def restores_the_kind_of_model_it_is(case: MethodCase) -> None:
    """Trained on labels alone, and zero-shot where it can be asked to, it is so when restored."""
    asked: dict[str, Any] = (
        {"few_shot": False} if "few_shot" in signature(case.method).parameters else {}
    )
    with case.home() as home:
        trained = case.fit(home, epochs=1, data=case.data(mask_column=None), **asked)
        restored = case.method.load_from_checkpoint(trained.checkpoint).eval()
    kinds = [(model.model.has_masks, model.model.few_shot) for model in (trained.model, restored)]
    hold(kinds[0] == kinds[1], f"(has_masks, few_shot) were {kinds[0]} and are {kinds[1]}")
    hold(not kinds[0][0] and kinds[0][1] is not bool(asked), f"it was trained as {kinds[0]}")
    images = torch.rand(2, 3, case.side, case.side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        hold(_equal(trained.model.eval()(images), restored(images)), _OTHERWISE)


_OTHERWISE = "a restored model scores otherwise"


def _equal(one: InferenceBatch, other: InferenceBatch) -> bool:
    """Whether two models give the same; without masks to learn from, both no masks."""
    pairs = zip(one, other, strict=True)
    return all(a is b if a is None or b is None else torch.equal(a, b) for a, b in pairs)


@of_option("backbone_seed")
def refuses_another_backbone(case: MethodCase) -> None:
    """Weights that were learnt on one backbone are not put on another."""
    state = read_checkpoint(case.trained.checkpoint)
    with refused(BackboneMismatchError, f"another backbone: {case.small().model.clip.backbone}"):
        case.small(backbone_seed=1).on_load_checkpoint(state)


def refuses_a_missing_weight(case: MethodCase) -> None:
    """A checkpoint that lacks a weight is refused, and the weight is named."""
    state = read_checkpoint(case.trained.checkpoint)
    name = next(n for n in state["state_dict"] if n.startswith("model.") and n != "model.text")
    del state["state_dict"][name]
    with refused(CheckpointError, f"does not fit this model, first at {name}"):
        case.small().on_load_checkpoint(state)


def finishes_what_was_saved_in_the_middle(case: MethodCase) -> None:
    """A checkpoint from the middle of training is finished with its data, or refused without."""
    with case.home() as home:
        keep = ModelCheckpoint(dirpath=home / "all", save_top_k=-1, filename="{epoch}")
        case.fit(home, epochs=2, trainer={"callbacks": [keep]}, data=case.data())
        path, model = home / "all" / "epoch=0.ckpt", case.small()
        scores: dict[str, Any] = {
            "data_path": case.lesions / "images" / "normal",
            "ckpt_path": path,
        }
        if model.model.has_memory and model.model.few_shot:
            with refused(NotReadyError, "saved in the middle of training"):
                case.engine(home).predict(model, **scores)
        else:
            hold(case.engine(home).predict(model, **scores), "nothing was predicted")
        [found] = case.engine(home).test(case.small(), datamodule=case.data(), ckpt_path=path)
        hold(found["pixel_AUROC"] > 0.5, f"finished, its pixel AUROC is {found['pixel_AUROC']}")


def goes_on_as_if_never_stopped(case: MethodCase) -> None:
    """A training that goes on from a checkpoint learns to the bit what one learns that never ended.

    With the best epoch chosen, which may be one before the checkpoint.
    """
    with case.home() as home:
        keep = ModelCheckpoint(dirpath=home / "all", save_top_k=-1, filename="{epoch}")
        options: dict[str, Any] = {"epochs": 3, "epoch_choice": "validation"}
        whole = learnt(case.fit(home, trainer={"callbacks": [keep]}, **options).model)
        half = case.ready(home, data=case.data(train_batch_size=16), **options)
        path = home / "all" / "epoch=0.ckpt"
        half.engine.fit(half.model, datamodule=half.data, ckpt_path=path)
    different = differing(whole, learnt(half.model))
    hold(not different, f"having gone on it has other {different[:1]}")


def holds_a_text_tower_only_if_images_need_it(case: MethodCase) -> None:
    """A restored model keeps and reads CLIP's text tower only if every image goes through it."""
    built: list[weakref.ref[Any]] = []
    load = Backbone.load

    def loaded(backbone: Backbone) -> Any:  # noqa: ANN401 - as Backbone.load
        found = load(backbone)
        built.append(weakref.ref(found.clip.transformer))
        return found

    path = case.trained.checkpoint
    with patch.object(Backbone, "load", loaded):
        model, other = (case.method.load_from_checkpoint(path).eval() for _ in range(2))
        with torch.inference_mode():
            score = float(other(case.images[:1]).pred_score)
    hold(0 <= score <= 1, f"it scores {score}")
    gc.collect()
    held = sum(text() is not None for text in built)
    needed = model.model.text_tower is not None
    hold(held == (2 if needed else 0), f"two models hold {held} text towers")
    hold(len(built) == (4 if needed else 2), f"CLIP was read {len(built)} times for two models")
    words = any(isinstance(part, torch.nn.Embedding) for part in model.modules())
    hold(words is needed, f"it {'has' if words else 'lacks'} an embedding of words")
