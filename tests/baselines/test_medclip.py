"""MedCLIP: its networks in transformers' names, its text's traps, its files, and its modes."""

import re
from zipfile import ZipFile

import pytest
import torch
import torch.nn.functional as F
from anomalib.engine import Engine
from tiny import lesion_data
from torchvision.models import resnet50
from transformers import BertConfig, BertModel, BertTokenizer, SwinConfig, SwinModel

from anomalib_medclip.baselines import MedCLIP, medclip_text
from anomalib_medclip.baselines.medclip_text import MedCLIPText, write_text_features
from anomalib_medclip.baselines.medclip_tower import MedCLIPBackbone, MedCLIPTower
from anomalib_medclip.baselines.medclip_visual import SwinVisual
from anomalib_medclip.baselines.medclip_weights import read_released, swin_in_timm
from anomalib_medclip.components.threshold import SUPPORT
from anomalib_medclip.errors import (
    BackboneMismatchError,
    ConfigError,
    NotReadyError,
    RuntimeMissingError,
    WeightsError,
)
from anomalib_medclip.score.inferencer import Inferencer
from anomalib_medclip.testing import MethodCase, parametrize_with_checks
from anomalib_medclip.training.checkpoints import read_checkpoint

SWIN = {"embed_dim": 16, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8), "window_size": 2}
SMALL = {"backbone": SWIN, "pretrained": None, "image_size": 32, "visualizer": False}


class SwinCase(MethodCase):
    """MedCLIP's case, which has no fewer stages to be had."""

    def shallow(self):
        return self.small()


OF_CLIP = {
    "says_the_object_if_its_prompts_name_it": "by default it reads no words; its text names it",
    "computes_in_the_precision_asked_for": "it computes in fp32",
    "runs_nothing_again_that_cannot_have_changed": "it has stages and no blocks of CLIP's",
    "holds_a_text_tower_only_if_images_need_it": "it reads no CLIP",
}


@parametrize_with_checks([SwinCase(MedCLIP, {k: SMALL[k] for k in list(SMALL)[:3]}, 1, 4, OF_CLIP)])
def test_promise(check):
    check()


@pytest.fixture(scope="module")
def swin():
    """transformers' Swin, random."""
    torch.manual_seed(0)
    sizes = {"image_size": 64, "patch_size": 4, "embed_dim": 16, "window_size": 2}
    found = SwinModel(SwinConfig(**sizes, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8])).eval()
    for parameter in found.parameters():  # biases and norms are zeros and ones else
        torch.nn.init.normal_(parameter, std=0.2)
    return found


def as_released(name):
    """A name of transformers 5, as version 4 had it, which the released file was written by."""
    for new, old in (
        (r"attention\.q_proj", "attention.self.query"),
        (r"attention\.k_proj", "attention.self.key"),
        (r"attention\.v_proj", "attention.self.value"),
        (r"attention\.relative_position_bias\.", "attention.self."),
        (r"attention\.o_proj", "attention.output.dense"),
        (r"mlp\.fc1", "intermediate.dense"),
        (r"mlp\.fc2", "output.dense"),
    ):
        name = re.sub(new, old, name)
    return name


@torch.no_grad()
@pytest.mark.parametrize("names", [as_released, str], ids=["version 4", "version 5"])
def test_timms_swin_gives_what_transformers_does(names, swin):
    visual = SwinVisual(64, SWIN).eval()
    state = {names(name): value for name, value in swin.state_dict().items()}
    index = torch.zeros(4, 4, dtype=torch.long)
    state["encoder.layers.0.blocks.0.attention.self.relative_position_index"] = index
    visual.model.load_state_dict(swin_in_timm(state))
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    found, expected = visual.stages(images), swin(images, output_hidden_states=True)
    torch.testing.assert_close(
        visual.model.norm(found[-1]), expected.last_hidden_state, atol=2e-5, rtol=1e-5
    )
    pooled = visual.projection_head(expected.pooler_output)
    torch.testing.assert_close(visual(images), pooled, atol=2e-5, rtol=1e-5)
    assert [tuple(one.shape[1:]) for one in found] == [(256, 16), (64, 32), (16, 64), (4, 128)]
    assert visual.widths == [16, 32, 64, 128]
    assert visual.sides == [16, 8, 4, 2]


