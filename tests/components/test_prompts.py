import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from anomalib_medclip.components.prompts import (
    ABNORMAL_STATES,
    NORMAL_STATES,
    TEMPLATES,
    ensemble,
    sentences,
)


def test_there_are_35_templates_seven_normal_and_five_abnormal_states():
    assert [len(set(words)) for words in (TEMPLATES, NORMAL_STATES, ABNORMAL_STATES)] == [35, 7, 5]
    assert [len(words) for words in (TEMPLATES, NORMAL_STATES, ABNORMAL_STATES)] == [35, 7, 5]


@pytest.mark.parametrize("frame", [*TEMPLATES, *NORMAL_STATES, *ABNORMAL_STATES])
def test_every_frame_has_one_place_for_the_object(frame):
    assert frame.count("{}") == 1


@pytest.mark.parametrize(
    "sentence",
    [
        "a bad photo of a Brain.",
        "a low resolution photo of the flawless Brain.",
        "a photo of my Brain without damage.",
        "there is the perfect Brain in the scene.",
    ],
)
def test_sentences_are_states_within_templates(sentence):
    assert sentence in sentences("Brain", NORMAL_STATES)


@settings(max_examples=20)
@given(name=st.text(min_size=1, max_size=20))
def test_any_object_name_comes_through_unharmed(name):
    found = sentences(name, ABNORMAL_STATES)
    assert len(found) == 175
    assert all(name in sentence for sentence in found)
    assert found[0] == f"a bad photo of a damaged {name}."


def test_the_ensemble_is_two_unit_vectors_normal_first(tiny_text_tower):
    text = ensemble(tiny_text_tower, "Brain")
    assert text.shape == (2, 24)
    torch.testing.assert_close(text.norm(dim=-1), torch.ones(2))
    for row, states in zip(text, (NORMAL_STATES, ABNORMAL_STATES), strict=True):
        features = tiny_text_tower.encode(sentences("Brain", states))
        torch.testing.assert_close(row, F.normalize(features.mean(dim=0), dim=-1))


def test_one_state_in_one_wording_is_the_mean_of_its_templates(tiny_text_tower):
    text = ensemble(tiny_text_tower, "liver", normal=["healthy {}"], abnormal=["sick {}"])
    mean = tiny_text_tower.encode([t.format("sick liver") for t in TEMPLATES]).mean(dim=0)
    torch.testing.assert_close(text[1], mean / mean.norm())


def test_the_object_and_its_state_matter(tiny_text_tower):
    brain, liver = ensemble(tiny_text_tower, "Brain"), ensemble(tiny_text_tower, "Liver")
    assert not torch.allclose(brain, liver, atol=1e-4)
    assert not torch.allclose(brain[0], brain[1], atol=1e-4)
    assert torch.equal(brain, ensemble(tiny_text_tower, "Brain"))


def test_the_ensemble_carries_no_gradient(tiny_text_tower):
    assert not ensemble(tiny_text_tower, "Brain").requires_grad


def test_words_that_were_first_read_while_predicting_can_be_learnt_with(tiny_text_tower):
    with torch.inference_mode():
        read = tiny_text_tower.tokenize(["a whisk"])
    again = tiny_text_tower.tokenize(["a whisk"])
    assert torch.equal(read, again)
    assert not again.is_inference()
