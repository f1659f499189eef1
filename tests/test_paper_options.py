"""Options for what papers print and code does otherwise; and no option is ignored in silence."""

import copy
import inspect
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from types import UnionType
from typing import Literal, Union, get_args, get_origin

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from anomalib.models.components.base import AnomalibModule
from tiny import EVEN, METHODS, OPTIONS, Training

from anomalib_medclip.clip.towers import TextTower
from anomalib_medclip.components.losses import cross_entropy
from anomalib_medclip.errors import ConfigError, NotReadyError
from anomalib_medclip.models import get_model
from anomalib_medclip.models.iqeclip import IQECLIP
from anomalib_medclip.models.iqeclip.query import QueryBlock
from anomalib_medclip.models.madclip import MadCLIP
from anomalib_medclip.models.mediclip.synthesis import synthesize
from anomalib_medclip.models.mvfa import MVFA
from anomalib_medclip.models.mvfa.adapters import Adapters, Bottleneck
from anomalib_medclip.models.mvfa.fusion import Branches, Fusion
from anomalib_medclip.models.mvfa.variant import Variant
from anomalib_medclip.option_checks import idle_options
from anomalib_medclip.training.options import SharedOptions

CONFIGS = sorted((Path(__file__).parents[1] / "configs" / "models").glob("*_paper.yaml"))
SMALL = CONFIGS[0].with_name("mvfa_small.yaml")
CODE = sorted({*CONFIGS[0].parent.glob("*.yaml")} - {*CONFIGS, SMALL})

WEIGHTS = {"detection": 2.0, "focal": 0.5}

ELSEWHERE = {"index_float16", "index_scratch_mb", "index_sharded", "transductive"}
"""Act on a GPU, or on a whole test set."""


def own_options(kind):
    """The options of a method that not all methods have, by name."""
    bases = (inspect.signature(one).parameters for one in (SharedOptions, AnomalibModule))
    shared = {name for names in bases for name in names}
    return {name: one for name, one in kind.__signature__.parameters.items() if name not in shared}


def others_of(kind):
    """Another value of every option of a method, from its signature or as ``tiny`` declares it."""
    declared, elsewhere = Training.of(kind).others, ELSEWHERE | set(Training.of(kind).elsewhere)
    own = own_options(kind)
    assert set(declared) <= {*own, "prompts"}
    found = {
        name: declared[name] if name in declared else another_value(option)
        for name, option in own.items()
        if name not in elsewhere
    }
    if "fixed" in kind.prompt_kinds[1:]:
        found["prompts"] = "fixed"
    weights = {name: weight for name, weight in WEIGHTS.items() if name in kind.loss_names}
    return found | ({"lr": 0.05, "loss_weights": weights} if kind.learns else {})


def another_value(option):
    """Another value than the default that an option may have, by its type."""
    kinds = [one for one in get_args(option.annotation) if one is not type(None)]
    kinds = kinds if get_origin(option.annotation) in (Union, UnionType) else [option.annotation]
    kind, default = kinds[0], option.default
    if get_origin(kind) is Literal:
        return next(word for word in reversed(get_args(kind)) if word != default)
    if kind is bool:
        return not default if default is not None else False
    if kind is int:
        return 2 if default is None else default // 2
    if kind is float:
        return 0.25 if default == 0.5 else 0.5
    if get_origin(kind) is Sequence:
        words = get_args(get_args(kind)[0]) or (1, 2)
        return list(words[:1] if len(default or ()) > 1 else words[:2])
    return pytest.fail(
        f"{option}: declare another value in Training.others of tests/helpers/tiny.py"
    )


def behaviour(method):
    """All that a method computes: copies, synthetic images, losses, what a step learns, scores."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4, 3, 32, 32, generator=generator)
    masks = (torch.rand(4, 1, 32, 32, generator=generator) > 0.7).float()
    labels = torch.tensor([True, False, True, False])
    yield from (augment(images) for augment in method.augmentations.normal)
    yield from made_by(method)
    model = method.model.train()
    tower = model.text_tower or TextTower(method.backbone)
    encoded, optimizer = model.encode(images), method.configure_optimizers()
    for truth in (masks, None):
        if not model.learns_from(truth is not None):
            continue
        torch.manual_seed(0)
        try:
            loss = model.loss(encoded, truth, labels, model.prompts(tower, "brain"))
        except NotReadyError:  # it learns from masks only
            continue
        yield loss
        if optimizer is not None and loss.requires_grad:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    for model.has_masks in (True, False):
        with torch.no_grad():
            model.text = model.prompts(tower, "brain")
            if model.has_memory and model.few_shot:
                model.fit_support(encoded, encoded[~labels][None], labels, torch.arange(4))
            yield from model.score(encoded, model.text)


def made_by(method):
    """What a method's synthesis makes of an image, and nothing where it makes none."""
    if not getattr(method, "makes_images", False):
        return
    grey = torch.rand(32, 32, generator=torch.Generator().manual_seed(1)).mul(255).byte().numpy()
    grey[8:24, 8:24] = 200
    for seed in range(12):
        random = np.random.default_rng(seed)
        made = synthesize(grey, [grey.T.copy()], random, method.tasks, method.hparams["poisson"])
        yield torch.from_numpy(made.image.copy())