def test_the_released_network_has_the_published_number_of_parameters():
    with torch.device("meta"):
        visual = SwinVisual(224, {})
    count = sum(one.numel() for one in visual.model.parameters())
    assert count == 28_288_354 - 1000 * 769  # less timm's own head
    assert visual.projection_head.weight.shape == (512, 768)


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "findings", ":", ".", "brain", "with", "damage", "a"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bert():
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 1}
    config = BertConfig(vocab_size=len(WORDS), intermediate_size=48, **sizes)
    return BertModel(config).eval()


@pytest.fixture(scope="module")
def released(swin, bert, tmp_path_factory):
    """An archive as its authors release it: the weights of both sides, in one file."""
    torch.manual_seed(2)
    state = {f"vision_model.model.{as_released(n)}": v for n, v in swin.state_dict().items()}
    state["vision_model.projection_head.weight"] = torch.randn(512, 128)
    state |= {f"text_model.model.{name}": value for name, value in bert.state_dict().items()}
    state["text_model.model.embeddings.position_ids"] = torch.arange(512)[None]
    state["text_model.projection_head.weight"] = torch.randn(512, 32)
    state["logit_scale"] = torch.tensor(3.0)
    folder = tmp_path_factory.mktemp("medclip")
    torch.save(state, folder / "pytorch_model.bin")
    with ZipFile(folder / "medclip-vit.zip", "w") as archive:
        archive.write(folder / "pytorch_model.bin", "medclip-vit/pytorch_model.bin")
    return folder


@pytest.mark.parametrize("name", ["medclip-vit.zip", "pytorch_model.bin"])
def test_weights_are_read_as_released(name, released, swin):
    loaded = MedCLIPBackbone(SWIN, str(released / name), 64).load()
    assert loaded.factor == pytest.approx(torch.tensor(3.0).exp().item())
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = loaded.clip.visual.projection_head(swin(images).pooler_output)
        torch.testing.assert_close(
            loaded.clip.visual.eval()(images), expected, atol=5e-5, rtol=1e-4
        )


@pytest.mark.parametrize(("said", "factor"), [(-1.0, 1.0), (9.0, 100.0)])
def test_the_factor_stays_between_1_and_100(said, factor, released, tmp_path):
    state = torch.load(released / "pytorch_model.bin")
    torch.save(state | {"logit_scale": torch.tensor(said)}, tmp_path / "pytorch_model.bin")
    loaded = MedCLIPBackbone(SWIN, str(tmp_path / "pytorch_model.bin"), 64).load()
    assert loaded.factor == pytest.approx(factor)
    assert (
        loaded.fingerprint
        == MedCLIPBackbone(SWIN, str(released / "medclip-vit.zip"), 64).load().fingerprint
    )


def test_a_residual_network_is_read_too(tmp_path):
    torch.manual_seed(0)
    net = resnet50(weights=None)
    net.fc = torch.nn.Linear(2048, 512, bias=False)
    state = {f"vision_model.model.{name}": value for name, value in net.state_dict().items()}
    torch.save(state | {"logit_scale": torch.tensor(1.0)}, tmp_path / "pytorch_model.bin")
    tower = MedCLIPTower(MedCLIPBackbone("resnet50", str(tmp_path / "pytorch_model.bin"), 64))
    images = torch.rand(1, 1, 64, 64).expand(-1, 3, -1, -1)
    with torch.no_grad():
        encoded = tower.taps(images, [2, 4])
        parts = tower.parted(encoded, [2, 4])
        expected = net.eval()((images - tower.mean) / tower.std)
    assert [tuple(one.shape) for one in parts] == [(1, 64, 512), (1, 4, 2048)]
    torch.testing.assert_close(tower.pool(parts[1]), expected, atol=1e-4, rtol=1e-3)


def test_files_that_are_no_weights_are_refused(released, tmp_path):
    with pytest.raises(WeightsError, match="cannot be read: it is missing"):
        read_released(tmp_path / "nowhere.zip")
    torch.save({"a": torch.ones(1)}, tmp_path / "other.bin")
    with pytest.raises(WeightsError, match="there is no logit_scale"):
        read_released(tmp_path / "other.bin")
    torch.save({"logit_scale": print}, tmp_path / "code.bin")
    with pytest.raises(WeightsError, match="holds more than tensors and plain values"):
        read_released(tmp_path / "code.bin")
    with pytest.raises(WeightsError, match=r"does not fit MedCLIP resnet50: .*size mismatch"):
        MedCLIPBackbone("resnet50", str(released / "medclip-vit.zip"), 64).load()


