"""The word for a device reaches the runtime, and one that there is not is refused with a remedy."""

import numpy as np
import onnxruntime
import pytest
import torch

from anomalib_medclip.errors import ConfigError, RuntimeMissingError
from anomalib_medclip.export.runtimes import open_onnx, open_openvino
from anomalib_medclip.score.inferencer import Inferencer


class Session:
    """A session of ONNX Runtime, which notes where it was to compute."""

    asked = None
    usable = ("CUDAExecutionProvider", "CPUExecutionProvider")

    def __init__(self, path, providers):
        Session.asked = providers

    def get_providers(self):
        return list(self.usable)

    def get_outputs(self):
        return []


@pytest.fixture
def gpus(monkeypatch):
    """An ONNX Runtime for GPUs."""
    found = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: found)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)


@pytest.mark.parametrize(
    ("word", "provider"),
    [
        ("cpu", ("CPUExecutionProvider", {})),
        ("cuda", ("CUDAExecutionProvider", {})),
        ("cuda:1", ("CUDAExecutionProvider", {"device_id": 1})),
    ],
)
def test_onnx_runtime_is_told_which_gpu(word, provider, gpus, tmp_path):
    open_onnx(tmp_path / "model.onnx", word)
    assert Session.asked == [provider]


def test_onnx_runtime_that_falls_back_to_the_processor_is_refused(gpus, tmp_path, monkeypatch):
    monkeypatch.setattr(Session, "usable", ("CPUExecutionProvider",))
    with pytest.raises(ConfigError, match="cannot use cuda:7; give a GPU that there is, or cpu"):
        open_onnx(tmp_path / "model.onnx", "cuda:7")


@pytest.mark.parametrize("word", ["mps", "cuda:one", "gpu"])
def test_onnx_runtime_has_few_devices(word, gpus, tmp_path):
    with pytest.raises(ConfigError, match=f"takes no device '{word}'; give cpu, cuda or cuda:1"):
        open_onnx(tmp_path / "model.onnx", word)


def test_onnx_runtime_without_gpus_names_the_one_with(tmp_path, monkeypatch):
    found = ["CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: found)
    with pytest.raises(RuntimeMissingError, match="pip install onnxruntime-gpu, or give cpu"):
        open_onnx(tmp_path / "model.onnx", "cuda")


def test_openvino_names_the_devices_that_there_are(tmp_path):
    with pytest.raises(ConfigError, match="no device 'cuda' here; give one of cpu"):
        open_openvino(tmp_path / "model.xml", "cuda")


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("ending", [".ckpt", ".pt"])
@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("cuda:1", "torch sees no device cuda:1 here; give one of cpu"),
        ("mps", "torch sees no device mps here"),
        ("meta", "torch sees no device meta here"),
        ("gpu", "'gpu' is no device of torch; give one such as cpu, cuda, cuda:1 or mps"),
    ],
)
def test_a_device_that_there_is_not_is_missed_before_a_file_is_read(ending, word, said, tmp_path):
    (path := tmp_path / f"model{ending}").write_bytes(np.arange(9).tobytes())
    with pytest.raises(ConfigError, match=said):
        Inferencer(path, device=word)
