"""What MediCLIP promises beyond the contract of every method."""

import numpy as np
import pytest
import torch
from anomalib.engine import Engine
from PIL import Image
from tiny import BACKBONE, OPTIONS, lesion_data

from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.clip.towers import TextTower
from anomalib_medclip.errors import WeightsError
from anomalib_medclip.models.mediclip import MediCLIP


@pytest.fixture(scope="module")
def tower():
    return TextTower(Backbone(BACKBONE, image_size=32, quick_gelu=True))


@pytest.fixture(scope="module")
def encoded():
    return torch.randn(2, 3, 17, 32, generator=torch.Generator().manual_seed(0))


def ready(tower, **options):
    method = MediCLIP(**OPTIONS, **options)
    with torch.no_grad():
        method.model.text = method.model.prompts(tower, "")
    return method


def fitted(lesions, home, **options):
    method = MediCLIP(**OPTIONS, **options)
    engine = Engine(
        default_root_dir=home, accelerator="cpu", max_epochs=1, enable_progress_bar=False
    )
    data = lesion_data(lesions)
    engine.fit(method, datamodule=data)
    return method, engine, data


def test_it_enters_clip_as_clip_was_trained():
    tower = MediCLIP(**OPTIONS).model.clip.backbone
    assert tower.quick_gelu
    assert tower.normalize


def test_it_learns_from_normal_images_alone(lesions, tmp_path):
    _, _, data = fitted(lesions, tmp_path)
    assert len(data.train_data) == data.k_shot
    assert not data.train_data.samples["label_index"].any()


def test_a_run_that_keeps_checkpoints_draws_its_synthetic_anomalies(lesions, tmp_path):
    _, engine, _ = fitted(lesions, tmp_path)
    picture = Image.open(f"{engine.trainer.default_root_dir}/synthetic_anomalies.png")
    assert np.asarray(picture).std() > 10


def test_a_sample_depends_on_seed_epoch_and_image_and_on_nothing_else(lesions, tmp_path):
    method, engine, data = fitted(lesions, tmp_path)
    method._normals = {}
    method.on_fit_start()
    items = [data.train_data[i] for i in range(2)]
    both, first, last = (data.train_data.collate_fn(part) for part in (items, items[:1], items[1:]))
    together, masks, _ = method.examples(both)
    for index, batch in enumerate((first, last)):
        alone, mask, _ = method.examples(batch)
        torch.testing.assert_close(alone[0], together[index])
        assert torch.equal(mask[0], masks[index])
    engine.trainer.fit_loop.epoch_progress.current.completed += 1
    later, _, _ = method.examples(both)
    assert not torch.equal(later, together)


def test_labels_below_one_are_normal_for_the_focal_loss_only(tower, encoded):
    model, labels = ready(tower).model, torch.ones(2).bool()
    hard, soft, empty = (
        model.loss_terms(encoded, value * torch.ones(2, 1, 32, 32), labels, model.text)
        for value in (1, 0.999, 0)
    )
    assert soft.focal == empty.focal
    assert soft.dice.item() == pytest.approx(hard.dice.item(), abs=1e-3)


def test_the_score_is_the_maps_maximum(tower, encoded):
    model = ready(tower).model
    result = model.score(encoded, model.text)
    assert torch.equal(result.pred_score, result.anomaly_map.amax(dim=(1, 2)))


def test_the_papers_temperature_sharpens_the_map(tower, encoded):
    models = [ready(tower, temperature=t).model for t in (1.0, 0.07)]
    maps = [model.score(encoded, model.text).anomaly_map for model in models]
    torch.testing.assert_close(
        torch.logit(maps[1]), torch.logit(maps[0]) / 0.07, rtol=1e-3, atol=1e-3
    )


def test_pooled_channels_have_nothing_to_learn(tower, encoded):
    model = ready(tower, projection="pooled").model
    assert list(model.adapters.parameters()) == []
    assert model.score(encoded, model.text).anomaly_map.shape == (2, 32, 32)


def test_causal_and_fixed_prompts_are_other_texts(tower):
    texts = [ready(tower, **o).model.text for o in ({}, {"causal": True}, {"prompts": "fixed"})]
    assert (texts[0] - texts[1]).abs().max() > 1e-3
    assert (texts[0] - texts[2]).abs().max() > 1e-3


def test_tasks_it_does_not_know_are_refused():
    with pytest.raises(ValueError, match="CutPaste, GaussIntensityChange, Source, Identity"):
        MediCLIP(**OPTIONS, tasks={"Blur": 1.0})


def test_released_adapters_and_prompts_are_loaded(tmp_path):
    other = MediCLIP(**OPTIONS, seed=5).model
    weights = {}
    for level, adapter in enumerate(other.adapters):
        weights[f"{level}_adapter.0.weight"] = adapter.weight.data[..., None, None]
        weights[f"{level}_adapter.0.bias"] = adapter.bias.data
    prompts = other.prompts.state_dict()
    path = tmp_path / "checkpoints_1.pkl"
    torch.save({"adapter_state_dict": weights, "prompt_state_dict": prompts}, path)
    loaded = MediCLIP(**OPTIONS, adapters=str(path)).model
    for name, value in other.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


@pytest.mark.parametrize("content", [None, {}, [1]])
def test_a_file_that_holds_no_such_thing_is_refused(content, tmp_path):
    path = tmp_path / "checkpoints_1.pkl"
    if content is not None:
        torch.save(content, path)
    with pytest.raises(WeightsError, match=r"(?s)checkpoints_1.pkl does not fit MediCLIP"):
        MediCLIP(**OPTIONS, adapters=str(path))


def test_it_has_as_many_parameters_as_published():
    """At ViT-L's widths; counted without building the tower."""
    from anomalib_medclip.components.class_names import ABNORMAL, NORMAL
    from anomalib_medclip.components.learnable_prompts import LearnablePrompts

    assert 3 * (1024 * 768 + 768) == 2_361_600
    prompts = LearnablePrompts(768, NORMAL, ABNORMAL)
    assert sum(p.numel() for p in prompts.parameters()) == 129_024
