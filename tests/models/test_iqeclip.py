"""What IQE-CLIP promises beyond the contract of every method."""

import numpy as np
import pytest
import torch
from tiny import BACKBONE, EVEN, OPTIONS, lesion_data

from anomalib_medclip.clip.towers import ImageTower
from anomalib_medclip.data import BMADLeaveOneOut
from anomalib_medclip.data.bmad import BMAD_SETS
from anomalib_medclip.errors import NotReadyError
from anomalib_medclip.models.iqeclip import IQECLIP


def built(backbone=EVEN, **options):
    """A method that is ready to score."""
    method = IQECLIP(**{**OPTIONS, "backbone": backbone, **options})
    method.model.text = method.model.image_prompts.templates(method.model.text_tower)
    return method


@pytest.fixture(scope="module")
def encoded():
    with torch.no_grad():
        return built().model.encode(torch.rand(3, 3, 32, 32))


@pytest.fixture(scope="module")
def masks():
    return (torch.rand(3, 1, 32, 32) > 0.7).float()


LABELS = torch.tensor([True, False, True])


@pytest.fixture(scope="module")
def usual(masks):
    """Images, and the map and the loss of a model without any option."""
    model, images = built().model, torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        found = model(images).anomaly_map
        return images, found, model.loss(model.encode(images), masks, LABELS, model.text)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="7 heads do not divide the width of 24"):
        built(heads=7)


@pytest.mark.parametrize(
    "option",
    [
        {"class_prompts": False},
        {"class_prompts": False, "class_initialisation": False},
        {"prompt_length": 3},
        {"deep_prompt_length": 0},
        {"deep_prompt_length": 4},
        {"query_module": False},
        {"blocks": 1},
        {"heads": 2},
        {"feedforward": 7},
        {"class_initialisation": False},
        {"text_attention": False},
        {"image_attention": False},
        {"alpha": 0.5},
        {"sigma": 0.0},
        {"bce": "probabilities"},
        {"levels": [1, 3]},
        {"dropout": 0.5},
    ],
    ids=str,
)
def test_each_option_changes_something_and_everything_learns(option, usual, masks):
    images, usual_map, usual_loss = usual
    method = built(**option)
    with torch.no_grad():
        assert (usual_map != method.model(images).anomaly_map).any() or (
            "dropout" in option or "bce" in option
        )
    loss = method.model.loss(method.model.encode(images), masks, LABELS, method.model.text)
    assert usual_loss != loss or set(option) <= {"alpha", "sigma"}
    trained = {n: p for n, p in method.model.named_parameters() if p.requires_grad}
    before = {name: parameter.clone() for name, parameter in trained.items()}
    optimizer = method.configure_optimizers()
    loss.backward()
    assert [name for name, parameter in trained.items() if parameter.grad is None] == []
    optimizer.step()
    # What is added to all tokens alike is removed by the norm that follows.
    same = {name for name, parameter in trained.items() if parameter.equal(before[name])}
    assert not {name for name in same if not name.endswith("bias")}


def test_only_the_image_tells_prompts_apart(encoded):
    def texts(**options):
        model = built(**options).model
        return model.features(encoded, model.text).text

    assert not torch.allclose(*texts()[:2], atol=1e-4)
    same = texts(class_prompts=False)
    torch.testing.assert_close(same[0], same[1])


def test_without_the_last_block_among_the_levels_its_class_token_is_still_read():
    model = built(levels=[1, 2]).model
    encoded = model.encode(images := torch.rand(2, 3, 32, 32))
    assert encoded.shape[1] == 3
    assert len(model.features(encoded, model.text).patches) == 2
    expected = built().model.encode(images)[:, -1]
    torch.testing.assert_close(encoded[:, -1], expected)


def test_a_text_tower_of_another_width_gets_a_layer_in_between():
    assert isinstance(built(BACKBONE).model.image_prompts.to_text, torch.nn.Linear)
    assert not list(built().model.image_prompts.to_text.parameters())


