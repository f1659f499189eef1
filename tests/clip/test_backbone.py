import logging

import open_clip
import pytest
import torch
from open_clip.model import resize_pos_embed
from open_clip.transformer import QuickGELU
from torch import nn

from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.clip.towers import ImageTower, TextTower
from anomalib_medclip.errors import WeightsError

SENTENCES = ["a photo of a brain.", "there is a damaged liver in the scene."]


def activations(tower):
    return {type(block.mlp.gelu) for block in tower.blocks}


def save(tmp_path, state, name="clip.pt"):
    path = tmp_path / name
    torch.save(state, path)
    return str(path)


# --- what the towers compute


def test_without_adaptation_the_image_tower_is_open_clips_own(tiny_image_tower, tiny_clip, images):
    stream = tiny_image_tower.taps(images, [4])[:, 0]
    torch.testing.assert_close(
        tiny_image_tower.pool(stream), tiny_clip.encode_image(images), rtol=1e-5, atol=1e-6
    )


def test_the_text_tower_is_open_clips_own(tiny_text_tower, tiny_clip):
    tokens = open_clip.tokenize(SENTENCES)
    ours = tiny_text_tower(tiny_text_tower.tokenize(SENTENCES))
    torch.testing.assert_close(ours, tiny_clip.encode_text(tokens), rtol=1e-5, atol=1e-6)


def test_encoded_sentences_are_unit_vectors_whatever_the_chunk(tiny_text_tower):
    together = tiny_text_tower.encode(SENTENCES)
    torch.testing.assert_close(together.norm(dim=-1), torch.ones(2))
    torch.testing.assert_close(together, tiny_text_tower.encode(SENTENCES, chunk=1))


@pytest.mark.parametrize("levels", [[1], [2, 3], [1, 2, 3, 4]])
def test_the_stream_is_shown_after_every_level_and_ends_at_the_last(tiny_image_tower, levels):
    images, seen = torch.rand(1, 3, 32, 32), []

    def note(level, stream):
        seen.append((level, stream))
        return stream

    taps = tiny_image_tower.taps(images, levels)
    assert taps.shape == (1, len(levels), 1 + 16, 32)
    last = tiny_image_tower.resume(taps[:, 0], levels, note)
    assert [level for level, _ in seen] == list(range(len(levels)))
    torch.testing.assert_close(torch.stack([stream for _, stream in seen], dim=1), taps)
    assert torch.equal(last, seen[-1][1])


def test_what_the_tap_returns_enters_the_next_block(tiny_image_tower, images):
    def erase_first(level, stream):
        return stream * 0 if level == 0 else stream

    erased = tiny_image_tower.resume(tiny_image_tower.taps(images, [2])[:, 0], [2, 3], erase_first)
    block = tiny_image_tower.visual.transformer.resblocks[2]
    expected = block(torch.zeros(2, 17, 32))
    torch.testing.assert_close(erased, expected)


def test_normalisation_is_clips_mean_and_deviation(tiny_config, tiny_image_tower, images):
    mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN).view(3, 1, 1)
    std = torch.tensor(open_clip.OPENAI_DATASET_STD).view(3, 1, 1)
    normalizing = ImageTower(Backbone(tiny_config, image_size=32, normalize=True))
    torch.testing.assert_close(
        normalizing.taps(images, [4]),
        tiny_image_tower.taps((images - mean) / std, [4]),
    )


# --- activation and grid, said explicitly


@pytest.mark.parametrize("tower", [ImageTower, TextTower])
def test_gelu_is_exact_unless_the_quick_one_is_asked_for(tower, tiny_config):
    assert activations(tower(Backbone(tiny_config, image_size=32))) == {nn.GELU}
    quick = tower(Backbone(tiny_config, image_size=32, quick_gelu=True))
    assert activations(quick) == {QuickGELU}


def test_the_exact_gelu_is_not_the_tanh_approximation(tiny_image_tower):
    gelu = tiny_image_tower.visual.transformer.resblocks[0].mlp.gelu
    assert gelu.approximate == "none"


@pytest.mark.parametrize("quick", [False, True])
def test_weights_named_openai_do_not_change_activation_or_grid(monkeypatch, tmp_path, quick):
    """open_clip's own loader would take QuickGELU and 336 px; the size of the net is cut here."""
    config = open_clip.get_model_config("ViT-L-14-336")
    config["vision_cfg"] |= {"layers": 2, "width": 64}
    config["text_cfg"] |= {"layers": 1, "width": 16, "heads": 2, "vocab_size": 64}
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: config)
    native = Backbone("ViT-L-14-336", image_size=336, seed=3).load().clip
    file = save(tmp_path, native.state_dict())
    monkeypatch.setattr("open_clip.pretrained.download_pretrained", lambda entry: file)
    monkeypatch.setattr("urllib.request.urlopen", lambda *a, **k: open(file, "rb"))  # noqa: PTH123, SIM115

    tower = ImageTower(Backbone("ViT-L-14-336", "openai", image_size=240, quick_gelu=quick))
    assert activations(tower) == {QuickGELU if quick else nn.GELU}
    assert tower.visual.positional_embedding.shape == (17 * 17 + 1, 64)
    assert torch.equal(tower.visual.conv1.weight, native.visual.conv1.weight)


