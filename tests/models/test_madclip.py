"""What MadCLIP promises beyond the contract of every method."""

import pytest
import torch
from tiny import BACKBONE, OPTIONS

from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.clip.towers import TextTower
from anomalib_medclip.components.augmentation import ELEVEN_FOLD
from anomalib_medclip.errors import WeightsError
from anomalib_medclip.models.madclip import MadCLIP
from anomalib_medclip.models.madclip.jitter import (
    SIXTEEN_FOLD,
    drawn_jitters,
    jitter,
    zoom,
)
from anomalib_medclip.models.madclip.torch_model import cross_entropy, siglip


@pytest.fixture(scope="module")
def tower():
    return TextTower(Backbone(BACKBONE, image_size=32))


@pytest.fixture(scope="module")
def encoded():
    return torch.randn(2, 4, 17, 32, generator=torch.Generator().manual_seed(0))


def ready(tower, **options):
    """A model with its text, and masks."""
    method = MadCLIP(**OPTIONS, **options)
    with torch.no_grad():
        method.model.text = method.model.prompts(tower, "brain")
    return method


# --- differences from the paper, and ablations


def test_adapters_are_normed_between_their_layers_without_weights(tower, encoded):
    adapter = ready(tower).model.normal_det_adapters[0]
    detect, segment = adapter(encoded[:, 0])
    scaled, _ = adapter(3 * encoded[:, 0])
    torch.testing.assert_close(scaled, detect, atol=1e-4, rtol=1e-3)
    assert detect.shape == segment.shape == (2, 17, 24)
    assert sorted(dict(adapter.named_parameters())) == [
        "fc1.0.weight",
        "fc2.0.weight",
        "fc3.0.weight",
    ]


def test_normal_and_abnormal_scores_are_of_opposite_texts(tower, encoded):
    model = ready(tower, branches="shared", heads="one").model
    scores = model.scores(encoded, model.text)
    assert torch.equal(scores.detect, scores.segment)
    torch.testing.assert_close(scores.detect[..., 0], -scores.detect[..., 1])
    assert scores.detect.abs().max() <= 2
    assert len(list(model.parameters())) - len(list(model.clip.parameters())) == 8 + 6


def test_without_subtraction_a_score_is_a_cosine(tower, encoded):
    models = ready(tower, subtract=False).model, ready(tower).model
    plain, both = (model.scores(encoded, model.text).detect for model in models)
    assert plain.abs().max() <= 1 + 1e-6
    assert not torch.allclose(plain, both)


def test_the_sigmoid_loss_pulls_each_branch_to_its_class():
    scores = torch.tensor([[[2.0, -2.0]], [[-2.0, 2.0]]])  # sure of normal, sure of abnormal
    right, wrong = torch.tensor([False, True]), torch.tensor([True, False])
    for loss in (siglip, cross_entropy):
        assert loss(scores, right) < loss(scores, wrong)
    assert siglip(torch.zeros(1, 5, 2), torch.tensor([True])) == pytest.approx(2 * 0.6931472)


@pytest.mark.parametrize("has_masks", [True, False])
@pytest.mark.parametrize("image_score", [None, "max", "mean"])
def test_a_head_that_nobody_reads_is_not_computed(has_masks, image_score, tower, encoded):
    model, ran = ready(tower, image_score=image_score).model, set()
    model.has_masks = has_masks
    for name, layer in model.named_modules():
        layer.register_forward_hook(lambda *_, name=name: ran.add(name.rpartition(".")[2]))
    model.score(encoded, model.text)
    both = has_masks and image_score == "mean"
    assert ran & {"fc2", "fc3"} == ({"fc2", "fc3"} if both else {"fc3" if has_masks else "fc2"})
    ran.clear()
    masks, labels = torch.ones(2, 1, 32, 32) if has_masks else None, torch.tensor([True, False])
    model.loss(encoded, masks, labels, model.text)
    assert ran & {"fc2", "fc3"} == ({"fc2", "fc3"} if has_masks else {"fc2"})


@pytest.mark.parametrize("one_head", [True, False])
def test_scores_and_gradients_are_those_of_normalised_tokens(one_head, tower, encoded):
    model = ready(tower, heads="one" if one_head else "two").model.double()
    patches, text, found = encoded.double(), model.text, []
    plain = {"detect": [], "segment": []}
    for level in range(4):
        for head, kept in enumerate(plain.values()):
            tokens = [
                torch.nn.functional.normalize(branch[level](patches[:, level, 1:])[head], dim=-1)
                for branch in (model.normal_det_adapters, model.abnormal_det_adapters)
            ]
            own = [t @ text[i] - t @ text[1 - i] for i, t in enumerate(tokens)]
            kept.append(torch.stack(own, dim=-1))
    whole = [torch.stack(kept) for kept in plain.values()]
    learnt = [p for n, p in model.named_parameters() if "adapters" in n]
    for way in (model.scores(patches, text), whole):
        total = sum((1 + i) * s.sigmoid().sum() for i, s in enumerate(way))
        found.append((*way, *torch.autograd.grad(total, learnt)))
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected)


def test_the_image_score_is_the_maps_maximum_where_there_are_masks(tower, encoded):
    model = ready(tower).model
    result = model.score(encoded, model.text)
    assert torch.equal(result.pred_score, result.anomaly_map.amax(dim=(1, 2)))
    mean = model.patch_score(model.scores(encoded, model.text).detect)
    model.image_score = "mean"
    assert torch.equal(model.score(encoded, model.text).pred_score, mean)
    model.image_score, model.has_masks = None, False
    assert torch.equal(model.score(encoded, model.text).pred_score, mean)