def test_few_shot_scores_are_means_of_pixels_and_zero_shot_scores_of_patches(encoded):
    model = built(few_shot=False).model
    logits = model.logits(model.features(encoded, model.text))
    patches = logits.softmax(dim=-1)[..., 1].mean(dim=(0, 1, 3))
    torch.testing.assert_close(model.score(encoded, model.text).pred_score, patches)
    model.few_shot = True
    pixels = model.maps(logits).mean(dim=(0, 1, 3, 4))
    torch.testing.assert_close(model.score(encoded, model.text).pred_score, pixels)
    assert not torch.allclose(patches, pixels, atol=1e-6)


def test_the_score_is_chosen_by_the_data_and_kept(lesions, bmad_tree, tmp_path):
    from anomalib.engine import Engine

    for category in BMAD_SETS:
        bmad_tree(category, tmp_path / "BMAD")
    for zero_shot, data in (
        (False, lesion_data(lesions)),
        (True, BMADLeaveOneOut(tmp_path / "BMAD", "Brain", num_workers=0)),
    ):
        method = IQECLIP(**OPTIONS)
        engine = Engine(
            default_root_dir=tmp_path / str(zero_shot),
            accelerator="cpu",
            max_epochs=1,
            enable_progress_bar=False,
        )
        engine.fit(method, datamodule=data)
        assert method.model.few_shot is not zero_shot
        path = engine.trainer.checkpoint_callback.best_model_path
        assert IQECLIP.load_from_checkpoint(path).model.few_shot is not zero_shot


def test_no_tower_is_in_a_checkpoint_nor_encodes_an_image_twice(lesions, tmp_path, monkeypatch):
    from anomalib.engine import Engine

    seen = []
    original = ImageTower.taps

    def taps(tower, images, levels):
        seen.append((method.trainer.current_epoch, method.trainer.training, len(images)))
        return original(tower, images, levels)

    monkeypatch.setattr(ImageTower, "taps", taps)
    method = IQECLIP(**OPTIONS)
    engine = Engine(
        default_root_dir=tmp_path, accelerator="cpu", max_epochs=2, enable_progress_bar=False
    )
    engine.fit(method, datamodule=lesion_data(lesions))
    assert sum(count for epoch, training, count in seen if training and epoch == 0) == 4 * 11
    assert not [1 for epoch, training, _ in seen if training and epoch > 0]
    state = torch.load(engine.trainer.checkpoint_callback.best_model_path, weights_only=True)
    names = state["state_dict"].keys()
    assert not [name for name in names if "clip" in name or "tower" in name]
    assert "model.text" in names


def test_the_temperature_moves_faster():
    method = built(lr=3e-4, temperature_lr=2e-2)
    rest, temperature = method.configure_optimizers().param_groups
    assert temperature["params"] == [method.model.temperature]
    assert (rest["lr"], temperature["lr"]) == (3e-4, 2e-2)
    assert rest["betas"] == (0.5, 0.999)


def test_the_seed_decides_the_first_weights_and_nothing_else():
    torch.manual_seed(1)
    following = torch.rand(1)
    torch.manual_seed(1)
    first, again, other = (built(seed=seed).model.state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), following)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["linears.0.weight"], other["linears.0.weight"])


def test_first_weights_are_as_published():
    state = built(prompt_length=60).model.state_dict()
    vectors = state["image_prompts.class_tokens.vectors"]
    assert vectors.abs().max() <= 2
    assert 0.8 < vectors.std() < 0.95
    assert state["image_prompts.deep.deep_prompt_embeddings"].abs().max() <= 1
    spread = state["image_prompts.deep.prompt_proj.weight"].std()
    assert spread == pytest.approx((2 / 24) ** 0.5, rel=0.2)
    assert state["temperature"] == pytest.approx(np.log(1 / 0.07))


def test_a_model_without_templates_is_not_ready():
    with pytest.raises(NotReadyError, match="no text features"):
        IQECLIP(**OPTIONS).model(torch.rand(1, 3, 32, 32))
