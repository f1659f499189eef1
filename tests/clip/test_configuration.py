"""Configurations from anybody: what is none is refused by its name, and none runs code."""

import json
import re
from inspect import signature
from pathlib import Path

import pytest
import torch
from families import MORE, configs, small
from open_clip.tokenizer import HFTokenizer

from anomalib_medclip import IQECLIP, VCPCLIP, AdaCLIP, PlainCLIP
from anomalib_medclip.clip import hugging_face, weights
from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.clip.configuration import check_harmless, checked, tokenizer_options
from anomalib_medclip.clip.source import read_source
from anomalib_medclip.clip.towers import TextTower
from anomalib_medclip.errors import WeightsError

BIOMED = next(iter(MORE))
WORDS = "embed_dim", "vision_cfg"


# --- code


def with_code(folder, name="auto_map"):
    """A tokenizer that would leave a mark in its folder, if what it names were run."""
    small(configs()["ViT-B-16-SigLIP"], folder)
    mark = folder / "touched"
    code = f"open({str(mark)!r}, 'w').close()\nclass Harm:\n    pass\n"
    (folder / "tokenization_harm.py").write_text(code)
    path = folder / "tokenizer_config.json"
    said = json.loads(path.read_text()) | {"tokenizer_class": "Harm"}
    text = json.dumps(said)[:-1]
    path.write_text(f'{text}, "{name}": {{"AutoTokenizer": [null, "tokenization_harm.Harm"]}}}}')
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    config["vision_cfg"] = configs()["ViT-B-16"]["vision_cfg"] | {
        "image_size": 64, "layers": 4, "width": 32, "head_width": 16, "patch_size": 16
    }  # fmt: skip
    config["text_cfg"] |= {"hf_tokenizer_name": str(folder), "no_causal_mask": False}
    config["text_cfg"] |= {"pool_type": "argmax", "tokenizer_kwargs": {"trust_remote_code": True}}
    return config, mark


NAMES = ["auto_map", "auto\\u005fmap"]


@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["folder", "mapping"])
def test_a_tokenizer_runs_no_code_of_its_folder(form, name, allowed, tmp_path):
    config, mark = with_code(tmp_path, name)
    if not allowed:
        del config["text_cfg"]["tokenizer_kwargs"]
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    model = config if form == "mapping" else f"local-dir:{tmp_path}"
    with pytest.raises(WeightsError, match=r"names code of its own|'trust_remote_code'"):
        TextTower(Backbone(model, image_size=64))
    assert not mark.exists()


@pytest.mark.parametrize("method", [AdaCLIP, VCPCLIP, IQECLIP])
def test_a_checkpoint_runs_no_code_of_a_folder_that_it_names(method, tmp_path):
    config, mark = with_code(tmp_path)
    options = {"backbone": config, "pretrained": None, "image_size": 64}
    state = {"state_dict": {}, "hyper_parameters": options, "anomalib_medclip": {}}
    torch.save(state | {"pytorch-lightning_version": "2.5.0"}, path := tmp_path / "x.ckpt")
    with pytest.raises(WeightsError, match=r"tokenizer options .'trust_remote_code'."):
        method.load_from_checkpoint(path)
    assert not mark.exists()


def test_what_is_made_of_a_tokenizer_trusts_no_code(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    asked = []
    made = transformers.AutoTokenizer.from_pretrained

    def noted(name, **options):
        asked.append(options)
        return made(name, **options)

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", noted)
    TextTower(Backbone(small(configs()[BIOMED], tmp_path), image_size=64))
    # Where open_clip passes nothing on, transformers would ask; what it would run is refused.
    passes_on = "kwargs" in signature(HFTokenizer).parameters
    assert [one.get("trust_remote_code") for one in asked] == [False if passes_on else None]


def test_no_file_of_code_is_fetched_from_a_repository(tmp_path, monkeypatch):
    asked = []

    def fetch(_name, allow_patterns):
        asked.extend(allow_patterns)
        return str(tmp_path)

    source = read_source({**dict.fromkeys(WORDS, 1), "vision_cfg": {}, "text_cfg": {
        "hf_tokenizer_name": "some/body"}})  # fmt: skip
    monkeypatch.setattr(hugging_face, "snapshot_download", fetch)
    hugging_face.tokenizer_folder(source)
    for name in ("tokenizer.py", "tokenization_x.py", "vocab.pkl", "vocab.py", "model.bin"):
        assert not any(Path(name).match(one) for one in asked), name
    for name in ("tokenizer.json", "vocab.txt", "merges.txt", "vocab.json", "spiece.model"):
        assert any(Path(name).match(one) for one in asked), name


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", {"text": [{"auto_map": {}}]}),
        ("config.4.0.json", {"auto_map": {}}),
        ("config.json", {"configuration_files": ["config.4.0.json"]}),
        ("config.json", {"_attn_implementation": "somebody/kernel"}),
    ],
)
def test_no_way_round_to_code_is_left(name, content, tmp_path):
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(WeightsError, match=re.escape(name)):
        check_harmless(tmp_path)


