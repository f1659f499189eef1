"""Tokens that pass a block by themselves are what they are among all the others."""

import pytest
import torch
from tiny import EVEN

from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.clip.partial_attention import context, read
from anomalib_medclip.clip.towers import TextTower
from anomalib_medclip.components.learnable_prompts import LearnablePrompts


@pytest.fixture(scope="module")
def tower():
    return TextTower(Backbone(EVEN, image_size=32)).double()


def stream(*shape):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*shape, 24, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("causal", [True, False])
def test_some_tokens_of_a_block_are_those_of_the_whole(causal, tower):
    block, tokens = tower.blocks[0], stream(2, 7)
    mask = tower.causal_mask[:7, :7] if causal else None
    whole, some = block(tokens, mask), mask if mask is None else mask[4:]
    torch.testing.assert_close(
        read(block, tokens[:, 4:], context(block, tokens), some), whole[:, 4:]
    )


def test_sentences_that_begin_alike_read_one_beginning(tower):
    block, start, ends = tower.blocks[0], stream(2, 5), stream(6, 2)
    whole = torch.cat([start.repeat(3, 1, 1), ends], dim=1)
    every = context(block, start).repeat(3).then(context(block, ends))
    for joined, expected in zip(every, context(block, whole), strict=True):
        torch.testing.assert_close(joined, expected)


@pytest.mark.parametrize("causal", [True, False])
def test_what_is_not_read_is_not_needed(causal, tower):
    """The same features, and the same gradient, as when all positions go through all blocks."""
    positions, found = torch.tensor([9, 3, 11]), []
    for way in (tower.features, lambda s, p, c: tower.read(tower.run(s, c), p)):
        tokens = stream(3, 77).requires_grad_()
        features = way(tokens, positions, causal)
        (gradient,) = torch.autograd.grad(features.square().sum(), tokens)
        found.append((features, gradient))
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain)
    assert (gradient[:, 12:] == 0).all() == causal


@pytest.mark.parametrize("causal", [True, False])
def test_prompts_learn_as_if_all_77_positions_were_computed(causal, tower):
    prompts = LearnablePrompts(24, ["{}", "flawless {}"], ["damaged {}"], 4, causal=causal).double()
    found = []
    for features in (tower.features, lambda s, p, c: tower.read(tower.run(s, c), p)):
        rows, ends = zip(
            *(prompts.sequences(tower, group) for group in prompts.phrases), strict=True
        )
        whole = torch.cat(rows) + tower.positional_embedding
        of_all = features(whole, torch.cat(ends), causal)
        groups = [of_all[:2].mean(dim=0), of_all[2:].mean(dim=0)]
        text = torch.nn.functional.normalize(torch.stack(groups), dim=-1)
        found.append((text, *torch.autograd.grad(text[0, 0], [*prompts.parameters()])))
    text = prompts(tower)
    own = (text, *torch.autograd.grad(text[0, 0], [*prompts.parameters()]))
    for ours, short, plain in zip(own, *found, strict=True):
        torch.testing.assert_close(ours, plain)
        torch.testing.assert_close(short, plain)
