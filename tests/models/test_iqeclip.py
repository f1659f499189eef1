"""What IQE-CLIP promises beyond the contract of every method."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_check import compare
from golden_iqeclip import INPUTS, TOLERANCES, IQECLIPCase
from scipy.ndimage import gaussian_filter
from tiny import BACKBONE, OPTIONS, TEST_DATA, lesion_data

from anomalib_medclip.components.clip import Backbone
from anomalib_medclip.components.towers import ImageTower, TextTower
from anomalib_medclip.data import BMADLeaveOneOut
from anomalib_medclip.data.bmad import SETS
from anomalib_medclip.errors import NotReadyError, WeightsError
from anomalib_medclip.models.iqeclip import IQECLIP
from anomalib_medclip.models.iqeclip.prompts import TEMPLATES, Prompts
from anomalib_medclip.models.iqeclip.query import Attention, QueryModule
from anomalib_medclip.models.iqeclip.smoothing import GaussianSmoothing

# As in every CLIP of the authors', the text tower is as wide as the shared space.
EVEN = BACKBONE | {"embed_dim": 24, "text_cfg": BACKBONE["text_cfg"] | {"width": 24, "layers": 3}}


def built(backbone=EVEN, **options):
    """A method that is ready to score."""
    method = IQECLIP(**{**OPTIONS, "backbone": backbone, **options})
    method.model.text = method.model.prompts.templates(method.model.text_tower)
    return method


@pytest.fixture(scope="module")
def text_tower():
    return TextTower(Backbone(EVEN, image_size=32))


@pytest.fixture(scope="module")
def encoded():
    with torch.no_grad():
        return built().model.encode(torch.rand(3, 3, 32, 32))


@pytest.fixture(scope="module")
def masks():
    return (torch.rand(3, 1, 32, 32) > 0.7).float()


LABELS = torch.tensor([True, False, True])


def cases():
    if not TEST_DATA:
        reason = "ANOMALIB_MEDCLIP_TEST_DATA names no folder with golden/iqeclip/case*"
        return [pytest.param(None, id="none", marks=pytest.mark.skip(reason=reason))]
    folder = Path(TEST_DATA, "golden", "iqeclip")
    found = sorted(folder.glob("case*")) or [folder / "case0"]
    return [pytest.param(case, id=case.name) for case in found]


@pytest.mark.parametrize("folder", cases())
def test_every_array_of_a_case_agrees(folder):
    case = IQECLIPCase(folder)
    computed = dict(case.computed())
    failed = {}
    for name, expected in case.golden.items():
        if re.fullmatch(INPUTS, name):
            continue
        tolerance = next(t for pattern, t in TOLERANCES if re.fullmatch(pattern, name))
        error = compare(expected, computed[name])
        if not tolerance.allows(error, expected):
            failed[name] = error
    assert failed == {}
    assert len(case.golden) >= 300


@pytest.mark.parametrize(("size", "sigma"), [(240, 8.0), (48, 8.0), (20, 8.0), (5, 8.0), (32, 0)])
def test_smoothing_is_scipys(size, sigma):
    maps = torch.rand(2, size, size)
    expected = gaussian_filter(maps.numpy(), sigma, axes=(1, 2))
    found = GaussianSmoothing(size, sigma)(maps)
    torch.testing.assert_close(found, torch.from_numpy(expected), atol=1e-6, rtol=0)


@pytest.mark.parametrize("deep_length", [0, 2])
def test_what_follows_the_token_that_is_read_changes_nothing(deep_length, text_tower):
    """The authors keep the sequence at the tower's 77 tokens, padding included."""
    prompts, feature = Prompts(text_tower, 24, 3, deep_length=deep_length), torch.randn(2, 24)
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
    prompts = Prompts(text_tower, 24, 2, deep_length=0)
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
        Prompts(text_tower, 24, length, deep_length=deep_length)


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
def test_each_option_changes_something_and_everything_learns(option, masks):
    usual, method = built(), built(**option)
    images = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        assert (usual.model(images).anomaly_map != method.model(images).anomaly_map).any() or (
            "dropout" in option or "bce" in option
        )
    losses = [m.model.loss(m.model.encode(images), masks, LABELS) for m in (usual, method)]
    assert losses[0] != losses[1] or set(option) <= {"alpha", "sigma"}
    trained = {n: p for n, p in method.model.named_parameters() if p.requires_grad}
    before = {name: parameter.clone() for name, parameter in trained.items()}
    optimizer = method.configure_optimizers()
    losses[1].backward()
    assert [name for name, parameter in trained.items() if parameter.grad is None] == []
    optimizer.step()
    # What is added to all tokens alike is removed by the norm that follows.
    same = {name for name, parameter in trained.items() if parameter.equal(before[name])}
    assert not {name for name in same if not name.endswith("bias")}


