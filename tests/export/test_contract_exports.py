"""Every method exports to every format, certified; one photo scores the same in every way.

The photo is larger than the model's input, so that a resize of another kind would show. How a file
is opened, or refused, is the same for all methods.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.deploy import OpenVINOInferencer, TorchInferencer
from PIL import Image
from tiny import CASES, shallow, small

from anomalib_medclip import Inferencer
from anomalib_medclip.errors import (
    CheckpointError,
    IntensityError,
    RuntimeMissingError,
    TrustError,
)
from anomalib_medclip.readers.picture import read_image


@pytest.fixture(scope="session", params=CASES, ids=lambda case: case.name)
def case(request):
    return request.param


@pytest.fixture(scope="session")
def method(case):
    return case.method


@pytest.fixture(scope="session")
def files(case):
    """A method's checkpoint and its three exports."""
    exported = {kind: case.exported(kind) for kind in ("torch", "onnx", "openvino")}
    return {"checkpoint": case.shallow_checkpoint, **exported}


@pytest.fixture(scope="session")
def photo(tmp_path_factory):
    """1024 pixels of fine noise: a resize without antialiasing would show."""
    pixels = np.random.default_rng(0).integers(0, 256, (1024, 900, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="session")
def expected(case, method, files, photo):
    """What ``anomalib predict`` says."""
    with case.home() as home:
        engine = case.engine(home)
        return engine.predict(shallow(method), data_path=photo, ckpt_path=files["checkpoint"])[0]


@pytest.mark.parametrize("kind", ["torch", "onnx", "openvino"])
def test_every_export_is_certified(kind, files):
    paper = json.loads(files[kind].with_suffix(".json").read_text())
    assert paper["images"] >= 8
    figures = paper["figures"]
    assert 0 < figures["allowed"] <= 1e-4
    assert max(figures["map"], figures["score"]) <= figures["allowed"]
    assert figures["labels"] == 0


def agree(found, expected, files):
    allowed = json.loads(files["onnx"].with_suffix(".json").read_text())["figures"]["allowed"]
    scores = [torch.as_tensor(x.pred_score).flatten() for x in (found, expected)]
    maps = [torch.as_tensor(x.anomaly_map).reshape(32, 32) for x in (found, expected)]
    # The certificate speaks of its own images, and this one is finer than any of them.
    torch.testing.assert_close(*scores, atol=max(allowed, 1e-4), rtol=0)
    torch.testing.assert_close(*maps, atol=allowed, rtol=0)
    assert bool(found.pred_label) == bool(expected.pred_label)


@pytest.mark.parametrize("kind", ["checkpoint", "torch", "onnx", "openvino"])
def test_the_inferencer_agrees_with_predict(kind, files, photo, expected, monkeypatch):
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    found = Inferencer(files[kind]).predict(photo)
    agree(Found(found), expected, files)
    assert found.full_map.shape == (1024, 900)
    assert found.full_map.min() >= found.anomaly_map.min() - 1e-6
    assert found.full_map.max() <= found.anomaly_map.max() + 1e-6


class Found:
    """A prediction in anomalib's names."""

    def __init__(self, prediction):
        self.pred_score, self.pred_label = prediction.score, prediction.label
        self.anomaly_map = prediction.anomaly_map


@pytest.mark.daily_for(case="MVFA")
def test_anomalibs_torch_inferencer_agrees_with_predict(files, photo, expected, monkeypatch):
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    agree(TorchInferencer(files["torch"], device="cpu").predict(photo), expected, files)


@pytest.mark.daily_for(case="MVFA")
def test_anomalibs_openvino_inferencer_agrees_on_an_image_of_the_models_size(
    files, photo, expected, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # it makes a cache folder where it stands
    inferencer = OpenVINOInferencer(files["openvino"], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    resize = Inferencer(files["openvino"]).resize
    small = resize(read_image(photo)).permute(1, 2, 0).numpy()
    agree(inferencer.predict(small), expected, files)


@pytest.mark.daily_for(case="MVFA")
def test_a_torch_export_is_not_opened_without_trust(files, monkeypatch):
    monkeypatch.delenv("TRUST_REMOTE_CODE", raising=False)
    with pytest.raises(TrustError, match=r"model.pt is a pickle of a whole.*TRUST_REMOTE_CODE"):
        Inferencer(files["torch"])


@pytest.mark.daily_for(case="MVFA")
def test_sixteen_bits_need_a_policy_here_too(files, tmp_path):
    pixels = np.arange(40 * 40, dtype=np.uint16).reshape(40, 40)
    Image.fromarray(pixels).save(tmp_path / "deep.png")
    with pytest.raises(IntensityError, match=r"deep.png holds uint16"):
        Inferencer(files["onnx"]).predict(tmp_path / "deep.png")
    given = Inferencer(files["onnx"], intensity=(0, 1600)).predict(tmp_path / "deep.png")
    assert 0 <= given.score <= 1


@pytest.mark.parametrize("kind", ["checkpoint", "openvino"])
def test_bf16_stays_near(kind, files, photo, expected):
    found = Inferencer(files[kind], precision="bf16").predict(photo)
    maps = [torch.as_tensor(x.anomaly_map).reshape(32, 32) for x in (found, expected)]
    # Single pixels of so small a model move; CLIP's have 200 times the channels.
    assert 0 < (maps[0] - maps[1]).abs().mean() < 0.03
    assert torch.corrcoef(torch.stack(maps).flatten(1))[0, 1] > 0.97
    assert found.anomaly_map.dtype == torch.float32


@pytest.mark.parametrize(
    ("kind", "precision", "shared"),
    [
        ("checkpoint", None, True),
        ("checkpoint", "bf16", True),
        ("torch", None, True),
        ("onnx", None, False),
        ("openvino", None, True),
        ("openvino", "bf16", True),
    ],
)
def test_where_batches_are_shared_place_and_neighbours_change_no_bit(
    kind, precision, shared, files, monkeypatch
):
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    inferencer = Inferencer(files[kind], precision=precision)
    assert inferencer.shares_batches is shared
    if not shared:
        return
    images = torch.rand(15, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    together = inferencer.answer(images[:8])
    for row in range(8):
        # It stands at the other end, among images that were not there before.
        moved = inferencer.answer(images[[*range(8 + row, 15), row, *range(8, 8 + row)]])
        filled = inferencer.answer(images[[row] * 8])
        for one, other, same in zip(together, moved, filled, strict=True):
            if one is None:  # vectors, which exports have not
                continue
            assert torch.equal(other[7 - row], one[row])
            assert torch.equal(same, one[row].expand_as(same))


@pytest.mark.daily_for(case="MVFA")
@pytest.mark.parametrize("kind", ["checkpoint", "onnx", "openvino"])
def test_images_stay_where_a_processor_takes_them(kind, files):
    images = torch.rand(2, 1, 32, 32)
    assert Inferencer(files[kind]).send(images) is images


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_images_are_sent_to_the_gpu_that_computes(files):
    images = torch.rand(2, 3, 32, 32)
    inferencer = Inferencer(files["checkpoint"], device="cuda")
    sent = inferencer.send(images)
    assert sent.is_cuda
    for one, other in zip(inferencer.answer(sent), inferencer.answer(images), strict=True):
        assert one is None or torch.equal(one, other)


@pytest.mark.daily_for(case="MVFA")
@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_a_file_of_one_precision_says_so(kind, files, monkeypatch):
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    assert Inferencer(files[kind], precision="fp32").precision == "fp32"
    with pytest.raises(CheckpointError, match=r"model\.\w+ has the precision .*, fp32; leave"):
        Inferencer(files[kind], precision="bf16")


@pytest.mark.daily_for(case="MVFA")
def test_a_torch_export_in_bf16_is_not_taken_for_fp32(method, tmp_path, monkeypatch):
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    path = tmp_path / "model.pt"
    torch.save({"model": small(method, precision="bf16")}, path)
    assert [Inferencer(path, precision=asked).precision for asked in (None, "bf16")] == ["bf16"] * 2
    with pytest.raises(CheckpointError, match=r"model\.pt has the precision .*, bf16; leave"):
        Inferencer(path, precision="fp32")


@pytest.mark.parametrize("name", ["model.tflite", "gone.onnx"])
def test_what_is_no_model_file_is_named(name, tmp_path):
    with pytest.raises(CheckpointError, match=name):
        Inferencer(tmp_path / name)


@pytest.mark.daily_for(case="MVFA")
def test_a_model_without_its_certificate_is_refused(files, tmp_path):
    lonely = tmp_path / "model.onnx"
    for file in files["onnx"].parent.glob("model.onnx*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(CheckpointError, match=r"model.json is missing; export the model again"):
        Inferencer(lonely)


def test_a_checkpoint_of_another_package_is_refused(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match=r"other.ckpt was not made by a model"):
        Inferencer(tmp_path / "other.ckpt")


@pytest.mark.daily_for(case="MVFA")
@pytest.mark.parametrize(("kind", "module"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_a_missing_runtime_says_what_to_install(kind, module, files, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(RuntimeMissingError, match=rf"{module} is not installed; run: pip install"):
        Inferencer(files[kind])


@pytest.mark.daily_for(case="MVFA")
@pytest.mark.parametrize("kind", ["checkpoint", "onnx", "openvino"])
def test_a_damaged_file_is_named(kind, files, tmp_path):
    broken = tmp_path / Path(files[kind]).name
    broken.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=broken.name):
        Inferencer(broken)


@pytest.mark.daily_for(case="MVFA")
def test_a_model_beside_another_certificate_is_refused(files, tmp_path):
    for file in files["onnx"].parent.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with (tmp_path / "model.onnx").open("ab") as file:
        file.write(b"0")
    with pytest.raises(CheckpointError, match=r"model.onnx is not the file that .*model.json"):
        Inferencer(tmp_path / "model.onnx")
