"""What AdaCLIP promises beyond the contract of every method."""

import pytest
import torch
import torch.nn.functional as F
from options import LABELS, changes, said, unmoved
from tiny import BACKBONE, EVEN, OPTIONS

from anomalib_medclip.components.prompts import ABNORMAL_STATES, NORMAL_STATES, sentences
from anomalib_medclip.errors import ConfigError, ParityError
from anomalib_medclip.models.adaclip import AdaCLIP
from anomalib_medclip.models.adaclip.fusion import Fusion
from anomalib_medclip.models.adaclip.text_prompts import TEMPLATES
from anomalib_medclip.testing import MethodCase

IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
MASKS = (IMAGES[:, :1] > 0.7).float()


def built(backbone=EVEN, **options):
    """A method that is ready to score."""
    method = AdaCLIP(**{**OPTIONS, "backbone": backbone, "clusters": 3, **options})
    method.model.text = method.model.prompts(method.model.text_tower, "brain MRI")
    return method


@pytest.fixture(scope="module")
def usual():
    return said(built(), IMAGES, MASKS)


@pytest.mark.parametrize(
    "option",
    [
        {"prompt_length": 3},
        {"prompted_blocks": 2},
        {"fusion": "mean"},
        {"fusion": "none"},
        {"clusters": 2},
        {"fusion_weight": 0.5},
        {"sigma": 0.0},
        {"dice": "images"},
        {"levels": [1, 3]},
        {"normalize": False},
    ],
    ids=str,
)
def test_each_option_changes_something_and_everything_learns(option, usual):
    method = built(**option)
    found = said(method, IMAGES, MASKS)
    assert changes(usual, found)
    assert not unmoved(method, found[-1])


def test_what_decays_moves_more():
    plain, decaying = (built(weight_decay=decay) for decay in (0.0, 0.5))
    for method in (plain, decaying):
        unmoved(method, said(method, IMAGES, MASKS)[-1])
    assert decaying.model.token_layer.weight.norm() < plain.model.token_layer.weight.norm()


