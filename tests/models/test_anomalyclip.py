"""What AnomalyCLIP promises beyond the contract of every method."""

import pytest
import torch
from options import LABELS, changes, said, text_of, unmoved
from tiny import EVEN, OPTIONS

from anomalib_medclip.clip.towers import TextTower
from anomalib_medclip.errors import ConfigError, WeightsError
from anomalib_medclip.models.anomalyclip import AnomalyCLIP

IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
MASKS = (IMAGES[:, :1] > 0.7).float()


def built(**options):
    """A method that is ready to score."""
    method = AnomalyCLIP(**{**OPTIONS, "backbone": EVEN, **options})
    method.tower = TextTower(method.backbone)
    method.model.text = method.model.prompts(method.tower).detach()
    return method


@pytest.fixture(scope="module")
def usual():
    return said(built(), IMAGES, MASKS)


@pytest.mark.parametrize(
    "option",
    [
        {"context": 6},
        {"deep_length": 0},
        {"deep_length": 2},
        {"deep_blocks": 2},
        {"value_blocks": 1},
        {"temperature": 0.1},
        {"sigma": 0.0},
        {"pixel_weight": 1.0},
        {"levels": [2, 4]},
        {"quick_gelu": False},
        {"normalize": False},
    ],
    ids=str,
)
def test_each_option_changes_something_and_everything_learns(option, usual):
    method = built(**option)
    found = said(method, IMAGES, MASKS)
    assert changes(usual, found)
    assert not unmoved(method, found[-1])


@pytest.mark.parametrize(
    ("option", "limits"),
    [
        ({"context": 0}, "context is 0, and must be a whole number of at least 1"),
        ({"deep_length": 13}, "deep_length is 13, and must be a whole number from 0 to 12"),
        ({"deep_blocks": 4}, "deep_blocks is 4, and must be a whole number from 1 to 3"),
        ({"value_blocks": 5}, "value_blocks is 5, and must be a whole number from 1 to 4"),
        ({"temperature": 0.0}, "temperature is 0.0, and must be a number of at least 1e-06"),
        ({"sigma": -1.0}, "sigma is -1.0, and must be"),
        ({"pixel_weight": -1.0}, "pixel_weight is -1.0, and must be"),
    ],
    ids=str,
)
def test_a_number_that_cannot_be_is_refused_by_name(option, limits):
    with pytest.raises(ConfigError, match=limits):
        built(**option)


@pytest.mark.parametrize(("depth", "first"), [(24, 6), (12, 3), (4, 2), (1, 1)])
def test_the_second_stream_passes_as_large_a_part_of_any_tower(depth, first):
    vision = EVEN["vision_cfg"] | {"layers": depth}
    model = built(backbone=EVEN | {"vision_cfg": vision}).model
    assert (model.first, model.levels) == (first, (depth,))


def test_labels_alone_teach_the_image_score_and_nothing_else():
    method = built()
    model, encoded = method.model, method.model.encode(IMAGES)
    logits = model.logits(encoded, model.text)
    alone = model.loss(encoded, None, LABELS, model.text)
    assert alone == torch.nn.functional.cross_entropy(logits, LABELS.long())
    assert alone < model.loss(encoded, MASKS, LABELS, model.text)
    assert not unmoved(method, model.loss(encoded, None, LABELS, text_of(method)))


def test_maps_of_levels_are_what_the_map_is_the_mean_of():
    model = built(levels=[2, 3, 4]).model
    encoded = model.encode(IMAGES)
    maps = model.level_maps(encoded, model.text)["text"]
    torch.testing.assert_close(maps.mean(dim=0), model.score(encoded, model.text).anomaly_map)


def released(model):
    """What was trained, by the authors' names, and what has no effect."""
    prompts = model.prompts
    learnt = {f"compound_prompts_text.{n}": v for n, v in enumerate(prompts.deep.vectors)}
    learnt |= {"ctx_pos": prompts.ctx["normal_end"], "ctx_neg": prompts.ctx["abnormal_end"]}
    found = {name: torch.rand_like(value) for name, value in learnt.items()}
    found |= {name: found[name][None] for name in ("ctx_pos", "ctx_neg")}
    return found | {"compound_prompt_projections.0.weight": torch.rand(9, 24)}


@pytest.mark.parametrize("below", [False, True])
def test_a_released_file_is_loaded_and_what_has_no_effect_is_named(below, tmp_path, caplog):
    weights = released(built().model)
    torch.save({"prompt_learner": weights} if below else weights, path := tmp_path / "epoch_15.pth")
    with caplog.at_level("INFO"):
        prompts = built(adapters=str(path)).model.prompts
    assert torch.equal(prompts.ctx["normal_end"], weights["ctx_pos"][0])
    assert torch.equal(prompts.ctx["abnormal_end"], weights["ctx_neg"][0])
    assert torch.equal(prompts.deep.vectors[1], weights["compound_prompts_text.1"])
    assert "1 tensors without effect are left out: compound_prompt_proj" in caplog.text


def test_a_file_of_other_prompts_is_refused_by_name(tmp_path):
    torch.save(released(built().model), path := tmp_path / "epoch_15.pth")
    with pytest.raises(WeightsError, match=r"epoch_15.pth does not fit AnomalyCLIP: .*vectors.1"):
        built(adapters=str(path), deep_blocks=2)
    with pytest.raises(WeightsError, match=r"(?s)epoch_15.pth does not fit AnomalyCLIP: .*ctx"):
        built(adapters=str(path), context=7)
