"""Words of prompts: what a file may say, and what is wrong with it."""

from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from anomalib_medclip.components.learnable_prompts import LearnablePrompts
from anomalib_medclip.components.prompts import (
    NORMAL_STATES,
    TEMPLATES,
    WORDS,
    FixedPrompts,
    ensemble,
    sentences,
)
from anomalib_medclip.components.words import KINDS, AskedWords, Words
from anomalib_medclip.errors import ConfigError

EXAMPLES = sorted((Path(__file__).parents[2] / "configs" / "prompts").glob("*.yaml"))
SAID = {"normal": ["healthy {}"], "abnormal": ["{} with a tumour", "ill {}"]}


def file_of(folder, said):
    path = folder / "words.yaml"
    path.write_text(said if isinstance(said, str) else yaml.safe_dump(said), encoding="utf-8")
    return str(path)


def test_a_file_and_what_is_in_it_say_the_same(tmp_path):
    said = {**SAID, "templates": ["an MR image of a {}."], "object_name": "brain", "kind": "fixed"}
    by_file, as_is = (AskedWords.of(one, KINDS) for one in (file_of(tmp_path, said), said))
    assert by_file.above(WORDS) == as_is.above(WORDS)
    assert by_file.as_plain() == as_is.as_plain() == said
    assert AskedWords.of(by_file.as_plain(), KINDS) == as_is


def test_what_is_not_said_stays_as_it_was():
    words = AskedWords.of({"abnormal": ["ill {}"]}).above(WORDS)
    assert words == Words(NORMAL_STATES, ("ill {}",), TEMPLATES)
    assert AskedWords.of(None).above(WORDS) == AskedWords.of("fixed", KINDS).above(WORDS) == WORDS
    assert AskedWords.of("fixed", KINDS).as_plain() == "fixed"
    assert AskedWords.of(None).as_plain() is None


WRONG = {
    "- a\n- b": "it is no mapping; give it some of kind, object_name, normal",
    "{}": "it is no mapping",
    "normal: [a, ]b": "it is no YAML: .* correct it",
    "norml: [a]": "there is no 'norml'; did you mean 'normal'",
    "1: [a]": "there is no 1; There are kind",
    "normal: []": "normal is empty; give one text or more",
    "normal: healthy": "normal is 'healthy', and must be a list; begin each line with '- '",
    "normal: {a: b}": "normal is .* must be a list",
    "abnormal: [ill, no]": r"abnormal\[1\] is False, and must be text; put it in quotes",
    "abnormal: [ill, 3]": r"abnormal\[1\] is 3, and must be text",
    "abnormal: ['  ']": r"abnormal\[0\] is blank; take it out",
    "templates: ['a photo.']": r"templates\[0\] is 'a photo.'; write \{\} where the state goes",
    "templates: ['a {} of {}']": r"may have one \{\} and no other brace",
    "normal: ['healthy {organ}']": r"normal\[0\] is 'healthy \{organ\}', and may have one",
    "normal: ['healthy {} }']": "and no other brace",
    "normal: [a]\nabnormal: [a]": "normal and abnormal say the same",
    "object_name: 3": "object_name is 3, and must be text; put it in quotes",
    "object_name: 'a {} b'": r"object_name is 'a \{\} b', and may have no brace",
    'object_name: "a\\nb"': "object_name is .*, and has a line break; write it in one line",
    'normal: ["calm {}\\nand well"]': r"normal\[0\] is .*, and has a line break",
    "templates:\n- |\n  a {}.\n": r"templates\[0\] is .*, and has a line break",
    "kind: soft": "kind is 'soft', and must be 'learnable' or 'fixed'",
}


@pytest.mark.parametrize("said", WRONG)
def test_what_is_wrong_with_a_file_is_named_with_file_key_and_remedy(said, tmp_path):
    path = file_of(tmp_path, said)
    with pytest.raises(ConfigError, match=WRONG[said]) as error:
        AskedWords.of(path, KINDS)
    assert path in str(error.value)