def test_a_model_named_quickgelu_keeps_its_activation():
    assert Backbone("ViT-B-32-quickgelu").config()["quick_gelu"] is True
    assert Backbone("ViT-B-32").config()["quick_gelu"] is False


def test_building_a_config_leaves_the_users_alone(tiny_config):
    Backbone(tiny_config, image_size=48, quick_gelu=True).config()
    assert tiny_config["vision_cfg"]["image_size"] == 32
    assert "quick_gelu" not in tiny_config


@pytest.mark.parametrize("side", [24, 48, 56])
def test_the_position_embedding_is_resized_as_open_clip_does(
    tiny_config, tiny_clip, tmp_path, side
):
    file = save(tmp_path, tiny_clip.state_dict())
    tower = ImageTower(Backbone(tiny_config, file, image_size=side))

    reference = Backbone(tiny_config, image_size=side).load().clip
    state = tiny_clip.state_dict()
    resize_pos_embed(state, reference)
    assert tower.visual.positional_embedding.shape == ((side // 8) ** 2 + 1, 32)
    assert torch.equal(tower.visual.positional_embedding, state["visual.positional_embedding"])
    assert tower.taps(torch.rand(1, 3, side, side), [4]).isfinite().all()


def test_the_class_tokens_position_survives_a_resize(tiny_config, tiny_clip, tmp_path):
    file = save(tmp_path, tiny_clip.state_dict())
    tower = ImageTower(Backbone(tiny_config, file, image_size=64))
    native = tiny_clip.visual.positional_embedding
    assert torch.equal(tower.visual.positional_embedding[0], native[0])


# --- frozen


def test_nothing_in_a_tower_requires_a_gradient(tiny_image_tower, tiny_text_tower):
    for tower in (tiny_image_tower, tiny_text_tower):
        assert list(tower.parameters())
        assert not any(p.requires_grad for p in tower.parameters())


def test_the_image_tower_stays_in_evaluation_mode_inside_a_training_model(tiny_image_tower):
    model = nn.Sequential(nn.Dropout(), tiny_image_tower).train()
    assert model.training
    assert not any(module.training for module in tiny_image_tower.modules())


def test_no_gradient_is_recorded_for_what_no_training_changes(tiny_image_tower):
    images = torch.rand(1, 3, 32, 32, requires_grad=True)
    assert not tiny_image_tower.taps(images, [2, 4]).requires_grad


def test_gradients_flow_from_the_last_level_back_to_the_first_tap(tiny_image_tower, images):
    shift = torch.zeros(32, requires_grad=True)

    def adapt(level, stream):
        return stream + shift if level == 0 else stream

    stream = tiny_image_tower.taps(images, [2])[:, 0]
    tiny_image_tower.resume(stream, [2, 4], adapt)[:, 1:].square().mean().backward()
    assert shift.grad.abs().max() > 0


# --- random weights


def test_random_weights_repeat_with_their_seed(tiny_config):
    one, again, other = (
        Backbone(tiny_config, image_size=32, seed=seed).load().clip.state_dict()
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["visual.conv1.weight"], other["visual.conv1.weight"])


def test_random_weights_leave_the_global_generator_alone(tiny_config):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    Backbone(tiny_config, image_size=32, seed=1).load()
    assert torch.equal(torch.rand(3), expected)


def test_random_weights_are_announced(tiny_config, caplog):
    with caplog.at_level(logging.INFO):
        Backbone(tiny_config, image_size=32, seed=9).load()
    assert "custom CLIP has random weights (seed 9)" in caplog.text


# --- fingerprint


def test_two_equal_builds_have_one_fingerprint(tiny_config, tiny_image_tower):
    print_ = tiny_image_tower.fingerprint
    assert len(print_) == 16
    assert ImageTower(Backbone(tiny_config, image_size=32)).fingerprint == print_


def test_the_same_weights_have_the_same_fingerprint_wherever_they_lie(
    tiny_config, tiny_clip, tmp_path
):
    files = [save(tmp_path, tiny_clip.state_dict(), name) for name in ("one.pt", "other.pt")]
    one, other = (ImageTower(Backbone(tiny_config, file, image_size=32)) for file in files)
    assert one.fingerprint == other.fingerprint


def test_the_fingerprint_does_not_hang_on_how_the_processor_rounds(
    tiny_config, tiny_clip, tmp_path, monkeypatch
):
    file = save(tmp_path, tiny_clip.state_dict())
    here = ImageTower(Backbone(tiny_config, file, image_size=48))

    def resize_elsewhere(state, model, *how):
        resize_pos_embed(state, model, *how)
        state["visual.positional_embedding"] *= 1 + 1e-7

    monkeypatch.setattr("anomalib_medclip.clip.loading.resize_pos_embed", resize_elsewhere)
    there = ImageTower(Backbone(tiny_config, file, image_size=48))
    assert not torch.equal(there.visual.positional_embedding, here.visual.positional_embedding)
    assert there.fingerprint == here.fingerprint


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"image_size": 40}, {"quick_gelu": True}, {"normalize": True}]
)
def test_the_fingerprint_changes_with(changes, tiny_config, tiny_image_tower):
    other = ImageTower(Backbone(tiny_config, **{"image_size": 32} | changes))
    assert other.fingerprint != tiny_image_tower.fingerprint


