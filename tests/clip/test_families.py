"""Every family of CLIP gives open_clip's own numbers: tokens, features of images and of sentences.

Small copies with random weights, made by ``families``; some of them daily, all of them nightly.
"""

import pytest
import torch
from families import MORE, configs, families, small

from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.clip.timm_trunk import trunk_of
from anomalib_medclip.clip.towers import ImageTower, TextTower
from anomalib_medclip.components.learnable_prompts import LearnablePrompts
from anomalib_medclip.errors import ConfigError, WeightsError

BIOMED = next(iter(MORE))
SENTENCES = ["a photo of the normal brain .", "damaged liver tissue", "x"]
EVERY = {names[0]: kind for kind, names in families().items()}
RUN = [name for name, kind in EVERY.items() if kind.runs]
DAILY = ["coca_ViT-B-32", "ViT-B-16-SigLIP", "PE-Core-B-16", "ViT-H-14-CLIPA", *MORE]
EXACT = {"rtol": 0, "atol": 1e-5}


@pytest.fixture
def backbone(request, tmp_path):
    """A small copy of a model."""
    return Backbone(small(configs()[request.param], tmp_path), image_size=64)


def native_blocks(visual):
    return visual.trunk.blocks if hasattr(visual, "trunk") else visual.transformer.resblocks


@torch.no_grad()
def check_images(backbone):
    clip, images = backbone.load().clip.eval(), torch.rand(2, 3, 64, 64)
    tower, streams = ImageTower(backbone), []
    turned = not getattr(getattr(clip.visual, "transformer", clip), "batch_first", False)
    turned &= not hasattr(clip.visual, "trunk")
    for block in native_blocks(clip.visual):
        block.register_forward_hook(lambda _module, _taken, given: streams.append(given))
    expected = clip.visual(images)
    expected = expected[0] if isinstance(expected, tuple) else expected
    streams = [stream.transpose(0, 1) if turned else stream for stream in streams]
    found = tower.taps(images, range(1, tower.depth + 1))
    torch.testing.assert_close(found, torch.stack(streams, dim=1), **EXACT)
    torch.testing.assert_close(tower.pool(found[:, -1]), expected, **EXACT)
    assert found.shape[2] - tower.prefix == 16
    assert expected.shape == (2, tower.embed_dim)
    assert expected.abs().max() > 1e-5


@torch.no_grad()
def check_text(backbone):
    clip, tower = backbone.load().clip.eval(), TextTower(backbone)
    tokens = tower.tokenize(SENTENCES)
    expected = clip.encode_text(tokens, normalize=False)
    torch.testing.assert_close(tower(tokens), expected, **EXACT)
    stream = tower.embed(tokens) + tower.positional_embedding
    torch.testing.assert_close(tower.features(stream, tower.ends(tokens)), expected, **EXACT)
    assert (expected[0] - expected[1]).abs().max() > 1e-4


def check(backbone):
    check_images(backbone)
    if "text_cfg" in backbone.config():
        check_text(backbone)


@pytest.mark.parametrize("backbone", DAILY, indirect=True)
def test_towers_give_open_clips_numbers(backbone):
    check(backbone)


@pytest.mark.nightly(also="tests/clip/test_families.py::test_towers_give_open_clips_numbers")
@pytest.mark.parametrize("backbone", sorted(set(RUN) - set(DAILY)), indirect=True)
def test_towers_of_every_family_give_open_clips_numbers(backbone):
    check(backbone)


OPTIONS = {
    "mean of patches": ({"pool_type": "avg"}, {"pool_type": "first", "no_causal_mask": True}),
    "norm after pooling": ({"pool_type": "avg", "final_ln_after_pool": True}, {}),
    "no first norm": ({"no_ln_pre": True}, {"proj_bias": True}),
    "fixed positions": ({"pos_embed_type": "sin_cos_2d"}, {"proj_type": "none", "width": 24}),
    "scaled layers": ({"ls_init_value": 0.1}, {"ls_init_value": 0.1}),
    "dropped patches": ({"patch_dropout": 0.5}, {"no_causal_mask": True, "pool_type": "last"}),
    "normed heads": (
        {"qk_norm": True, "scale_heads": True, "scale_attn_inner": True},
        {"qk_norm": True, "scale_attn": True, "scale_fc": True},
    ),
    "attention by one query": ({"attentional_pool": True, "attn_pooler_heads": 2}, {}),
}


@pytest.mark.parametrize("options", OPTIONS)
def test_whatever_its_options_open_clips_own_tower_gives_its_numbers(options, tiny_config):
    image, text = OPTIONS[options]
    tiny_config["vision_cfg"] |= image | {"image_size": 64, "patch_size": 16}
    tiny_config["text_cfg"] |= text
    try:
        check(Backbone(tiny_config | {"custom_text": True}, image_size=64))
    except WeightsError as error:  # former versions of open_clip know fewer options
        assert "unexpected keyword argument" in str(error)  # noqa: PT017


def test_a_causal_tower_is_causal_and_others_are_not(tiny_config):
    def changed(**options):
        config = tiny_config | {"text_cfg": tiny_config["text_cfg"] | options}
        tower = TextTower(Backbone(config, image_size=32))
        tokens = tower.tokenize(["a brain", "a liver"])
        stream = tower.embed(tokens) + tower.positional_embedding
        early = tower.features(stream, torch.tensor([1, 1]))
        return not torch.equal(early[0], early[1])

    assert not changed()
    assert changed(no_causal_mask=True)


