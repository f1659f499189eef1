"""What a backbone's name stands for, and what is said of how images enter it."""

import json
import logging

import pytest
import timm
import torch
from families import MORE, configs, small
from tiny import small as small_model

from anomalib_medclip import PlainCLIP
from anomalib_medclip.clip import hugging_face, source, weights
from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.clip.source import Stated, differences, read_source
from anomalib_medclip.clip.towers import ImageTower, TextTower
from anomalib_medclip.errors import ConfigError, RuntimeMissingError, WeightsError
from anomalib_medclip.models.mvfa import MVFA

BIOMED = next(iter(MORE))


@pytest.fixture
def folder(tiny_config, tmp_path):
    """A folder as open_clip writes it, with random weights of another seed than a backbone's."""
    clip = Backbone(tiny_config, image_size=32, seed=7).load().clip
    torch.save(clip.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    stated = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7], "interpolation": "bilinear"}
    content = {"model_cfg": tiny_config, "preprocess_cfg": stated}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(content))
    return tmp_path


@pytest.fixture
def no_hub(monkeypatch):
    monkeypatch.setattr(weights, "hub_is_out_of_reach", lambda: True)


# --- folders, repositories, timm's towers


@pytest.mark.parametrize("prefix", ["local-dir:", ""])
def test_a_folder_has_weights_of_its_own_whatever_tag_is_named(prefix, folder, tiny_config, caplog):
    with caplog.at_level(logging.INFO):
        found = Backbone(f"{prefix}{folder}", "openai", image_size=32).load()
    expected = Backbone(tiny_config, image_size=32, seed=7).load().clip
    assert torch.equal(found.clip.visual.proj, expected.visual.proj)
    assert "has weights of its own, and no tags: reading" in caplog.text


def test_a_file_goes_before_the_weights_of_a_folder(folder, tiny_config, tmp_path):
    other = Backbone(tiny_config, image_size=32, seed=9).load().clip
    torch.save(other.state_dict(), tmp_path / "mine.pt")
    found = Backbone(f"local-dir:{folder}", str(tmp_path / "mine.pt"), image_size=32).load()
    assert torch.equal(found.clip.visual.proj, other.visual.proj)


def spoil_nothing(folder):
    (folder / "open_clip_pytorch_model.bin").unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_nothing, "holds no weights, which open_clip would name open_clip_model.safetensors"),
        (lambda f: (f / "open_clip_config.json").unlink(), "open_clip_config.json is missing"),
        (lambda f: (f / "open_clip_config.json").write_text("{"), "is no JSON"),
        (lambda f: (f / "open_clip_config.json").write_text("{}"), "says no 'embed_dim' and"),
    ],
)
def test_a_folder_that_lacks_something_is_refused(spoil, words, folder):
    spoil(folder)
    with pytest.raises(WeightsError, match=words):
        Backbone(f"local-dir:{folder}", "any", image_size=32).load()


def test_without_network_a_repository_is_asked_for_as_a_folder(no_hub):
    with pytest.raises(WeightsError, match="copy the repository to a folder and name that by loc"):
        Backbone("hf-hub:nobody/nothing").load()


def test_a_repository_is_read_from_the_hubs_cache(folder, monkeypatch):
    asked = []

    def cached(repository, name):
        asked.append((repository, name))
        return str(folder / name)

    monkeypatch.setattr(source, "hf_hub_download", cached)
    source._hub_folder.cache_clear()
    found = Backbone("hf-hub:somebody/clip", "openai", image_size=32).load()
    source._hub_folder.cache_clear()
    expected = Backbone(f"local-dir:{folder}", "openai", image_size=32).load()
    assert found.fingerprint == expected.fingerprint
    assert asked == [("somebody/clip", "open_clip_config.json")]