@pytest.mark.parametrize(
    ("state", "words"),
    [("healthy {}", {"normal": ["healthy brain"]}), ("some", {"normal": ["healthy {}", "some"]})],
)
def test_a_state_without_a_place_among_states_with_one_is_refused(state, words, tmp_path):
    path = file_of(tmp_path, words | {"abnormal": ["ill {}"]})
    with pytest.raises(ConfigError, match=r"no \{\} for the object's name, and others"):
        AskedWords.of(path).above(WORDS)


def test_a_missing_file_is_no_kind(tmp_path):
    with pytest.raises(ConfigError, match="prompts is 'fxed', and there is no such file; give 'le"):
        AskedWords.of("fxed", KINDS)
    with pytest.raises(ConfigError, match="is a folder and no file"):
        AskedWords.of(str(tmp_path), KINDS)
    (tmp_path / "latin.yaml").write_bytes("normal: [g\xfcltig]".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin.yaml: it is no YAML: .*utf-8"):
        AskedWords.of(str(tmp_path / "latin.yaml"))


def test_an_object_is_asked_for_once_and_has_a_place():
    asked = AskedWords.of({**SAID, "object_name": "brain"})
    words = asked.above(WORDS)
    assert asked.check_object(words, None) == asked.check_object(words, "brain") == "brain"
    assert AskedWords.of(SAID).check_object(words, "liver") == "liver"
    with pytest.raises(ConfigError, match="object_name is 'brain', and the option says 'liver'"):
        asked.check_object(words, "liver")
    with pytest.raises(ConfigError, match=r"no state has a \{\} for the object 'brain'"):
        asked.check_object(Words(("well",), ("ill",)), None)


@given(st.text(st.characters(codec="utf-8", exclude_characters="{}"), min_size=1))
def test_any_object_goes_into_its_place(name):
    words = Words(("well {}",), ("{}, ill",), ("a photo of {}.",))
    assert sentences(name, words.normal, words.templates) == [f"a photo of well {name}."]
    assert words.about(name).abnormal == (f"{name}, ill",)


def test_fixed_prompts_say_what_they_are_told(tiny_text_tower):
    text = FixedPrompts(("well {}",), ("ill {}",), ("{} it is",))(tiny_text_tower, "brain")
    rows = [tiny_text_tower.encode([f"{state} brain it is"])[0] for state in ("well", "ill")]
    torch.testing.assert_close(text, torch.stack(rows), atol=1e-6, rtol=0)
    usual = ensemble(tiny_text_tower, "brain")
    assert torch.equal(FixedPrompts()(tiny_text_tower, "brain"), usual)


def test_a_sentence_that_would_be_cut_is_refused_and_none_that_fits(tiny_text_tower):
    longest = " ".join(["the"] * 74)  # with a start and an end 76 of 77 tokens
    FixedPrompts((f"{longest}",), ("ill",), ("{}",))(tiny_text_tower)
    with pytest.raises(ConfigError, match=r"'the the .* not fit the text tower's 77 tokens; sh"):
        FixedPrompts((f"{longest} the the",), ("ill",), ("{}",))(tiny_text_tower)
    learnt = LearnablePrompts(tiny_text_tower.width, [longest], ["ill"])
    with pytest.raises(ConfigError, match="with its context do not fit the text tower's 77"):
        learnt(tiny_text_tower)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_read_fits_the_tower_and_says_how_it_is_used(path, tiny_text_tower):
    asked = AskedWords.of(str(path))
    words = asked.above(WORDS)
    text = FixedPrompts(**vars(words))(tiny_text_tower, asked.object_name)
    assert words.name_the_object
    assert words.templates != TEMPLATES
    assert text[0] @ text[1] < 1
    assert f"--model.prompts configs/prompts/{path.name}" in path.read_text()