def behaves(kind, **options):
    method = kind(**{**OPTIONS, "backbone": EVEN, **copy.deepcopy(options)})
    return [one.detach().clone() for one in behaviour(method)]


def same(first, second):
    return len(first) == len(second) and all(map(torch.equal, first, second))


def said_to_be_idle(kind, name, given):
    method = kind(**{**OPTIONS, "backbone": EVEN, **copy.deepcopy(given)})
    all_given = dict(method.hparams)
    if kind.prompt_kinds:
        all_given["prompts"] = method.prompt_kind
    defaults = {one: each.default for one, each in kind.__signature__.parameters.items()}
    sentences = idle_options(all_given, defaults, kind.idle)
    return any(one.startswith(f"{name} is ") for one in sentences)


@pytest.mark.daily_for(kind="MadCLIP")
@pytest.mark.parametrize("kind", METHODS)
def test_every_option_of_a_method_has_an_effect(kind):
    usual = behaves(kind)
    for name, value in others_of(kind).items():
        if name not in ("few_shot", "poisson"):  # below, with what they need
            assert not same(behaves(kind, **{name: value}), usual), name


def test_an_option_has_another_value_by_its_type():
    for kind in METHODS:
        options = kind.__signature__.parameters
        for name, value in others_of(kind).items():
            assert value != options[name].default, (kind, name)
    nameless = inspect.Parameter("n", inspect.Parameter.KEYWORD_ONLY, annotation=dict[str, int])
    with pytest.raises(pytest.fail.Exception, match="declare another value"):
        another_value(nameless)


@pytest.mark.nightly(
    also="tests/test_paper_options.py::test_it_is_said_in_a_warning_and_the_model_is_made_all_the_same"
)
@pytest.mark.parametrize("kind", METHODS)
def test_an_option_without_effect_beside_another_says_so_and_no_other_does(kind):
    """Every pair of options, either way round; what has no effect beside another is declared."""
    others = others_of(kind)
    usual = behaves(kind)
    alone = {name: behaves(kind, **{name: value}) for name, value in others.items()}
    for pair in combinations(others, 2):
        given = {name: others[name] for name in pair}
        try:
            together = behaves(kind, **given)
        except ConfigError:  # refused together, which says so, too
            continue
        for name, beside in (pair, pair[::-1]):
            if not same(alone[name], usual):
                has_none = same(together, alone[beside])
                assert said_to_be_idle(kind, name, given) == has_none, (name, beside)


def test_it_is_said_in_a_warning_and_the_model_is_made_all_the_same(caplog):
    model = MadCLIP(**OPTIONS, prompts="fixed", causal=True)
    assert "MadCLIP: causal is True, and has no effect beside prompts: fixed" in caplog.text
    assert not model.model.prompts.learns
    caplog.clear()
    MadCLIP(**OPTIONS, causal=True)
    MVFA(**OPTIONS, few_shot=False)
    assert not [one for one in caplog.records if "no effect" in one.message]
    MVFA(**OPTIONS, few_shot=False, transductive=True)
    assert "transductive is True, and has no effect beside few_shot: false" in caplog.text