@torch.no_grad()
@pytest.mark.parametrize("side", [160, 96])
def test_a_tower_of_timms_has_timms_numbers_and_no_text(side, tmp_path):
    torch.manual_seed(3)
    made = timm.create_model("test_vit", num_classes=0).eval()
    torch.save(made.state_dict(), tmp_path / "vit.pt")
    backbone = Backbone("timm:test_vit", str(tmp_path / "vit.pt"), side, normalize=True)
    tower, images = ImageTower(backbone), torch.rand(1, 3, side, side)
    mean, std = (torch.tensor(made.pretrained_cfg[key])[:, None, None] for key in ("mean", "std"))
    made.set_input_size((side, side))
    expected = made((images - mean) / std)
    found = tower.pool(tower.taps(images, [tower.depth])[:, 0])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    with pytest.raises(ConfigError, match="timm:test_vit is an image tower without text; take"):
        TextTower(backbone)


def test_the_way_positions_are_resized_is_that_of_timms_towers_too():
    def positions(how):
        built = Backbone("timm:test_vit", image_size=96, position_resize=how).load()
        return built.clip.visual.trunk.pos_embed

    ways = [positions(how) for how in ("bicubic, antialiased", "bicubic", "bilinear")]
    assert {one.shape[1] for one in ways} == {37}
    assert not torch.equal(ways[0], ways[1])
    assert not torch.equal(ways[1], ways[2])


@pytest.mark.parametrize(
    ("model", "pretrained", "words"),
    [
        ("timm:vit_nobody", None, "timm knows no network 'vit_nobody'"),
        ("timm:vit_small_patch14_dinov2", "openai", "its tags are: lvd142m; or give a local file"),
        ("timm:test_vit.nobody", None, "no weights 'nobody' for test_vit, its tags are: r160"),
        ("ViT-Z", None, "open_clip knows no model 'ViT-Z'; see .* local-dir:FOLDER"),
    ],
)
def test_names_that_there_are_not_are_refused(model, pretrained, words):
    with pytest.raises(WeightsError, match=words):
        Backbone(model, pretrained).load()


def test_a_method_keeps_numbers_and_a_file_and_names_no_folder(folder):
    model = small_model(MVFA, backbone=f"local-dir:{folder}", pretrained="any", image_size=32)
    kept = model.hparams["backbone"], model.hparams["pretrained"]
    assert kept[1] == str(folder / "open_clip_pytorch_model.bin")
    assert str(folder) not in json.dumps(kept[0])
    assert str(model.backbone).startswith(f"{folder.name}, weights open_clip_pytorch_model.bin")
    again = small_model(MVFA, backbone=kept[0], pretrained=kept[1], image_size=32)
    assert again.model.clip.fingerprint == model.model.clip.fingerprint
    assert again.model.clip.stated.mean == (0.1, 0.2, 0.3)


@pytest.mark.parametrize("name", ["hf-hub:nobody/nothing", "local-dir:here"])
def test_a_tower_of_timms_is_one_of_its_list(name, tiny_config):
    config = tiny_config | {"vision_cfg": {"timm_model_name": name}}
    with pytest.raises(WeightsError, match=f"timm knows no network '{name}'"):
        Backbone(config).load()


def test_the_tag_of_a_name_of_timms_is_taken_whatever_else_is_said(monkeypatch):
    asked = []
    monkeypatch.setattr(source, "download", lambda title, entry: asked.append((title, entry)))
    for name, tag in (("timm:test_vit.r160_in1k", "openai"), ("timm:test_vit", "r160_in1k")):
        source.weights_of(read_source(name), tag)
    assert asked[0] == asked[1]
    assert asked[0][0] == "test_vit.r160_in1k"


def test_a_size_that_is_no_multiple_of_the_patch_is_refused_where_a_tower_takes_no_other():
    with pytest.raises(ConfigError, match=r"image_size is 70, and must be a multiple of 16 for ti"):
        ImageTower(Backbone("timm:test_vit", image_size=70))
    tower = ImageTower(Backbone("timm:test_vit_relpos", image_size=70))
    assert tower.taps(torch.rand(1, 3, 70, 70), [1]).isfinite().all()