@pytest.mark.parametrize(
    "options", [{"bpe_path": "x"}, {"reduction_mask": "syntax"}, {"clean": "zzz"}]
)
def test_clips_own_tokenizer_takes_no_file_and_fetches_nothing(options):
    with pytest.raises(WeightsError, match=r"tokenizer_kwargs"):
        tokenizer_options("it", {"tokenizer_kwargs": options})
    kept = {"tokenizer_kwargs": {"clean": "canonicalize"}}
    assert tokenizer_options("it", kept) == {"clean": "canonicalize"}


def test_options_that_open_clips_own_models_have_are_known():
    for name, config in configs().items():
        said = config.get("text_cfg", {}).get("tokenizer_kwargs", {})
        assert tokenizer_options(name, config.get("text_cfg", {})).items() >= said.items()
        assert checked(name, config) == (config, {})


# --- damage

VISION = {"layers": 2, "width": 32, "patch_size": 8, "image_size": 32}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], r"model_cfg is \[\], and it must be an object"),
        ({"model_cfg": 3}, "model_cfg is 3"),
        ({"embed_dim": "x", "vision_cfg": {}}, "embed_dim is 'x', and it must be a whole number"),
        ({"embed_dim": 32, "vision_cfg": []}, r"vision_cfg is \[\], and it must be an object"),
        ({"text_cfg": None}, "text_cfg is None, and it must be an object, or be left out"),
        ({"text_cfg": {"tokenizer_kwargs": [1]}}, r"tokenizer_kwargs is \[1\]"),
        ({"text_cfg": {"layers": 10**6}}, "text_cfg: layers is 1000000"),
        ({"text_cfg": {"context_length": 10**6}}, "context_length is 1000000"),
        ({"text_cfg": {"hf_model_name": 3}}, "hf_model_name is 3, and it must be a name"),
        ({"quick_gelu": 3}, "quick_gelu is 3"),
        (
            {"vision_cfg": {"timm_model_name": "hf-hub:a/b"}},
            "network 'hf-hub:a/b' for",
        ),
        ({"preprocess_cfg": {"mean": [1]}}, r"mean is \[1\], and it must be three numbers"),
        ({"preprocess_cfg": {"std": [1, 1, 0]}}, r"std is \[1, 1, 0\]"),
        ({"preprocess_cfg": 3}, "preprocess_cfg is 3"),
        ({"text_cfg": {}, "vision_cfg": VISION | {"patch_size": 64}}, "open_clip cannot build"),
    ],
)
def test_a_damaged_configuration_is_named(content, words, tmp_path):
    if isinstance(content, dict) and "model_cfg" not in content:
        enters = content.pop("preprocess_cfg", {})
        config = {"embed_dim": 32, "vision_cfg": VISION} | content
        content = {"model_cfg": config, "preprocess_cfg": enters}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(content))
    with pytest.raises(WeightsError, match=words) as caught:
        PlainCLIP(backbone=f"local-dir:{tmp_path}", pretrained=None, image_size=32)
    assert tmp_path.name in str(caught.value)


def test_tokens_that_a_text_tower_does_not_know_are_refused(tmp_path):
    name = small(configs()["ViT-B-16-SigLIP"], tmp_path)
    path = tmp_path / "open_clip_config.json"
    content = json.loads(path.read_text())
    content["model_cfg"]["text_cfg"]["vocab_size"] = 3
    path.write_text(json.dumps(content))
    with pytest.raises(WeightsError, match=r"has a token \d+, and its text tower knows 3, from 0"):
        TextTower(Backbone(name, image_size=64)).encode(["a brain"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "timm_wrapper"}, "model_type is 'timm_wrapper', and it must be one of"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000"),
        ({"max_position_embeddings": 8}, "cannot read 24 tokens"),
    ],
)
def test_a_text_tower_that_cannot_be_is_refused(change, words, tmp_path):
    name = small(configs()[BIOMED], tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(WeightsError, match=words):
        TextTower(Backbone(name, image_size=64))


def test_a_tokenizer_whose_library_panics_is_named(tmp_path):
    name = small(configs()[BIOMED], tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text())
    content["post_processor"]["single"][0]["SpecialToken"]["id"] = "[NO]"
    path.write_text(json.dumps(content))
    with pytest.raises(WeightsError, match=r"holds no tokenizer that transformers reads: no entry"):
        TextTower(Backbone(name, image_size=64))


@pytest.mark.parametrize("name", ["n" * 300, "a\0b", "/" + "n" * 300])
def test_a_name_that_no_file_can_have_is_refused(name, monkeypatch):
    monkeypatch.setattr(weights, "hub_is_out_of_reach", lambda: True)
    text = {"hf_tokenizer_name": name, "hf_model_name": name}
    with pytest.raises(WeightsError, match=r"could not read|is gone"):
        TextTower(Backbone({"embed_dim": 32, "vision_cfg": VISION, "text_cfg": text}))


@pytest.mark.parametrize("part", ["hf_model_name", "hf_tokenizer_name"])
def test_a_folder_of_texts_that_is_gone_is_not_asked_of_the_hub(part, tmp_path):
    small(configs()[BIOMED], tmp_path)
    config = json.loads((tmp_path / "open_clip_config.json").read_text())["model_cfg"]
    names = ("hf_model_name", "hf_tokenizer_name")
    config["text_cfg"] |= dict.fromkeys(names, str(tmp_path)) | {part: str(tmp_path / "gone")}
    with pytest.raises(WeightsError, match=r"gone is gone, where files lay .* copy them there"):
        TextTower(Backbone(config, image_size=64))