def test_only_the_image_tells_prompts_apart(encoded):
    def texts(**options):
        model = built(**options).model
        return model.features(encoded).text

    assert not torch.allclose(*texts()[:2], atol=1e-4)
    same = texts(class_prompts=False)
    torch.testing.assert_close(same[0], same[1])


def test_without_the_last_block_among_the_levels_its_class_token_is_still_read():
    model = built(levels=[1, 2]).model
    encoded = model.encode(images := torch.rand(2, 3, 32, 32))
    assert encoded.shape[1] == 3
    assert len(model.features(encoded).patches) == 2
    expected = built().model.encode(images)[:, -1]
    torch.testing.assert_close(encoded[:, -1], expected)


def test_a_text_tower_of_another_width_gets_a_layer_in_between():
    assert isinstance(built(BACKBONE).model.prompts.to_text, torch.nn.Linear)
    assert not list(built().model.prompts.to_text.parameters())


def test_few_shot_scores_are_means_of_pixels_and_zero_shot_scores_of_patches(encoded):
    model = built(few_shot=False).model
    logits = model.logits(model.features(encoded))
    patches = logits.softmax(dim=-1)[..., 1].mean(dim=(0, 1, 3))
    torch.testing.assert_close(model.score(encoded).pred_score, patches)
    model.few_shot = True
    pixels = model.maps(logits).mean(dim=(0, 1, 3, 4))
    torch.testing.assert_close(model.score(encoded).pred_score, pixels)
    assert not torch.allclose(patches, pixels, atol=1e-6)


def test_the_score_is_chosen_by_the_data_and_kept(lesions, bmad_tree, tmp_path):
    from anomalib.engine import Engine

    for category in SETS:
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
    vectors = state["prompts.class_tokens.vectors"]
    assert vectors.abs().max() <= 2
    assert 0.8 < vectors.std() < 0.95
    assert state["prompts.deep.deep_prompt_embeddings"].abs().max() <= 1
    spread = state["prompts.deep.prompt_proj.weight"].std()
    assert spread == pytest.approx((2 / 24) ** 0.5, rel=0.2)
    assert state["temperature"] == pytest.approx(np.log(1 / 0.07))


THEIRS = {
    "linears.": "trainable_layer.fc.",
    "prompts.class_tokens.convolution.": "New_Lan_Embed.prompt_linear1.fc.",
    "prompts.class_tokens.vectors": "New_Lan_Embed.prompt_query",
    "prompts.deep.": "clip.",
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
    weights = released(built().model)
    torch.save(weights, path := tmp_path / "Brain.pth")
    with caplog.at_level("INFO"):
        method = built(adapters=str(path))
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
        torch.save(spoilt(released(built().model), kind), tmp_path / "Brain.pth")
    with pytest.raises(WeightsError, match=r"(?s)Brain.pth does not fit.*the authors' code"):
        built(adapters=str(tmp_path / "Brain.pth"))


def test_a_model_without_templates_is_not_ready():
    with pytest.raises(NotReadyError, match="no text features"):
        IQECLIP(**OPTIONS).model(torch.rand(1, 3, 32, 32))
