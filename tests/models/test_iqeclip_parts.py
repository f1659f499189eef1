"""The parts of IQE-CLIP, each by itself: prompts, query module, smoothing, the authors' files."""

import re

import pytest
import torch
from scipy.ndimage import gaussian_filter
from tiny import EVEN, OPTIONS

from anomalib_medclip.components.clip import Backbone
from anomalib_medclip.components.towers import TextTower
from anomalib_medclip.errors import WeightsError
from anomalib_medclip.models.iqeclip import IQECLIP
from anomalib_medclip.models.iqeclip.prompts import TEMPLATES, ImagePrompts
from anomalib_medclip.models.iqeclip.query import Attention, QueryModule
from anomalib_medclip.models.iqeclip.smoothing import GaussianSmoothing

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


@pytest.mark.parametrize("deep_length", [0, 2])
def test_what_follows_the_token_that_is_read_changes_nothing(deep_length, text_tower):
    """The authors keep the sequence at the tower's 77 tokens, padding included."""
    prompts, feature = ImagePrompts(text_tower, 24, 3, deep_length=deep_length), torch.randn(2, 24)
    templates = prompts.templates(text_tower)
    short = prompts.sequences(text_tower, templates, feature)
    read = short.shape[2] - 1
    padding = text_tower.embed(torch.zeros(1, 77, dtype=torch.long))
    rest = (padding + text_tower.positional_embedding)[0, read + 1 : 77 - deep_length]
    stream = torch.cat([short, rest.expand(2, 2, -1, -1)], dim=2).flatten(0, 1)
    stream = prompts.deep(text_tower, stream) if deep_length else text_tower.run(stream)
    assert stream.shape[1] == 77
    features = text_tower.read(stream, torch.full((4,), read + deep_length))
    expected = torch.nn.functional.normalize(features, dim=-1).view(2, 2, 24)
    torch.testing.assert_close(prompts(text_tower, templates, feature), expected)


def test_class_tokens_stand_where_the_sentence_ends(text_tower):
    prompts = ImagePrompts(text_tower, 24, 2, deep_length=0)
    found = prompts.sequences(text_tower, prompts.templates(text_tower), torch.randn(1, 24))[0]
    tokens = text_tower.tokenize(TEMPLATES)
    whole = text_tower.embed(tokens) + text_tower.positional_embedding
    assert tokens.argmax(dim=-1).tolist() == [12, 12]
    torch.testing.assert_close(found[:, :12], whole[:, :12])
    classes = found[:, 12:] - text_tower.positional_embedding[12:14]
    torch.testing.assert_close(classes[0], classes[1])


@pytest.mark.parametrize(("length", "deep_length"), [(0, 1), (65, 1), (64, 2)])
def test_prompts_that_do_not_fit_are_refused(length, deep_length, text_tower):
    with pytest.raises(ValueError, match=f"{length} class tokens and {deep_length} deep prompts"):
        ImagePrompts(text_tower, 24, length, deep_length=deep_length)


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
