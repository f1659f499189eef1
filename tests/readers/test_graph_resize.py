"""The resize of exported graphs is the one resize, to the bit for images of 8 bits."""

import numpy as np
import onnxruntime
import openvino
import pytest
import torch
from PIL import Image
from torch.export import Dim

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


def both(batch, resample, side=32):
    """What the graph's resize makes of images whose size it does not know, and the one resize."""
    return GraphResize(side, resample)(batch), one_resize(batch, resample, side)


def one_resize(batch, resample, side):
    return MethodResize(side, resample)(batch).as_subclass(torch.Tensor)


@pytest.mark.parametrize("resample", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", SIZES)
def test_8_bits_become_the_same_to_the_bit(size, resample):
    found, expected = both(images(size), resample)
    assert torch.equal(found, expected)


LARGE = [(641, 359), (100, 73), (512, 512), (239, 241), (1200, 777)]
"""Sizes for the sides of the papers' models."""


@pytest.mark.parametrize("side", [224, 240, 336])
@pytest.mark.parametrize("size", LARGE)
def test_it_is_as_exact_at_the_sides_of_real_models(size, side):
    found, expected = both(images(size, count=1), "bicubic", side)
    assert torch.equal(found, expected)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The resize of a real model alone, as ONNX."""
    file = tmp_path_factory.mktemp("graph") / "resize.onnx"
    free = {0: Dim("batch"), 2: Dim("height", max=32768), 3: Dim("width", max=32768)}
    torch.onnx.export(
        GraphResize(240, "bicubic").eval(), (torch.zeros(2, 3, 50, 61),), file, dynamo=True,
        opset_version=18, dynamic_shapes=(free,), verbose=False,
    )  # fmt: skip
    return file


@pytest.mark.parametrize("runtime", ["ONNX Runtime", "OpenVINO"])
def test_it_is_as_exact_in_runtimes_that_compute_in_float32(exported, runtime):
    if runtime == "OpenVINO":
        model = openvino.compile_model(exported, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

        def run(batch):
            return model(batch.numpy())[0]
    else:
        session = onnxruntime.InferenceSession(exported)

        def run(batch):
            return session.run(None, {session.get_inputs()[0].name: batch.numpy()})[0]

    for size in LARGE:
        batch = images(size, count=1)
        found = torch.from_numpy(run(batch))
        # OpenVINO multiplies by a 255th where torch divides by 255.
        torch.testing.assert_close(found, one_resize(batch, "bicubic", 240), rtol=0, atol=1e-7)


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
