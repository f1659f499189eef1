"""The parts of IQE-CLIP, each by itself: prompts, query module, smoothing, the authors' files."""

import copy
import re

import pytest
import torch
from scipy.ndimage import gaussian_filter
from tiny import EVEN, OPTIONS

from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.clip.towers import TextTower
from anomalib_medclip.components.image_prompts import ImagePrompts
from anomalib_medclip.components.smoothing import GaussianSmoothing
from anomalib_medclip.errors import WeightsError
from anomalib_medclip.models.iqeclip import IQECLIP
from anomalib_medclip.models.iqeclip.query import Attention, QueryModule
from anomalib_medclip.models.iqeclip.sentences import OBJECT, WORDS

SMALL = OPTIONS | {"backbone": EVEN}


@pytest.fixture(scope="module")
def text_tower():
    return TextTower(Backbone(EVEN, image_size=32))


@pytest.mark.parametrize(("size", "sigma"), [(240, 8.0), (48, 8.0), (20, 8.0), (5, 8.0), (32, 0)])
def test_smoothing_is_scipys(size, sigma):
    maps = torch.rand(2, size, size)
    expected = gaussian_filter(maps.numpy(), sigma, axes=(1, 2))
    found = GaussianSmoothing(size, sigma)(maps)
    torch.testing.assert_close(found, torch.from_numpy(expected), atol=1e-6, rtol=0)


def padded(prompts, tower, feature):
    """As the authors: each sentence whole, padding included, through all blocks."""
    classes = prompts.to_text(prompts.class_tokens(feature)).repeat_interleave(2, dim=0)
    tokens = tower.tokenize(prompts.templates.sentences)
    assert tokens.argmax(dim=-1).tolist() == [12, 12], "class tokens stand where sentences end"
    stream = tower.embed(tokens).repeat(len(feature), 1, 1)
    read = 12 + classes.shape[1]
    stream = torch.cat([stream[:, :12], classes, stream[:, read:]], dim=1)
    stream = stream + tower.positional_embedding
    deep = prompts.deep
    if deep is not None:
        own = deep.prompt_proj(torch.cat([deep.prompt_embeddings, deep.deep_prompt_embeddings]))
        count, stream = own.shape[1], stream[:, : 77 - own.shape[1]]
        start, rest, read = stream[:, :1], stream[:, 1:], read + own.shape[1]
    for number, block in enumerate(tower.blocks):
        if deep is not None:
            stream = torch.cat([start, own[number].expand(len(start), -1, -1), rest], dim=1)
        stream = block(stream, tower.causal_mask)
        if deep is not None:
            start, rest = stream[:, :1], stream[:, 1 + count :]
    if deep is not None:
        stream = deep.prompt_norm(stream)
    features = tower.read(stream, torch.full((len(stream),), read - 1))
    return torch.nn.functional.normalize(features, dim=-1).view(-1, 2, 24)


@pytest.mark.parametrize("deep_length", [0, 1, 2])
def test_a_start_run_once_for_all_images_is_that_of_each(deep_length, text_tower):
    """To the last gradient; and what follows the token that is read changes nothing."""
    prompts = ImagePrompts(text_tower, 24, WORDS.about(OBJECT), 3, deep_length=deep_length).double()
    tower, found = copy.deepcopy(text_tower).double(), []
    feature = torch.randn(4, 24, dtype=torch.float64, requires_grad=True)
    learnt = [feature, *prompts.parameters()]
    for text in (
        prompts(tower, prompts.templates(tower), feature),
        padded(prompts, tower, feature),
    ):
        weights = torch.linspace(-1, 1, text.numel()).view_as(text)
        found.append((text, *torch.autograd.grad((weights * text).sum(), learnt)))
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize(("length", "deep_length"), [(0, 1), (65, 1), (64, 2)])
def test_prompts_that_do_not_fit_are_refused(length, deep_length, text_tower):
    with pytest.raises(ValueError, match=f"{length} class tokens and {deep_length} deep prompts"):
        ImagePrompts(text_tower, 24, WORDS.about(OBJECT), length, deep_length=deep_length)


def test_folded_attention_is_plain_attention():
    layer = Attention(24, heads=4).double()
    plain = torch.nn.MultiheadAttention(24, 4, batch_first=True).double()
    parts = (layer.query, layer.key, layer.value)
    plain.in_proj_weight.data = torch.cat([part.weight for part in parts])
    no_effect = torch.randn(24).double()  # the bias of the key
    plain.in_proj_bias.data = torch.cat([layer.query.bias, no_effect, layer.value.bias])
    plain.out_proj.load_state_dict(layer.output.state_dict())
    queries, context = torch.randn(3, 2, 24).double(), torch.randn(3, 50, 24).double()
    expected = layer.norm(plain(queries, context, context)[0] + queries)
    torch.testing.assert_close(layer(queries, context), expected)


