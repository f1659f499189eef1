"""The resize of exported graphs is the one resize, to the bit for images of 8 bits."""

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_medclip.readers import graph_resize
from anomalib_medclip.readers.graph_resize import GraphResize
from anomalib_medclip.readers.resize import MethodResize

SIZES = [
    (20, 25), (32, 60), (60, 32), (32, 32), (40, 48), (100, 100), (30, 500), (500, 30), (64, 128),
    (192, 96), (7, 3), (97, 61), (96, 97), (1, 1),
]  # fmt: skip
"""Heights and widths for a side of 32: smaller, larger, simple ratios, wide, tall, one of them."""


def images(size, values=256, count=2):
    """Noise of whole 255ths, or of finer steps."""
    pixels = np.random.default_rng(0).integers(0, values, (count, 3, *size))
    return torch.from_numpy(pixels.astype(np.float32)).div(values - 1)


def both(batch, resample):
    """What the graph's resize makes of images whose size it does not know, and the one resize."""
    found = GraphResize(32, resample)(batch)
    return found, MethodResize(32, resample)(batch).as_subclass(torch.Tensor)


@pytest.mark.parametrize("resample", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", SIZES)
def test_8_bits_become_the_same_to_the_bit(size, resample, monkeypatch):
    found, expected = both(images(size), resample)
    assert torch.equal(found, expected)
    monkeypatch.setattr(torch.Tensor, "double", torch.Tensor.float)  # a runtime without float64
    found, _ = both(images(size), resample)
    assert (found != expected).float().mean() < 1e-3
    assert (found - expected).abs().max() < 1.01 / 255


@pytest.mark.parametrize("resample", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", SIZES)
def test_more_bits_keep_their_precision(size, resample):
    found, expected = both(images(size, values=65536), resample)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


def test_each_image_of_a_batch_has_its_own_precision():
    mixed = torch.cat([images((50, 70), count=1), images((50, 70), values=4096, count=1)])
    found, expected = both(mixed, "bicubic")
    assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1], rtol=0, atol=2e-6)


@pytest.mark.parametrize("tall_is_vertical_first", [True, False])
def test_the_order_of_the_sides_is_that_of_the_installed_pillow(
    tall_is_vertical_first, monkeypatch
):
    monkeypatch.setattr(graph_resize, "_TALL_IS_VERTICAL_FIRST", tall_is_vertical_first)
    tall = images((300, 60), count=1)
    pixels = (tall[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    between = (60, 32) if tall_is_vertical_first else (32, 300)
    first = Image.fromarray(pixels).resize(between, Image.Resampling.BICUBIC)
    expected = np.array(first.resize((32, 32), Image.Resampling.BICUBIC))
    found = (GraphResize(32, "bicubic")(tall)[0] * 255).round().permute(1, 2, 0).numpy()
    assert np.array_equal(found, expected)