def test_causal_text_is_another_text(tower):
    texts = [ready(tower, causal=causal).model.text for causal in (False, True)]
    assert (texts[0] - texts[1]).abs().max() > 1e-3


def test_fixed_prompts_have_nothing_to_learn(tower):
    model = ready(tower, prompts="fixed").model
    assert not any(name.startswith("prompts") for name in dict(model.named_parameters()))
    assert model.text.norm(dim=-1).tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize("words", ["", "medical image", "brain"])
def test_prompts_are_made_with_and_without_an_object(words, tower):
    prompts = ready(tower).model.prompts
    sequences, ends = prompts.sequences(tower, "abnormal", words)
    assert sequences.shape == (3 * 7, 77, 16)
    plain = tower.tokenize(
        [f"{'X ' * 8}{phrase}".strip() for phrase in [f"damaged {words}".strip() + "."]]
    )
    assert int(ends[0]) == int(plain.argmax())


def test_an_object_of_too_many_words_is_refused(tower):
    with pytest.raises(ValueError, match=r"do not fit the text tower's 77; take a shorter"):
        ready(tower).model.prompts(tower, "word " * 80)


def test_the_phrase_stands_after_before_and_amid_the_context(tower):
    prompts = ready(tower).model.prompts
    sequences, _ = prompts.sequences(tower, "normal", "brain")
    end, front, middle = sequences.unflatten(0, (3, 7))[:, 0]  # the phrase "brain", one token
    word = tower.embed(tower.tokenize(["brain"]))[0, 1]
    for row, place in ((end, 9), (front, 1), (middle, 5)):
        assert torch.equal(row[place], word)
    context = prompts.ctx["normal_middle"][0]
    assert torch.equal(torch.cat([middle[1:5], middle[6:10]]), context)


# --- the sixteen copies


def test_there_are_sixteen_copies_and_masks_keep_their_values_in_the_jittered_one():
    mask = (torch.rand(2, 1, 32, 32) > 0.5).float()
    assert len(SIXTEEN_FOLD) == 16
    assert torch.equal(SIXTEEN_FOLD[13](mask), mask)
    assert SIXTEEN_FOLD[:9] == ELEVEN_FOLD[:9]


def test_a_zoom_enlarges_the_centre():
    image = torch.zeros(1, 1, 40, 40)
    image[..., 15:25, 15:25] = 1
    assert zoom(image, 1.3).sum() == pytest.approx(1.3**2 * 100, rel=0.1)
    assert zoom(image, 1.0).equal(image)


def test_normal_and_abnormal_images_have_a_jitter_each_by_the_seed():
    image = torch.rand(1, 3, 8, 8)
    normal, abnormal = (copies[13](image) for copies in drawn_jitters(1, "column"))
    again = drawn_jitters(1, "column")[0][13](image)
    assert torch.equal(normal, again)
    assert not torch.equal(normal, abnormal)
    assert drawn_jitters(1, "off")[0][13](image) is image


def test_the_mean_of_the_contrast_is_of_columns_or_of_the_image():
    image = torch.rand(2, 3, 8, 8)
    column, whole = (jitter(image, 1.0, 0.8, column=column) for column in (True, False))
    torch.testing.assert_close(column.mean(dim=(1, 2)), image.mean(dim=(1, 2)))
    torch.testing.assert_close(whole.mean(dim=(1, 2, 3)), image.mean(dim=(1, 2, 3)))
    assert not torch.allclose(column, whole)


# --- released files


def released(method):
    """A file's content as the authors write it, their copy of the text tower included."""
    model, state = method.model, {}
    for branch in ("normal", "abnormal"):
        state[f"{branch}_det_adapters"] = getattr(model, f"{branch}_det_adapters").state_dict()
        contexts = {
            f"prompt_learner.ctx.{n}": v
            for n, v in model.prompts.ctx.items()
            if n.startswith(branch)
        }
        state[f"prompt_maker_{branch}"] = contexts | {"text_encoder.ln_final.bias": torch.zeros(1)}
    return state


def test_released_adapters_and_prompts_are_loaded(tmp_path):
    other = MadCLIP(**OPTIONS, seed=5)
    torch.save(released(other), tmp_path / "Brain.pth")
    loaded = MadCLIP(**OPTIONS, adapters=str(tmp_path / "Brain.pth"))
    for (name, expected), found in zip(
        other.model.named_parameters(), loaded.model.parameters(), strict=True
    ):
        assert torch.equal(found, expected), name
    assert "adapters" not in loaded.hparams


@pytest.mark.parametrize("content", [None, {}, [1]])
def test_a_file_that_holds_no_such_thing_is_refused(content, tmp_path):
    path = tmp_path / "Brain.pth"
    if content is not None:
        torch.save(content, path)
    with pytest.raises(WeightsError, match=r"(?s)Brain.pth does not fit MadCLIP.*prompt_maker"):
        MadCLIP(**OPTIONS, adapters=str(path))


def test_it_has_as_many_parameters_as_published():
    """At ViT-L's widths; counted without building the tower."""
    from anomalib_medclip.components.learnable_prompts import LearnablePrompts
    from anomalib_medclip.components.prompts import NORMAL_STATES
    from anomalib_medclip.models.madclip.adapters import Adapter
    from anomalib_medclip.models.madclip.lightning_model import ABNORMAL_PHRASES

    adapter = Adapter(1024, 768)
    prompts = LearnablePrompts(768, NORMAL_STATES, ABNORMAL_PHRASES, 8, ("end", "front", "middle"))
    assert 8 * sum(p.numel() for p in adapter.parameters()) == 20_971_520
    assert sum(p.numel() for p in prompts.parameters()) == 258_048
