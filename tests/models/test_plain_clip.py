"""Plain CLIP: its modes against the authors' numbers, and what does not go together."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from anomalib.engine import Engine
from families import configs, small
from golden_cases.common import T1, T2
from tiny import OPTIONS, lesion_data

from anomalib_medclip.components.threshold import SUPPORT
from anomalib_medclip.errors import ConfigError, NotReadyError
from anomalib_medclip.models.anomalyclip import AnomalyCLIP
from anomalib_medclip.models.mediclip import MediCLIP
from anomalib_medclip.models.plain_clip import PlainCLIP
from anomalib_medclip.readers.resize import MethodResize
from anomalib_medclip.training.datamodule_view import DatamoduleView

CASE = Path(__file__).parents[1] / "golden" / "aprilgan" / "case0"
ARRAYS = dict(np.load(CASE / "golden.npz"))
META = json.loads((CASE / "meta.json").read_text())


def of_case(**options):
    """A model with the CLIP of APRIL-GAN's golden case."""
    weights, side = str(CASE / "clip.safetensors"), META["img_size"]
    config = json.loads((CASE / "config.json").read_text())
    return PlainCLIP(
        backbone=config, pretrained=weights, image_size=side, quick_gelu=False, **options
    )


def images(name):
    """Raw pixels of the case at the model's size."""
    raw = torch.from_numpy(ARRAYS[name]).permute(0, 3, 1, 2).float() / 255
    return MethodResize(META["img_size"])(raw).as_subclass(torch.Tensor)


def to_test(number):
    return torch.cat([images(f"raw/object{number}/test_{word}_u8") for word in ("good", "ungood")])


def assert_as_published(tolerance, found, name):
    expected = ARRAYS[name]
    assert tolerance.allows(float(np.abs(found.numpy() - expected).max()), expected), name


@torch.no_grad()
@pytest.mark.parametrize("number", [0, 1])
def test_its_score_by_text_is_that_of_the_authors_zero_shot(number):
    model = of_case(mode="text").model
    text = torch.from_numpy(ARRAYS[f"text_features/target{number}"]).T
    found = model.score(model.encode(to_test(number)), text).pred_score
    assert_as_published(T2, found, f"zero/object{number}/image_score")


@torch.no_grad()
def test_its_map_by_memory_is_that_of_the_authors_bank():
    model = of_case(bank_precision="float32").model
    normal = model.encode(images("raw/object0/support_u8"))
    owners = torch.arange(len(normal))
    model.fit_support(normal, normal[None], owners < 0, owners)
    encoded, text = model.encode(to_test(0)), torch.empty(0)
    found = model.score(encoded, text)
    whole = 2 * len(model.levels)
    assert_as_published(T1, found.anomaly_map * whole, "few/object0/memory_map_sum")
    level_maps = model.level_maps(encoded, text)["memory"].transpose(0, 1)
    assert_as_published(T1, 2 * level_maps[[0, 5]], "few/object0/memory_map_level")
    assert torch.equal(found.pred_score, found.anomaly_map.amax(dim=(1, 2)))
    near = model.nearest_support(encoded)
    assert_as_published(T1, near.distance.transpose(0, 1), "few/object0/min_distance")
    assert near.patch.min() >= 0, "the class token is no patch"
    assert near.patch.max() < ARRAYS["few/object0/min_distance"].shape[-1]


@torch.no_grad()
def test_the_map_by_text_projects_patches_as_clip_projects_the_class_token(tiny_clip):
    options = {**OPTIONS, "normalize": False, "quick_gelu": False}
    model = PlainCLIP(**options, mode="text").model
    image = torch.rand(1, 3, 32, 32)
    text = torch.nn.functional.normalize(torch.randn(2, 24), dim=1)
    visual = tiny_clip.visual
    encoded = model.encode(image)
    pooled = visual.ln_post(encoded[:, -1]) @ visual.proj
    patches = torch.nn.functional.normalize(pooled[0, 1:], dim=1)
    corner = (100 * patches @ text.T).softmax(dim=1)[0, 1]
    assert model.score(encoded, text).anomaly_map[0, 0, 0] == pytest.approx(corner.item())


@torch.no_grad()
def test_hard_prompts_are_mediclip_without_anything_learnt():
    mediclip = MediCLIP(**OPTIONS, prompts="fixed", projection="pooled")
    plain = PlainCLIP(**OPTIONS, mode="hard_prompts")
    found, image = [], torch.rand(3, 3, 32, 32)
    for method in (mediclip, plain):
        method.text.object_name = ""
        method.text.refresh()
        found.append(method.model.eval()(image))
    assert torch.equal(found[0].anomaly_map, found[1].anomaly_map)
    assert torch.equal(found[0].pred_score, found[1].pred_score)
    assert plain.resample != mediclip.resample, "which MediCLIP's figures are of"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr": 0.1}, "PlainCLIP trains nothing; leave lr out"),
        ({"mode": "text", "levels": [1, 4]}, "mode text reads block 4, the last; leave levels out"),
        ({"mode": "text", "add_text": True}, "add_text adds text to the mode memory"),
        ({"mode": "hard_prompts", "object_name": "liver"}, "leave object_name out"),
    ],
)
def test_options_that_would_do_nothing_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        PlainCLIP(**OPTIONS, **options)