@pytest.mark.parametrize(
    ("option", "limits"),
    [
        ({"prompt_length": 0}, "prompt_length is 0, and must be a whole number of at least 1"),
        ({"prompted_blocks": 1}, "prompted_blocks is 1, and must be a whole number from 2 to 3"),
        ({"prompted_blocks": 4}, "prompted_blocks is 4, and must be a whole number from 2 to 3"),
        ({"clusters": 0}, "clusters is 0, and must be a whole number of at least 1"),
        ({"fusion_weight": 1.5}, "fusion_weight is 1.5, and must be a number from 0 to 1"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0, and must be"),
        ({"prompt_length": 9}, "9 prompts overwrite sentences of 8 tokens .* to at most 8"),
        ({"fusion": "max"}, "fusion is 'max', and must be one of 'clusters', 'mean', 'none'"),
        ({"dice": "all"}, "dice is 'all', and must be one of 'rows', 'images'"),
    ],
    ids=str,
)
def test_an_option_that_cannot_be_is_refused_by_name(option, limits):
    with pytest.raises(ConfigError, match=limits):
        built(**option)


@pytest.mark.parametrize("backbone", [EVEN, BACKBONE], ids=["3 text blocks", "1 text block"])
def test_sentences_are_those_that_are_run_whole_one_by_one(backbone):
    """As padded, all blocks, the words overwritten before each of the prompted ones."""
    model = built(backbone).model
    tower, prompts = model.text_tower, model.text_prompts
    dynamic = model.dynamic_text(torch.randn(2, 24))
    found = prompts(tower, model.text, dynamic)
    for image, own in enumerate(dynamic):
        groups = []
        for states in (NORMAL_STATES, ABNORMAL_STATES):
            tokens = tower.tokenize(sentences("brain MRI", states, TEMPLATES))
            stream = tower.embed(tokens) + tower.positional_embedding
            for number, block in enumerate(tower.blocks):
                if 0 < number <= len(prompts.static):
                    stream[:, 1:6] = own + prompts.static[number - 1]
                stream = block(stream, tower.causal_mask)
            features = tower.read(stream, tokens.argmax(dim=-1))
            groups.append(F.normalize(features, dim=-1).mean(dim=0))
        torch.testing.assert_close(found[image], F.normalize(torch.stack(groups), dim=-1))


@pytest.mark.parametrize("masks", [MASKS, None], ids=["masks", "labels alone"])
def test_a_batch_is_its_images_one_by_one(masks):
    """Scores, maps and loss, with clusters; the authors' code takes one image at a time."""
    model = built().model
    encoded = model.encode(IMAGES)
    together = model.score(encoded, model.text)
    alone = [model.score(one, model.text) for one in encoded.split(1)]
    for whole, parts in zip(together, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(whole, torch.cat(parts))
    losses = [
        model.loss(encoded[at : at + 1], None if masks is None else masks[at : at + 1],
                   LABELS[at : at + 1], model.text)
        for at in range(3)
    ]  # fmt: skip
    found = model.loss(encoded, masks, LABELS, model.text)
    torch.testing.assert_close(found, torch.stack(losses).mean())


def test_clusters_hang_on_nothing_but_the_image_and_the_seed():
    token, patches = torch.randn(1, 8), torch.randn(4, 1, 30, 8)
    score = torch.rand(1, 30)
    fusion = Fusion(clusters=4, seed=7)
    first = fusion.centre(patches, score)
    torch.manual_seed(1)
    fusion.centre(torch.randn(4, 2, 30, 8), torch.rand(2, 30))
    assert torch.equal(fusion.centre(patches, score), first)
    others = {
        float(Fusion(clusters=4, seed=seed).centre(patches, score)[0, 0]) for seed in range(5)
    }
    assert len(others) > 1
    assert torch.equal(Fusion("none")(token, patches, score), token)


def test_a_centre_is_the_mean_of_the_means_of_clusters():
    patches = F.normalize(torch.randn(2, 1, 12, 8), dim=-1)
    score = torch.linspace(1, 0, 12)[None]
    fusion = Fusion(clusters=2)
    fusion.labels = lambda _: torch.tensor([[0] * 7 + [1] * 3])
    chosen = patches[:, 0, :10].mean(dim=0)
    expected = F.normalize(chosen[:7].mean(dim=0) + chosen[7:].mean(dim=0), dim=0)
    torch.testing.assert_close(fusion.centre(patches, score)[0], expected)


def test_patches_that_are_alike_or_few_leave_clusters_empty_and_nothing_undefined(recwarn):
    alike = F.normalize(torch.ones(4, 1, 9, 8), dim=-1)
    found = Fusion(clusters=4).centre(alike, torch.rand(1, 9))
    torch.testing.assert_close(found, alike[0, :, 0])
    few = F.normalize(torch.randn(4, 1, 2, 8), dim=-1)
    found = Fusion(clusters=20).centre(few, torch.rand(1, 2))
    torch.testing.assert_close(found, F.normalize(few.mean(dim=(0, 2)), dim=-1))
    assert not [one for one in recwarn if "onverge" in str(one.message)]


@pytest.fixture(scope="module")
def clustered():
    return MethodCase(AdaCLIP, options={"clusters": 2})


def test_a_graph_of_clusters_is_refused_before_any_work(clustered, tmp_path):
    method = AdaCLIP.load_from_checkpoint(clustered.shallow_checkpoint)
    for export in (method.to_onnx, method.to_openvino, method.to_pt2):
        with pytest.raises(ParityError, match="graphs know no k-means: train AdaCLIP with"):
            export(tmp_path / "out")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert clustered.exported("torch").is_file()


def test_only_clusters_are_refused_as_graphs():
    for fusion in ("mean", "none"):
        assert not built(fusion=fusion).model.untraceable


def test_a_released_file_is_loaded_and_what_has_no_effect_is_named(tmp_path, caplog):
    theirs = {
        "text_prompts.static.0": "text_prompter.static_prompts.1",
        "text_prompts.static.1": "text_prompter.static_prompts.2",
        "static.2": "visual_prompter.static_prompts.2",
        "patch_layers.3.weight": "patch_token_layer.head.3.weight",
        "token_layer.bias": "cls_token_layer.head.0.bias",
        "dynamic.head.4.weight": "dynamic_visual_prompt_generator.head.4.weight",
        "dynamic_text.head.0.bias": "dynamic_text_prompt_generator.head.0.bias",
    }
    trained = {n: p for n, p in built().model.named_parameters() if p.requires_grad}
    assert theirs.keys() <= trained.keys()
    weights = {f"clip_model.{theirs.get(n, n)}": torch.rand_like(p) for n, p in trained.items()}
    weights["clip_model.text_prompter.static_prompts.0"] = torch.rand(5, 24)
    torch.save(weights, path := tmp_path / "pretrained_all.pth")
    with caplog.at_level("INFO"):
        found = dict(built(adapters=str(path)).model.named_parameters())
    for name in trained:
        assert torch.equal(found[name], weights[f"clip_model.{theirs.get(name, name)}"])
    assert "1 tensors without effect are left out: clip_model.text_prompter.st" in caplog.text