@pytest.mark.parametrize(("backbone", "said"), [("timm:test_vit", 1), (None, 0)])
def test_an_activation_that_a_tower_does_not_take_is_said(backbone, said, caplog):
    given = {"backbone": backbone, "image_size": 64, "mode": "memory"} if backbone else {}
    small_model(
        PlainCLIP, quick_gelu=not small_model(PlainCLIP, **given).hparams["quick_gelu"], **given
    )
    assert caplog.text.count("has no effect beside towers of timm and of Hugging Face") == said


# --- files of others


def test_a_folder_that_is_gone_is_asked_for_as_a_backbone():
    words = r"is missing; copy the model's folder there, or name another .*--model\.backbone loc"
    with pytest.raises(WeightsError, match=words):
        Backbone("local-dir:nowhere").load()


def test_a_state_dict_of_a_training_in_openais_names_is_read(tiny_config, tmp_path):
    clip = Backbone(tiny_config, image_size=32, seed=7).load().clip
    torch.save({"epoch": 3, "state_dict": clip.state_dict()}, path := tmp_path / "PubMedCLIP.pth")
    found = Backbone(tiny_config, str(path), image_size=32).load().clip
    assert torch.equal(found.visual.proj, clip.visual.proj)


def test_a_state_dict_in_the_names_of_hugging_face_is_refused(tiny_config, tmp_path):
    from transformers import CLIPConfig, CLIPModel

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 2}
    made = CLIPModel(CLIPConfig(text_config=sizes, vision_config=sizes, projection_dim=16))
    torch.save(made.state_dict(), path := tmp_path / "PubMedCLIP.bin")
    with pytest.raises(WeightsError, match=r"PubMedCLIP\.bin does not fit custom CLIP"):
        Backbone(tiny_config, str(path), image_size=32).load()


# --- how images enter


@pytest.mark.parametrize(
    ("model", "pretrained", "mean"),
    [
        ("ViT-B-16-SigLIP", "webli", (0.5, 0.5, 0.5)),
        ("ViT-B-16-SigLIP", "a_file.pt", (0.5, 0.5, 0.5)),  # as all its tags are
        ("ViT-L-14-336", "openai", Stated.mean),
        ("timm:vit_small_patch14_dinov2", "a_file.pt", (0.485, 0.456, 0.406)),
    ],
)
def test_the_mean_that_is_stated_for_weights_is_known(model, pretrained, mean):
    assert read_source(model).stated(pretrained).mean == mean