def test_dropout_drops_values_with_their_bias():
    layer = Attention(24, heads=4, dropout=0.5)
    torch.nn.init.zeros_(layer.value.weight)
    torch.nn.init.ones_(layer.value.bias)
    torch.nn.init.eye_(layer.output.weight)
    torch.nn.init.zeros_(layer.output.bias)
    layer.norm = torch.nn.Identity()
    found = layer(torch.zeros(1, 2, 24), torch.randn(1, 7, 24)).unflatten(2, (4, 6))
    assert len(found.unique()) > 3, "the bias comes with the weights that are left"
    kept = layer.eval()(torch.zeros(1, 2, 24), torch.randn(1, 7, 24))
    torch.testing.assert_close(kept, torch.ones(1, 2, 24))


def test_every_level_begins_from_the_same_queries():
    module = QueryModule(24, blocks=2)
    feature, patches = torch.randn(3, 24), torch.randn(4, 3, 9, 24)
    text = torch.randn(3, 2, 24)
    together = module(feature, patches, text)
    for level, alone in enumerate(patches.split(1)):
        torch.testing.assert_close(together[level], module(feature, alone, text)[0])


THEIRS = {
    "linears.": "trainable_layer.fc.",
    "image_prompts.class_tokens.convolution.": "New_Lan_Embed.prompt_linear1.fc.",
    "image_prompts.class_tokens.vectors": "New_Lan_Embed.prompt_query",
    "image_prompts.deep.": "clip.",
    "temperature": "New_Lan_Embed.prompt_temp",
    "query_module.queries.vectors": "query_tokens",
    "query_module.queries.convolution.": "query_linear.fc.",
    "query_module.norm.": "iqm.layernorm.",
    "query_module.blocks.": "iqm.encoder.layer.",
    ".self_attention.": ".attention.",
    ".image_attention.": ".crossattention.",
    ".text_attention.": ".text_crossattention.",
    ".feedforward.0.": ".intermediate_query.dense.",
    ".feedforward.2.": ".output_query.dense.",
}


def released(model):
    """What was trained, by the authors' names, and what has no effect."""
    found = {"clip.prompt_text_projection": torch.rand(24, 24)}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        theirs = name
        for ours, word in THEIRS.items():
            theirs = theirs.replace(ours, word)
        theirs = re.sub(r"attention\.(query|key|value)\.", r"attention.attention.\1.", theirs)
        theirs = re.sub(r"attention\.output\.", "attention.output.dense.", theirs)
        theirs = re.sub(r"attention\.norm\.", "attention.output.LayerNorm.", theirs)
        theirs = re.sub(r"(\d)\.norm\.", r"\1.output_query.LayerNorm.", theirs)
        found[theirs] = torch.rand_like(parameter)
        if theirs.endswith("key.weight"):
            found[theirs.replace("weight", "bias")] = torch.rand(len(parameter))
    return found


def test_a_released_file_is_loaded_and_what_has_no_effect_is_named(tmp_path, caplog):
    weights = released(IQECLIP(**SMALL).model)
    torch.save(weights, path := tmp_path / "Brain.pth")
    with caplog.at_level("INFO"):
        method = IQECLIP(**SMALL, adapters=str(path))
    loaded = [p for p in method.model.parameters() if p.requires_grad]
    values = {tuple(value.flatten().tolist()) for value in weights.values()}
    assert all(tuple(parameter.flatten().tolist()) in values for parameter in loaded)
    first = method.model.query_module.blocks[3].image_attention.query.weight
    assert first.equal(weights["iqm.encoder.layer.3.crossattention.attention.query.weight"])
    assert "13 tensors without effect are left out" in caplog.text
    assert "prompt_text_projection" in caplog.text
    assert "adapters" not in method.hparams


def spoilt(weights, kind):
    name = "query_linear.fc.weight"
    if kind == "missing":
        del weights[name]
    elif kind == "other shape":
        weights[name] = torch.rand(3, 1, 3)
    elif kind == "unknown":
        weights["iqm.encoder.layer.9.novel"] = torch.rand(1)
    return [1] if kind == "no names" else weights


@pytest.mark.parametrize("kind", ["no file", "missing", "other shape", "unknown", "no names"])
def test_a_file_that_does_not_fit_is_refused_by_name(kind, tmp_path):
    if kind != "no file":
        torch.save(spoilt(released(IQECLIP(**SMALL).model), kind), tmp_path / "Brain.pth")
    with pytest.raises(WeightsError, match=r"(?s)Brain.pth does not fit.*the authors' code"):
        IQECLIP(**SMALL, adapters=str(tmp_path / "Brain.pth"))