def test_words_that_an_option_of_a_method_does_not_know_are_refused():
    for kind, name, known in (
        (MVFA, "activation", "'leaky', 'relu'"),
        (MVFA, "image_score", "'map', 'branches'"),
        (MadCLIP, "heads", "'two', 'one'"),
        (IQECLIP, "reading", "'image', 'text', 'printed'"),
    ):
        with pytest.raises(ConfigError, match=f"{name} is 'tow', and must be one of {known}"):
            kind(**OPTIONS, **{name: "tow"})
    for weights, said in (
        ({"dise": 1.0}, "name 'dise', and there are detection, focal, dice"),
        ({"dice": -1.0}, r"loss_weights\['dice'\] is -1.0, and must be a number of at least 0"),
    ):
        with pytest.raises(ConfigError, match=said):
            MVFA(**OPTIONS, loss_weights=weights)
    with pytest.raises(ConfigError, match="residual_ratio is 2, and must be a number from 0 to 1"):
        MVFA(**OPTIONS, residual_ratio=2)
    with pytest.raises(ConfigError, match="deep_prompt_depth is 9, and must be a whole number fr"):
        IQECLIP(**OPTIONS, deep_prompt_depth=9)


# --- the equations


def test_losses_are_weighed_by_name(tiny_image_tower):
    usual = MVFA(**OPTIONS)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    masks, labels = torch.ones(2, 1, 32, 32), torch.tensor([True, False])
    text = usual.model.prompts(TextTower(usual.backbone), "brain")
    encoded = usual.model.encode(images)
    terms = usual.model.loss_terms(encoded, masks, labels, text)
    weighed = MVFA(**OPTIONS, loss_weights={"dice": 3.0, "detection": 0.0}).model
    expected = terms.focal.sum() + 3 * terms.dice.sum()
    torch.testing.assert_close(weighed.loss(encoded, masks, labels, text), expected)


def test_mvfa_adapters_are_those_of_equations_1_and_2():
    stream = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    printed = Variant(activation="relu", residual_ratio=0.1, last_level="projector")
    adapters = Adapters(2, 8, 6, 0, variant=printed)
    segment, _, adapted = adapters(0, stream)
    w1, w2 = (getattr(adapters.seg_adapters[0], one)[0].weight for one in ("fc1", "fc2"))
    v1, v2 = (getattr(adapters.det_adapters[0], one)[0].weight for one in ("fc1", "fc2"))
    torch.testing.assert_close(segment, (stream @ w1.T).relu())
    both = ((stream @ w1.T).relu() @ w2.T + (stream @ v1.T).relu() @ v2.T) / 2
    torch.testing.assert_close(adapted, 0.1 * both + 0.9 * stream)
    projected = adapters(1, stream)[0]
    torch.testing.assert_close(projected, stream @ adapters.seg_adapters[1].fc1[0].weight.T)
    same_names = Adapters(2, 8, 6, 0).state_dict().keys()
    assert adapters.state_dict().keys() == same_names
    assert Bottleneck(8, 6)(stream)[0].min() < 0


def test_mvfa_scores_are_those_of_equations_4_to_6():
    options = {"patch_score": "max", "image_score": "branches", "memory_weight": 0.3}
    model = MVFA(**OPTIONS, **options).model
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([False, False, True])
    text = model.prompts(TextTower(model.clip.backbone), "brain")
    with torch.no_grad():
        model.text, encoded = text, model.encode(images)
        model.fit_support(encoded, encoded[~labels][None], labels, torch.arange(3))
        adapted = model.scored_tokens(encoded)
        branches = model.branches(encoded, text)
    detect = F.normalize(adapted.detect[:, :, 1:], dim=-1)
    chances = (100 * detect @ text.T).softmax(dim=-1)[..., 1]
    torch.testing.assert_close(branches.text_score, chances.amax(dim=2).mean(dim=0))
    distances = torch.stack(model._distances(adapted.segment))
    torch.testing.assert_close(branches.memory_score, distances.amax(dim=2).mean(dim=0))
    fusion = Fusion(0.3)
    score, fused = fusion(Branches(*map(torch.tensor, ([[[0.5]]], [[[1.0]]], [0.2], [0.8]))), False)
    assert score.item() == pytest.approx(0.7 * 0.2 + 0.3 * 0.8)
    assert fused.item() == pytest.approx(0.7 * 0.5 + 0.3 * 1.0)


def test_a_cross_entropy_takes_a_probability_for_what_it_is_told():
    chance, labels = torch.tensor([0.2, 0.9]), torch.tensor([False, True])
    assert cross_entropy(chance, labels, "probabilities").item() == pytest.approx(
        F.binary_cross_entropy(chance, labels.float()).item()
    )
    assert cross_entropy(chance, labels, "logits").item() == pytest.approx(
        F.binary_cross_entropy_with_logits(chance, labels.float()).item()
    )