@torch.no_grad()
def test_it_sees_grey_levels_as_pillow_weighs_them():
    tower = MedCLIPTower(MedCLIPBackbone(SWIN, None, 32))
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    grey = (images * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    entered = (grey.expand(-1, 3, -1, -1) - 0.5862785803043838) / 0.27950088968644304
    expected = tower.visual.stages(entered)
    found = tower.parted(tower.taps(images, [1, 4]), [1, 4])
    torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[1], expected[3], atol=1e-5, rtol=1e-5)
    with pytest.raises(ConfigError, match="images of 3 x 40 x 40 came"):
        tower.taps(torch.rand(1, 3, 40, 40), [1])


@pytest.fixture(scope="module")
def text(released, tokenizer):
    return MedCLIPText.released(released / "medclip-vit.zip", tokenizer)


@torch.no_grad()
def test_a_sentence_is_the_mean_of_three_layers_over_all_positions(text, bert):
    """Padding, start and end included, so that a longer companion changes it."""
    short, longer = "findings : brain .", "findings : a brain with damage ."
    ids = text.tokenizer([short, longer], padding=True, return_tensors="pt")
    kept = {name: ids[name] for name in ("input_ids", "attention_mask")}
    assert kept["attention_mask"][0].sum() < kept["attention_mask"][1].sum()
    states = bert(**kept, output_hidden_states=True).hidden_states
    mean = (states[1].mean(1) + states[2].mean(1) + states[4].mean(1)) / 3
    expected = F.normalize(text.projection_head(mean), dim=1)
    torch.testing.assert_close(text([short, longer]), expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(text([short])[0], expected[0], atol=1e-4)
    long = " ".join(["a"] * 100)
    assert torch.equal(text([long]), text([long + " brain"])), "cut after 77 tokens"


@torch.no_grad()
def test_features_of_a_class_are_its_mean_sentence_and_are_kept_in_a_file(
    text, released, tokenizer, tmp_path
):
    normal, abnormal = ("findings : {} .", "a {} ."), ("{} with damage .",)
    found = text.features("brain", normal, abnormal)
    of_normal = text(["findings : brain .", "a brain ."])
    torch.testing.assert_close(found[0], of_normal.mean(0))
    assert found[0].norm() < 1
    given = {"tokenizer": tokenizer, "normal": normal, "abnormal": abnormal}
    path = write_text_features(
        tmp_path / "text.safetensors", released / "medclip-vit.zip", "brain", **given
    )
    options = {**SMALL, "mode": "text", "text_features": str(path)}
    method = MedCLIP(**options)
    assert torch.equal(method.model.prompts(None, "anything"), found)
    same = MedCLIP(
        **{**SMALL, "pretrained": str(released / "medclip-vit.zip"), "image_size": 64},
        mode="text", tokenizer=str(tokenizer), normal_prompts=normal, abnormal_prompts=abnormal,
    )  # fmt: skip
    torch.testing.assert_close(same.model.prompts(None, "brain"), found)


def test_without_transformers_or_words_it_says_what_to_do(
    released, tokenizer, tmp_path, monkeypatch
):
    with pytest.raises(WeightsError, match="give a folder with the tokenizer's files"):
        MedCLIPText.released(released / "medclip-vit.zip", tmp_path)
    with pytest.raises(NotReadyError, match="random weights have no language model"):
        MedCLIP(**SMALL, mode="text").model.prompts(None, "brain")
    monkeypatch.setattr(medclip_text, "find_spec", lambda name: None)
    with pytest.raises(RuntimeMissingError, match=r"pip install 'anomalib-medclip\[hf\]'"):
        MedCLIPText.released(released / "medclip-vit.zip", tokenizer)


def features_file(path, shape=(2, 512)):
    from safetensors.torch import save_file

    values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    save_file({"text": values}, str(path))
    return str(path)


def test_features_of_another_shape_are_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"are \(2, 9\), and should be \(2, 512\)"):
        MedCLIP(**SMALL, mode="text", text_features=features_file(tmp_path / "odd", (2, 9)))
    with pytest.raises(WeightsError, match="nowhere cannot be read"):
        MedCLIP(**SMALL, mode="text", text_features=str(tmp_path / "nowhere"))


