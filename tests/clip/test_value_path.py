"""A second stream beside the image tower, of values that attend to one another."""

import pytest
import torch
from torch import nn

from anomalib_medclip.clip.value_path import check_value_path, value_path
from anomalib_medclip.errors import ConfigError


def attention_of_values(block, stream):
    """As it is defined, head by head."""
    attention, width = block.attn, stream.shape[-1]
    weight, bias = attention.in_proj.weight[2 * width :], attention.in_proj.bias[2 * width :]
    heads = (block.ln_1(stream) @ weight.T + bias).chunk(attention.heads, dim=-1)
    scale = heads[0].shape[-1] ** -0.5
    found = [(scale * v @ v.transpose(1, 2)).softmax(dim=-1) @ v for v in heads]
    return attention.out_proj(torch.cat(found, dim=-1))


@pytest.mark.parametrize("first", [1, 3, 4])
def test_it_adds_what_values_say_of_the_towers_own_stream(first, tiny_image_tower, images):
    tower, levels = tiny_image_tower, (2, 3, 4)
    found = value_path(tower, images, levels, first)
    own = tower.taps(images, [0, 1, 2, 3, 4]).unbind(dim=1)
    torch.testing.assert_close(found.last, own[-1])
    for at, level in enumerate(levels):
        expected = own[min(level, first - 1)]
        for number in range(first, level + 1):
            expected = expected + attention_of_values(tower.blocks[number - 1], own[number - 1])
        torch.testing.assert_close(found.values[:, at], expected)


def test_a_path_that_ends_early_runs_the_tower_to_its_end(tiny_image_tower, images):
    early = value_path(tiny_image_tower, images, [2], 2)
    whole = value_path(tiny_image_tower, images, [2, 4], 2)
    assert torch.equal(early.values[:, 0], whole.values[:, 0])
    assert torch.equal(early.last, whole.last)


class Foreign:
    """A tower of another kind."""

    prefix = 1
    blocks = (nn.Identity(),)
    backbone = type("Named", (), {"name": "ViT-B-16-SigLIP"})


def test_a_tower_without_such_blocks_or_class_token_is_refused(tiny_image_tower):
    check_value_path(tiny_image_tower, "Probe")
    said = "Probe takes values out of CLIP's own blocks.*ViT-B-16-SigLIP has none; take a plain ViT"
    with pytest.raises(ConfigError, match=said):
        check_value_path(Foreign, "Probe")
    poolless = type("Poolless", (Foreign,), {"blocks": tiny_image_tower.blocks, "prefix": 0})
    with pytest.raises(ConfigError, match=said):
        check_value_path(poolless, "Probe")
