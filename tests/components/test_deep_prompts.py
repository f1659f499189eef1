"""Prompts that enter the text tower anew before its blocks."""

import pytest
import torch
from tiny import EVEN

from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.clip.towers import TextTower
from anomalib_medclip.components.deep_prompts import InsertedPrompts, OverwritingPrompts
from anomalib_medclip.components.image_prompts import ImagePrompts
from anomalib_medclip.components.words import Words


@pytest.fixture(scope="module")
def tower():
    return TextTower(Backbone(EVEN, image_size=32))


def test_words_are_overwritten_before_later_blocks_and_stay_so(tower):
    """As run block by block; the third block has none of its own."""
    deep = OverwritingPrompts(tower.width, length=2, blocks=2, seed=3)
    assert len(deep.vectors) == 1
    stream, ends = torch.randn(2, 9, tower.width), torch.tensor([6, 8])
    found = tower.features(stream, ends, before_block=deep)
    for number, block in enumerate(tower.blocks):
        if number == 1:
            stream = stream.clone()
            stream[:, 1:3] = deep.vectors[0]
        stream = block(stream, tower.causal_mask[:9, :9])
    torch.testing.assert_close(found, tower.read(stream, ends))


def test_prompts_of_no_length_or_of_one_block_change_nothing(tower):
    stream, ends = torch.randn(2, 9, tower.width), torch.tensor([6, 8])
    plain = tower.features(stream, ends)
    for length, blocks in ((0, 3), (2, 1)):
        deep = OverwritingPrompts(tower.width, length, blocks)
        assert torch.equal(tower.features(stream, ends, before_block=deep), plain)


def test_the_seed_decides_the_first_vectors_and_nothing_else():
    torch.manual_seed(1)
    following = torch.rand(1)
    torch.manual_seed(1)
    first, again, other = (OverwritingPrompts(24, 50, 9, seed).vectors[7] for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), following)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert float(first.std()) == pytest.approx(0.02, rel=0.1)


SENTENCES = ("a photo of a good", "a photo of a damaged")
WORDS = Words(("good",), ("damaged",), ("a photo of a {}",))


@pytest.mark.parametrize("deep_length", [0, 2])
def test_sentences_that_end_again_are_read_at_their_end(deep_length, tower):
    """As padded and run whole, the end-of-text token moved to the right of the class tokens."""
    prompts = ImagePrompts(tower, 24, WORDS, 3, deep_length=deep_length, ends=True)
    feature = torch.randn(4, 24)
    found = prompts(tower, prompts.templates(tower), feature)
    tokens = tower.embed(tower.tokenize(SENTENCES))
    for image, own in enumerate(prompts.class_tokens(feature)):
        parts = [tokens[:, :6], own.expand(2, -1, -1), tokens[:, 6 : 77 - 3]]
        stream = torch.cat(parts, dim=1) + tower.positional_embedding
        for number, block in enumerate(tower.blocks):
            if prompts.deep is not None:
                stream = prompts.deep(stream, number)[:, :77]
            stream = block(stream, tower.causal_mask)
        if prompts.deep is not None:
            stream = prompts.deep.prompt_norm(stream)
        read = torch.full((2,), 6 + 3 + deep_length)
        expected = torch.nn.functional.normalize(tower.read(stream, read), dim=-1)
        torch.testing.assert_close(found[image], expected)


def test_dropout_draws_for_each_image_in_training_alone(tower):
    prompts = ImagePrompts(tower, 24, WORDS, ends=True, dropout=0.5)
    templates, feature = prompts.templates(tower), torch.randn(1, 24).expand(3, -1)
    first, second, _ = prompts(tower, templates, feature)
    assert not torch.allclose(first, second, atol=1e-4)
    first, second, _ = prompts.eval()(tower, templates, feature)
    assert torch.equal(first, second)
    assert not InsertedPrompts(tower).differs