@torch.no_grad()
def test_the_score_by_text_is_a_softmax_of_mean_cosines(tmp_path):
    model = MedCLIP(**SMALL, mode="text", text_features=features_file(tmp_path / "text")).model
    images, text = torch.rand(2, 3, 32, 32), model.prompts(None, "")
    encoded = model.encode(images)
    embedding = F.normalize(model.clip.pool(model.clip.parted(encoded, (2, 3, 4))[-1]), dim=1)
    expected = (model.clip.factor * embedding @ text.T).softmax(dim=1)[:, 1]
    found = model.score(encoded, text)
    torch.testing.assert_close(found.pred_score, expected)
    assert model.clip.factor == pytest.approx(1 / 0.07)
    assert found.anomaly_map.shape == (2, 32, 32)


@torch.no_grad()
def test_each_stage_has_a_bank_and_the_map_is_their_mean():
    model, random = (
        MedCLIP(**SMALL, image_score="embedding").model,
        torch.Generator().manual_seed(3),
    )
    normal = model.encode(torch.rand(2, 3, 32, 32, generator=random))
    owners = torch.arange(2)
    model.fit_support(normal, normal[None], owners < 0, owners)
    assert [tuple(bank.rows.shape) for bank in model.banks] == [
        (1, 2 * 16, 32), (1, 2 * 4, 64), (1, 2, 128)
    ]  # fmt: skip
    encoded, text = model.encode(torch.rand(1, 3, 32, 32, generator=random)), torch.eye(2, 512)
    maps = model.level_maps(encoded, text)["memory"]
    found = model.score(encoded, text)
    torch.testing.assert_close(found.anomaly_map, maps.mean(dim=0))
    whole = torch.cat([normal, encoded])
    embeddings = F.normalize(model.clip.pool(model.clip.parted(whole, (2, 3, 4))[-1]), dim=1)
    nearest = (1 - (embeddings[:2] @ embeddings[2]).max()) / 2
    assert found.pred_score.item() == pytest.approx(nearest.item(), abs=1e-3)
    own = model.score(normal, text).pred_score
    assert own.max() < 1e-3
    assert model.score(normal, text, owners).pred_score.min() > own.max()


@pytest.fixture(scope="module")
def by_text(lesions, tmp_path_factory):
    """A run by sentences, whose file of features is gone."""
    home = tmp_path_factory.mktemp("by_text")
    path = features_file(home / "text")
    model = MedCLIP(**SMALL, mode="text", text_features=path, cross_fit=False)
    engine = Engine(default_root_dir=home, accelerator="cpu", enable_progress_bar=False)
    engine.train(model, datamodule=lesion_data(lesions, val_ratio=0.01))
    (home / "text").unlink()
    return model, engine.trainer.checkpoint_callback.best_model_path


def test_a_checkpoint_needs_neither_language_model_nor_file(by_text, lesions):
    model, path = by_text
    assert model.threshold_from == SUPPORT
    image = torch.rand(2, 3, 32, 32)
    again = MedCLIP.load_from_checkpoint(path).eval()
    with torch.inference_mode():
        assert torch.equal(again(image).pred_score, model.eval()(image).pred_score)
    assert 0 <= Inferencer(path).predict(lesions / "images" / "abnormal" / "1.png").score <= 1


def test_another_network_is_refused(by_text):
    state = read_checkpoint(by_text[1])
    with pytest.raises(BackboneMismatchError, match="MedCLIP of a custom Swin, random seed 0, 32"):
        MedCLIP(**SMALL, mode="text", backbone_seed=1).on_load_checkpoint(state)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr": 0.1}, "MedCLIP trains nothing; leave lr out"),
        ({"precision": "bf16"}, "computes in fp32; leave quick_gelu and precision"),
        ({"backbone": "ViT-L-14"}, "networks are 'vit' and 'resnet50', and not 'ViT-L-14'"),
        ({"backbone": "vit", "image_size": 240}, "windows fit images of 224 px alone"),
    ],
)
def test_options_that_do_not_go_with_it_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        MedCLIP(**{**SMALL, **options})