@torch.no_grad()
@pytest.mark.parametrize("backbone", ["ViT-B-16-SigLIP", "PE-Core-B-16"], indirect=True)
def test_blocks_of_timm_compute_products_in_bf16_and_keep_the_stream(backbone):
    images = torch.rand(1, 3, 64, 64)
    exact, tower = ImageTower(backbone), ImageTower(backbone, "bf16")
    levels = range(1, tower.depth + 1)
    found, expected = tower.taps(images, levels), exact.taps(images, levels)
    assert found.dtype == torch.float32
    assert 0 < (found - expected).norm() / expected.norm() < 0.02
    assert tower.fingerprint == exact.fingerprint


@pytest.mark.parametrize("backbone", ["ViT-B-16-SigLIP", "coca_ViT-B-32"], indirect=True)
def test_where_pooling_attends_no_token_is_projected(backbone):
    tower = ImageTower(backbone)
    with pytest.raises(ConfigError, match="pools by attention: no single token has a way"):
        tower.project(torch.rand(1, tower.width))


@torch.no_grad()
@pytest.mark.parametrize("backbone", ["EVA02-B-16", "timm:vit_small_patch14_dinov2"], indirect=True)
def test_the_class_token_projected_is_what_is_pooled(backbone):
    tower = ImageTower(backbone)
    stream = tower.taps(torch.rand(1, 3, 64, 64), [tower.depth])[:, 0]
    torch.testing.assert_close(tower.project(stream[:, 0]), tower.pool(stream), **EXACT)


def test_a_tower_that_pools_nothing_says_so(tiny_config):
    tiny_config["vision_cfg"]["pool_type"] = "none"
    tower = ImageTower(Backbone(tiny_config, image_size=32))
    stream = tower.taps(torch.rand(1, 3, 32, 32), [4])[:, 0]
    with pytest.raises(ConfigError, match="has pool_type 'none', and so no feature"):
        tower.pool(stream)


@pytest.mark.parametrize("backbone", ["ViT-B-16-SigLIP"], indirect=True)
def test_what_looks_into_blocks_refuses_those_of_others(backbone):
    with pytest.raises(ConfigError, match="image tower of timm's, into whose blocks nothing can"):
        _ = ImageTower(backbone).blocks
    with pytest.raises(ConfigError, match="reads no sentence up to its end and no further"):
        _ = TextTower(backbone).causal_mask


@pytest.mark.parametrize("backbone", [BIOMED], indirect=True)
def test_what_looks_into_text_blocks_refuses_those_of_hugging_face(backbone):
    with pytest.raises(ConfigError, match="text tower of Hugging Face, into whose blocks nothing"):
        _ = TextTower(backbone).blocks


@pytest.mark.parametrize("backbone", ["ViT-B-16", "ViT-B-16-SigLIP", BIOMED], indirect=True)
def test_whatever_the_tokenizer_contexts_stand_where_prompts_say_and_learn(backbone):
    tower, phrases = TextTower(backbone), (["normal brain"], ["damaged liver tissue"])
    prompts = LearnablePrompts(tower.width, *phrases, context=3, positions=("end", "front"))
    first = tower.tokenizer.first
    with torch.no_grad():
        for context in prompts.ctx.values():
            context[:] = tower.embed(tower.tokenize(["x"]))[0, first]
        (end, front), ends = prompts.sequences(tower, "abnormal")
        tokens = tower.tokenize(["x x x damaged liver tissue."])
        plain = tower.embed(tokens)[0]
    torch.testing.assert_close(end, plain)
    torch.testing.assert_close(front[first : first + 3], plain[first + 3 : first + 6])
    torch.testing.assert_close(front[first + 3 : first + 6], plain[first : first + 3])
    assert ends.tolist() == tower.ends(tokens).tolist() * 2
    prompts(tower)[:, :3].sum().backward()
    assert all(one.grad.abs().max() > 0 for one in prompts.ctx.values())


@torch.no_grad()
def walk(name):
    """Whether the image tower of a model runs, on no device, at another size than its own."""
    config = {key: configs()[name][key] for key in ("embed_dim", "vision_cfg")}
    with torch.device("meta"):
        try:
            visual = Backbone(config, image_size=240).build().visual.eval()
        except WeightsError as error:
            assert str(error).endswith("take a ViT")  # noqa: PT017
            return False
        trunk = trunk_of(name, visual)
        stream = trunk.embed(torch.empty(1, 3, 240, 240))
        assert stream.shape[1] > trunk.prefix
        blocks = trunk.blocks_of(trunk.visual)
        pooled = trunk.pool(trunk.run(blocks, stream, 0, len(blocks)))
    assert pooled.shape == (1, config["embed_dim"])
    return True


@pytest.mark.parametrize("name", ["ViT-B-16", "ViT-B-16-SigLIP", "RN50", "convnext_base"])
def test_a_model_is_accepted_if_and_only_if_it_runs(name):
    assert walk(name) is EVERY_MODEL[name].runs


EVERY_MODEL = {name: kind for kind, names in families().items() for name in names}


@pytest.mark.nightly(
    also="tests/clip/test_families.py::test_a_model_is_accepted_if_and_only_if_it_runs"
)
@pytest.mark.parametrize("name", EVERY_MODEL)
def test_every_model_of_open_clips_list_is_accepted_if_and_only_if_it_runs(name):
    assert walk(name) is EVERY_MODEL[name].runs