def trained(home, lesions, data=None, **options):
    engine = Engine(default_root_dir=home, accelerator="cpu", enable_progress_bar=False)
    model = PlainCLIP(**OPTIONS, visualizer=False, **options)
    data = lesion_data(lesions, **(data or {}))
    [found] = engine.train(model, datamodule=data)
    return model, engine, found


@pytest.mark.parametrize("mode", ["text", "hard_prompts"])
def test_sentences_need_no_support_and_their_checkpoint_scores_the_same(mode, lesions, tmp_path):
    given = {"val_ratio": 0.01}
    model, engine, found = trained(tmp_path, lesions, given, mode=mode, cross_fit=False)
    assert model.threshold_from == SUPPORT
    assert model.model.memory_bank.is_empty
    again = PlainCLIP.load_from_checkpoint(engine.trainer.checkpoint_callback.best_model_path)
    image = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(again.eval()(image).pred_score, model.eval()(image).pred_score)
    assert 0 <= found["image_AUROC"] <= 1


def test_no_image_is_encoded_to_train_what_does_not_learn(lesions, tmp_path):
    model = PlainCLIP(**OPTIONS, mode="text", visualizer=False)
    model.examples = lambda batch: pytest.fail(f"{len(batch)} images were looked at")
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", max_epochs=2)
    engine.fit(model, datamodule=lesion_data(lesions))
    assert engine.trainer.global_step == 2
    assert model.post_processor.image_threshold.isfinite()


def test_half_of_the_score_is_the_text_and_half_the_map_on_the_scale_of_the_support(
    lesions, tmp_path, caplog
):
    model, *_ = trained(tmp_path, lesions, add_text=True)
    low, high = model.model.scale.extremes
    assert 0 < low < high < 1
    image = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        encoded, text = model.model.encode(image), model.model.known_text()
        highest = model.model.memory_map(encoded).amax(dim=(1, 2))
        score = (model.model.text_score(encoded, text) + (highest - low) / (high - low)) / 2
        found = model.model.score(encoded, text).pred_score
    torch.testing.assert_close(4 * (score - 0.5), torch.sign(score - 0.5) * soft(found))
    with caplog.at_level(logging.WARNING):
        alone, *_ = trained(tmp_path / "alone", lesions, {"k_shot": 1}, add_text=True)
    assert "one normal patient only" in caplog.text
    assert alone.model.scale.extremes.tolist() == [0, 1]


def soft(found):
    """How far a number was from one half before ``unit_interval``, times four."""
    away = (2 * found - 1).abs()
    return away / (1 - away)


def test_data_without_normal_images_of_the_target_are_refused_by_a_memory():
    data = DatamoduleView(SimpleNamespace(zero_shot=True, object_name="liver"))
    with pytest.raises(
        NotReadyError, match=r"normal images of the target, and .* or take mode: text"
    ):
        PlainCLIP(**OPTIONS).preparation.meet(data, None)
    (model := PlainCLIP(**OPTIONS, mode="text")).preparation.meet(data, None)
    assert not model.model.few_shot


@torch.no_grad()
def test_a_memory_never_becomes_text_unasked():
    model = PlainCLIP(**OPTIONS).model
    model.few_shot = False
    assert model.scored_levels == (1, 2, 3, 4)
    with pytest.raises(NotReadyError, match="memory bank is empty"):
        model.score(model.encode(torch.rand(1, 3, 32, 32)), torch.randn(2, 24))


def test_a_tower_without_text_is_enough_for_a_memory_and_for_nothing_else(lesions, tmp_path):
    options = {"backbone": "timm:test_vit", "pretrained": None, "image_size": 64}
    model = PlainCLIP(**options, visualizer=False)
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", enable_progress_bar=False)
    [found] = engine.train(model, datamodule=lesion_data(lesions))
    assert found["pixel_AUROC"] > 0.8
    for without in ({"mode": "text"}, {"add_text": True}):
        with pytest.raises(ConfigError, match="without text"):
            PlainCLIP(**options, **without)
    with pytest.raises(ConfigError, match="PlainCLIP reads no words here; leave prompts out"):
        PlainCLIP(**options, prompts={"normal": ["a {}"], "abnormal": ["b {}"]})


def test_a_tower_that_pools_by_attention_is_refused_before_any_work(tmp_path):
    for model, method, options in (
        ("ViT-B-16-SigLIP", PlainCLIP, {"mode": "text"}),
        ("coca_ViT-B-32", PlainCLIP, {"mode": "text"}),
        ("coca_ViT-B-32", AnomalyCLIP, {}),
    ):
        backbone = small(configs()[model], tmp_path)
        with pytest.raises(ConfigError, match="pools by attention: no single token has a way"):
            method(backbone=backbone, pretrained=None, image_size=64, **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"prompts": {"normal": ["a {}"]}}, "prompts"),
        ({"loss_weights": {"dice": 2.0}}, "loss_weights"),
        ({"epoch_choice": "validation"}, "epoch_choice"),
        ({"mode": "text", "bank_precision": "float32"}, "bank_precision"),
        ({"mode": "text", "prompts": {"normal": ["a {}"]}}, None),
    ],
)
def test_options_without_effect_are_said(options, said, caplog):
    with caplog.at_level(logging.WARNING):
        PlainCLIP(**OPTIONS, **options)
    found = [one.message for one in caplog.records if "no effect" in one.message]
    assert [said in one for one in found] == ([] if said is None else [True])
