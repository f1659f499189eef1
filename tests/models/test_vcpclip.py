"""What VCP-CLIP promises beyond the contract of every method."""

import numpy as np
import pytest
import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from options import LABELS, changes, said, unmoved
from tiny import BACKBONE, EVEN, OPTIONS, lesion_data

from anomalib_medclip.data import BMADLeaveOneOut
from anomalib_medclip.data.bmad import BMAD_SETS
from anomalib_medclip.errors import ConfigError, EmptySplitError, MissingMaskError
from anomalib_medclip.models.vcpclip import VCPCLIP
from anomalib_medclip.models.vcpclip.released import our_name

IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
MASKS = (IMAGES[:, :1] > 0.7).float()


def built(backbone=EVEN, **options):
    """A method that is ready to score."""
    method = VCPCLIP(**{**OPTIONS, "backbone": backbone, **options})
    method.model.text = method.model.prompts(method.model.text_tower)
    return method


@pytest.fixture(scope="module")
def usual():
    return said(built(), IMAGES, MASKS)


@pytest.mark.parametrize(
    "option",
    [
        {"prompt_length": 3},
        {"class_prompts": False},
        {"deep_prompt_length": 0},
        {"deep_prompt_length": 3},
        {"heads": 2},
        {"alpha": 0.5},
        {"sigma": 0.0},
        {"top_pixels": 0.5},
        {"levels": [1, 3]},
        {"normalize": False},
    ],
    ids=str,
)
def test_each_option_changes_something_and_everything_learns(option, usual):
    method = built(**option)
    found = said(method, IMAGES, MASKS)
    assert changes(usual, found)
    # What is added to all tokens alike is removed by the norm that follows.
    assert not {name for name in unmoved(method, found[-1]) if not name.endswith("bias")}


def test_dropout_is_of_training_alone(usual):
    method = built(dropout=0.5)
    assert not changes(usual, said(method, IMAGES, MASKS))
    model = method.model.train()
    encoded = model.encode(IMAGES)
    losses = {float(model.loss(encoded, MASKS, LABELS, model.text)) for _ in range(3)}
    assert len(losses) == 3


@pytest.mark.parametrize(
    ("option", "limits"),
    [
        ({"dropout": 1.5}, "dropout is 1.5, and must be a number from 0 to 1"),
        ({"alpha": -0.5}, "alpha is -0.5, and must be a number from 0 to 1"),
        ({"top_pixels": 2.0}, "top_pixels is 2.0, and must be a number from 0 to 1"),
        ({"deep_prompt_length": -1}, "deep_prompt_length is -1, and must be"),
        ({"temperature_lr": -1.0}, "temperature_lr is -1.0, and must be"),
        ({"heads": 7}, "7 heads do not divide the width of 32"),
        ({"prompt_length": 0}, "0 class tokens and 1 deep prompts"),
    ],
    ids=str,
)
def test_a_number_that_cannot_be_is_refused_by_name(option, limits):
    with pytest.raises(ValueError, match=limits):
        built(**option)


def test_numbers_of_options_are_errors_of_a_config():
    with pytest.raises(ConfigError):
        built(alpha=2.0)


@pytest.mark.parametrize(("share", "count"), [(2000 / 518**2, 8), (0.0, 1), (1.0, 1024)])
def test_the_image_score_is_the_mean_of_a_share_of_pixels(share, count):
    model = built(top_pixels=share).model
    encoded = model.encode(IMAGES)
    maps = model.maps(model.logits(model.features(encoded, model.text))).mean(dim=1).flatten(2)
    expected = maps.sort(dim=-1).values[..., -count:].mean(dim=(0, 2))
    torch.testing.assert_close(model.score(encoded, model.text).pred_score, expected)


def fit(data, home):
    engine = Engine(
        default_root_dir=home, accelerator="cpu", max_steps=2, enable_progress_bar=False,
        logger=False,
    )  # fmt: skip
    engine.fit(VCPCLIP(**OPTIONS), datamodule=data)


def test_data_without_masks_are_refused_before_anything_is_encoded(lesions, tmp_path):
    ours = lesion_data(lesions, mask_column=None)
    theirs = Folder(
        name="other", root=lesions, normal_dir="images/normal", abnormal_dir="images/abnormal",
        num_workers=0,
    )  # fmt: skip
    said = "VCPCLIP learns from masks alone, and .* has none: name the masks of these data, or"
    with pytest.raises(MissingMaskError, match=said):
        fit(ours, tmp_path)
    with pytest.raises(EmptySplitError, match="VCPCLIP learns from normal and abnormal images"):
        fit(theirs, tmp_path)


def test_sets_without_masks_among_others_teach_nothing_and_it_is_said(bmad_tree, tmp_path, caplog):
    for category in BMAD_SETS:
        bmad_tree(category, tmp_path / "BMAD", count=4)
    fit(BMADLeaveOneOut(tmp_path / "BMAD", "Brain", num_workers=0), tmp_path)
    assert (
        "VCPCLIP learns from masks alone, and Chest, Histopathology, Retina_OCT2017" in caplog.text
    )
    model = built().model
    assert not model.loss(model.encode(IMAGES), None, LABELS, model.text).requires_grad
    assert list(model.idle_parameters(has_masks=False)) == list(model.parameters())
    assert not list(model.idle_parameters(has_masks=True))


@pytest.mark.parametrize(("lr", "said"), [(None, True), (1e-3, False)])
def test_few_steps_of_the_published_size_are_warned_of(lr, said, lesions, tmp_path, caplog):
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", max_epochs=1)
    data = lesion_data(lesions, k_shot=1)
    engine.fit(VCPCLIP(**OPTIONS, lr=lr, visualizer=False, cross_fit=False), datamodule=data)
    warned = [one.message for one in caplog.records if "steps are few for" in one.message]
    assert len(warned) == said
    assert all("pass --model.lr, such as 1e-3" in one for one in warned)


def test_temperatures_move_faster():
    method = built(lr=3e-4, temperature_lr=2e-2)
    rest, faster = method.configure_optimizers().param_groups
    assert faster["params"] == [method.model.temperature, method.model.post_temperature]
    assert (rest["lr"], faster["lr"]) == (3e-4, 2e-2)
    assert float(method.model.temperature) == pytest.approx(np.log(1 / 0.07))


def test_a_text_tower_of_another_width_gets_a_layer_in_between():
    assert isinstance(built(BACKBONE).model.image_prompts.to_text, torch.nn.Linear)
    assert not list(built().model.image_prompts.to_text.parameters())


def test_a_released_file_is_loaded_and_what_has_no_effect_is_named(tmp_path, caplog):
    theirs = (
        "clip.prompt_proj.weight", "pre.prompt_query", "pre.prompt_linear1.fc.bias",
        "pre.prompt_temp", "post.prompt_temp_l1", "post.q_proj_pre.bias", "post.proj_post_t.weight",
    )  # fmt: skip
    names = {our_name(name): name for name in theirs}
    trained = {n: p for n, p in built().model.named_parameters() if p.requires_grad}
    assert names.keys() <= trained.keys()
    weights = {names.get(n, n): torch.rand_like(p) for n, p in trained.items()}
    weights["clip.prompt_text_projection"] = torch.rand(24, 24)
    torch.save(weights, path := tmp_path / "epoch_10.pth")
    with caplog.at_level("INFO"):
        found = dict(built(adapters=str(path)).model.named_parameters())
    assert all(torch.equal(found[name], weights[names.get(name, name)]) for name in trained)
    assert "1 tensors without effect are left out: clip.prompt_text_projection" in caplog.text