def test_images_are_normalised_as_is_stated(folder):
    images = torch.rand(1, 3, 32, 32)
    plain, own = (ImageTower(Backbone(f"{folder}", "x", 32, normalize=n)) for n in (False, True))
    mean = torch.tensor([0.1, 0.2, 0.3])[:, None, None]
    std = torch.tensor([0.5, 0.6, 0.7])[:, None, None]
    torch.testing.assert_close(own.taps(images, [4]), plain.taps((images - mean) / std, [4]))
    other = json.loads((folder / "open_clip_config.json").read_text()) | {"preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(other))
    again = [ImageTower(Backbone(f"{folder}", "x", 32, normalize=n)) for n in (False, True)]
    assert again[0].fingerprint == plain.fingerprint, "without normalisation it is the same"
    assert again[1].fingerprint != own.fingerprint


def test_what_differs_from_training_is_said_once_in_the_log(folder, caplog):
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            MVFA(backbone=f"local-dir:{folder}", pretrained="x", image_size=32, levels=[1, 2])
    said = [one.getMessage() for one in caplog.records if "trained with" in one.getMessage()]
    [words] = said
    assert "no normalisation, trained with mean (0.1, 0.2, 0.3) and deviation (0.5, " in words
    assert "resized by bicubic, trained with bilinear" in words


def test_what_does_not_differ_is_not_said():
    stated = Stated(interpolation="bicubic", quick_gelu=True)
    assert not differences(stated, quick_gelu=True, normalize=True, interpolation="bicubic")


# --- Hugging Face


def test_without_transformers_the_extra_is_named(monkeypatch, tmp_path):
    name = small(configs()["ViT-B-16-SigLIP"], tmp_path)
    monkeypatch.setattr(hugging_face, "find_spec", lambda _name: None)
    with pytest.raises(RuntimeMissingError, match=r"pip install 'anomalib-medclip\[hf\]'"):
        TextTower(Backbone(name, image_size=64))


@pytest.mark.parametrize("lost", ["config.json", "tokenizer.json"])
def test_files_that_are_not_there_are_named_with_where_to_put_them(lost, tmp_path, no_hub):
    name = small(configs()[BIOMED], tmp_path)
    (tmp_path / lost).unlink()
    with pytest.raises(WeightsError, match="put the files beside open_clip_config"):
        TextTower(Backbone(name, image_size=64))


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_that_a_file_names_is_not_run(file, tmp_path):
    name = small(configs()[BIOMED], tmp_path)
    content = json.loads((tmp_path / file).read_text()) | {"auto_map": {"AutoConfig": "x.Harm"}}
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(WeightsError, match="names code of its own"):
        TextTower(Backbone(name, image_size=64))


def test_options_that_reach_transformers_are_refused(tmp_path):
    name = small(configs()[BIOMED], tmp_path)
    path = tmp_path / "open_clip_config.json"
    content = json.loads(path.read_text())
    content["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"trust_remote_code": True}
    path.write_text(json.dumps(content))
    with pytest.raises(WeightsError, match=r"tokenizer options .'trust_remote_code'., of which"):
        TextTower(Backbone(name, image_size=64))


@pytest.mark.parametrize("part", ["hf_model_name", "hf_tokenizer_name"])
def test_a_checkpoint_names_no_part_of_a_text_on_the_hub(part, tiny_config, tmp_path):
    tiny_config["text_cfg"] |= {part: str(tmp_path)}
    source.check_names_nothing(tiny_config)
    tiny_config["text_cfg"] |= {part: "somebody/text"}
    with pytest.raises(WeightsError, match=f"checkpoint's {part} is 'somebody/text', which is n"):
        source.check_names_nothing(tiny_config)


# --- without text


def test_anchors_take_the_place_of_words_and_learn():
    model = small_model(MVFA, backbone="timm:test_vit", image_size=64, prompts="anchors").model
    text = model.prompts()
    torch.testing.assert_close(text.norm(dim=-1), torch.ones(2))
    encoded = model.encode(torch.rand(2, 3, 64, 64))
    model.loss(encoded, None, torch.tensor([False, True]), text).backward()
    assert model.prompts.anchors.grad.abs().max() > 0


def test_what_reads_words_is_refused_where_there_are_none_before_any_work():
    with pytest.raises(ConfigError, match=r"without text; take a CLIP, or .* prompts: anchors"):
        small_model(MVFA, backbone="timm:test_vit", image_size=64)


@pytest.mark.parametrize("model", ["timm:test_vit_relpos", "timm:vit_pe_core_tiny_patch16_384"])
def test_blocks_that_know_places_take_no_tokens_of_others(model):
    with pytest.raises(ConfigError, match="knows in every block where each token stands"):
        ImageTower(Backbone(model, image_size=64)).check_takes_tokens()
    ImageTower(Backbone("timm:test_vit", image_size=64)).check_takes_tokens()


@pytest.mark.parametrize("model", [BIOMED, "timm:test_vit"])
def test_the_depth_of_a_text_tower_is_that_of_clips_own(model, tmp_path):
    name = small(configs()[model], tmp_path) if model == BIOMED else model
    with pytest.raises(ConfigError, match=r"Hugging Face, into whose|image tower without text"):
        _ = Backbone(name).text_depth
    assert Backbone("ViT-B-16").text_depth == 12


def test_anchors_name_no_object_and_say_so(caplog):
    small_model(MVFA, prompts="anchors", object_name="brain")
    assert "object_name is 'brain', and has no effect beside prompts: anchors" in caplog.text