@pytest.mark.parametrize(
    "change", [{"quick_gelu": True}, {"vision_cfg": {"head_width": 8}}], ids=["activation", "heads"]
)
def test_the_fingerprint_sees_what_weights_do_not_show(change, tiny_config, tiny_image_tower):
    vision = tiny_config["vision_cfg"] | change.pop("vision_cfg", {})
    config = tiny_config | {"vision_cfg": vision} | change
    other = ImageTower(Backbone(config, image_size=32))
    assert torch.equal(other.visual.conv1.weight, tiny_image_tower.visual.conv1.weight)
    assert other.fingerprint != tiny_image_tower.fingerprint


def test_the_fingerprint_sees_a_single_changed_tensor(tiny_config, tiny_clip, tmp_path):
    state = tiny_clip.state_dict()
    before = save(tmp_path, state, "before.pt")
    after = save(tmp_path, state | {"visual.ln_post.bias": state["visual.ln_post.bias"] + 0.1})
    one, other = (
        ImageTower(Backbone(tiny_config, file, image_size=32)) for file in (before, after)
    )
    assert one.fingerprint != other.fingerprint


# --- what is refused


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("RN50", "RN50 has the image tower ModifiedResNet, .* no residual blocks .* take a ViT"),
        ("convnext_base", "convnext_base has the image tower ConvNeXt, .* one grid .* take a ViT"),
        ("swin_base_patch4_window7_224", "the image tower SwinTransformer, .* take a ViT"),
    ],
)
def test_towers_without_a_plain_sequence_of_blocks_are_refused_by_name(model, words):
    with pytest.raises(WeightsError, match=words):
        Backbone(model).load()


def test_a_resnet_of_ones_own_is_refused(tiny_config):
    tiny_config["vision_cfg"]["layers"] = [1, 1, 1, 1]
    with pytest.raises(WeightsError, match="custom CLIP has the image tower ModifiedResNet"):
        Backbone(tiny_config).load()


def test_an_unknown_model_name_says_where_names_are_listed():
    with pytest.raises(WeightsError, match=r"no model 'ViT-Z-9'; see open_clip.list_models\(\)"):
        Backbone("ViT-Z-9").load()


def test_weights_of_another_model_do_not_fit(tiny_config, tiny_clip, tmp_path):
    file = save(tmp_path, tiny_clip.state_dict(), "narrow.pt")
    tiny_config["vision_cfg"]["width"] = 48
    with pytest.raises(
        WeightsError, match=r"(?s)narrow.pt does not fit custom CLIP: .*size mismatch"
    ):
        Backbone(tiny_config, file, image_size=32).load()


def test_weights_of_one_tower_alone_do_not_fit(tiny_config, tiny_clip, tmp_path):
    file = save(tmp_path, tiny_clip.visual.state_dict(), "visual.pt")
    with pytest.raises(
        WeightsError, match=r"visual.pt does not fit custom CLIP: .*Missing key"
    ) as caught:
        Backbone(tiny_config, file, image_size=32).load()
    assert len(str(caught.value)) < 300 + len(file) + 50, "not every key there is"


def test_weights_of_another_patch_size_do_not_fit_at_another_image_size(
    tiny_config, tiny_clip, tmp_path
):
    file = save(tmp_path, tiny_clip.state_dict(), "coarse.pt")
    tiny_config["vision_cfg"]["patch_size"] = 4
    with pytest.raises(WeightsError, match=r"coarse.pt does not fit"):
        Backbone(tiny_config, file, image_size=48).load()