@pytest.mark.parametrize("feedforwards", ["end", "each"])
@pytest.mark.parametrize("reading", ["image", "text", "printed"])
def test_a_block_of_iqe_clip_reads_in_the_order_it_is_told(reading, feedforwards):
    torch.manual_seed(0)
    block = QueryBlock(8, 2, 16, reading=reading, feedforwards=feedforwards)
    queries, image, text = (torch.randn(3, count, 8) for count in (2, 5, 2))

    def network(number, found):
        return block.refinements[number](found) if feedforwards == "each" else found

    by_self = network(0, block.self_attention(queries, queries))
    if reading == "image":
        found = network(1, block.image_attention(by_self, image))
        found = block.text_attention(found, text)
    elif reading == "text":
        found = network(1, block.text_attention(by_self, text))
        found = block.image_attention(found, image)
    else:  # eq. 8, then eq. 9: F_l asks, and the answer goes on top of F_T
        with_text = network(1, block.text_attention(by_self, text))
        found = block.image_attention(by_self, image, onto=with_text)
    expected = block.norm(block.feedforward(found) + found)
    torch.testing.assert_close(block(queries, image, text), expected)
    assert len(block.refinements) == (2 if feedforwards == "each" else 0)


def test_iqe_clip_weighs_losses_as_equation_14_prints():
    usual, weighed = (
        IQECLIP(**OPTIONS | {"backbone": EVEN}, alpha=0.3, weigh_losses=one).model
        for one in (False, True)
    )
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    masks, labels = torch.ones(2, 1, 32, 32), torch.tensor([True, False])
    text, encoded = usual.prompts(usual.text_tower), usual.encode(images)
    for truth in (masks, None):
        plain = usual.loss_terms(encoded, truth, labels, text)
        found = weighed.loss_terms(encoded, truth, labels, text)
        for one, other in zip(plain, found, strict=True):
            if one.numel():
                torch.testing.assert_close(other[0], 0.3 * one[0])
                torch.testing.assert_close(other[1], 0.7 * one[1])


def test_deep_prompts_end_where_they_are_told():
    model = IQECLIP(**OPTIONS | {"backbone": EVEN}, deep_prompt_depth=2).model
    deep = model.image_prompts.deep
    assert deep.deep_prompt_embeddings.shape[0] == 1
    stream = torch.randn(2, 6, model.text_tower.width)
    assert deep(stream, 2) is stream
    assert not torch.equal(deep(stream, 1), stream)


# --- the papers' configs


@pytest.mark.parametrize("method", METHODS)
def test_a_methods_config_is_the_codes_and_the_papers_what_is_printed_otherwise(method):
    config = {path: yaml.safe_load(path.read_text()) for path in CODE}
    end = f".{method.__name__}"
    [path] = [one for one, said in config.items() if said["class_path"].endswith(end)]
    first = path.read_text().splitlines()[0]
    assert "as its authors' code has it" in first or "no authors' code is followed" in first
    printed = path.with_name(f"{path.stem}_paper.yaml")
    assert printed.exists() == (f"{path.stem}_paper has what is printed otherwise" in first)
    if printed.exists():
        said = printed.read_text().splitlines()[0]
        assert "as its paper prints it, where the authors' code does otherwise" in said
    signature = method.__signature__.parameters
    for name, value in config[path]["init_args"].items():
        is_size = name == "image_size" and (value, signature[name].default) == (240, 518)
        assert is_size or value == signature[name].default, name


@pytest.mark.daily_for(stem="madclip_paper")
@pytest.mark.parametrize("stem", [path.stem for path in CONFIGS])
def test_a_papers_config_differs_in_all_it_says_and_nothing_of_it_is_idle(stem, caplog):
    path = next(one for one in CONFIGS if one.stem == stem)
    config = yaml.safe_load(path.read_text())
    kind = get_model(config["class_path"].rsplit(".", 1)[1])
    of_clip = ("backbone", "pretrained", "image_size")
    said = {k: v for k, v in config["init_args"].items() if k not in of_clip}
    if "deep_prompt_depth" in said:
        said["deep_prompt_depth"] = 2  # of 3 blocks here
    assert said, "it repeats what is so without it"
    printed = behaves(kind, **said)
    assert not [one for one in caplog.records if "no effect" in one.message]
    if "lr" in said:
        few_shot = {"few_shot": False}  # where the code's is another
        assert said.pop("lr") != kind(**OPTIONS, **few_shot).learning_rate
    for name in said:
        without = {k: v for k, v in said.items() if k != name}
        assert not same(behaves(kind, **without), printed), name
    assert f"--model configs/models/{path.name}" in path.read_text()
