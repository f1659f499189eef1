"""Scores one image after another, with a trained checkpoint or an exported model."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from anomalib.deploy import TorchInferencer
from jaxtyping import Float
from torch import Tensor

import anomalib_medclip
from anomalib_medclip.components.provenance import sha256
from anomalib_medclip.components.runtimes import Run, open_onnx, open_openvino, torch_run
from anomalib_medclip.errors import CheckpointError, MedclipError, NotReadyError
from anomalib_medclip.imaging import MethodResize, read_image
from anomalib_medclip.intensity import IntensityPolicy


class Prediction(NamedTuple):
    """What a model says of one image.

    Attributes:
        score: How abnormal, in [0, 1]; 0.5 is the threshold.
        label: Whether it counts as abnormal.
        anomaly_map: How abnormal each pixel is, in [0, 1], at the model's size.
        full_map: The same at the image's own size.
    """

    score: float
    label: bool
    anomaly_map: Float[Tensor, "side side"]
    full_map: Float[Tensor, "height width"]


class Inferencer:
    """Reads images as training did, and scores them.

    Reading and resizing happen outside the exported graph, because runtimes resize differently;
    everything that must be known for that is in the checkpoint, or in the certificate beside the
    exported model.

    Args:
        path: A checkpoint (``.ckpt``), or an exported model (``.onnx``, ``.xml`` or ``.pt``). A
            ``.pt`` file can run code when it is opened; set ``TRUST_REMOTE_CODE=1`` to allow it.
        device: ``"cpu"``, ``"cuda"``, or OpenVINO's name of a device.
        intensity: What to do with images of more than 8 bits; by default as in training.

    Raises:
        CheckpointError: No such file, no certificate beside it, or it is of another kind.
        RuntimeMissingError: The runtime for the file is not installed.
    """

    def __init__(
        self, path: str | Path, device: str = "cpu", intensity: IntensityPolicy = None
    ) -> None:
        path = Path(path)
        if path.suffix not in _OPENERS:
            msg = f"{path} is no model file; its ending should be {', '.join(_OPENERS)}"
            raise CheckpointError(msg)
        if not path.is_file():
            msg = f"model file {path} does not exist"
            raise CheckpointError(msg)
        try:
            self.run, self.resize, trained_with = _OPENERS[path.suffix](path, device)
        except MedclipError:
            raise
        except Exception as error:
            msg = f"{path} cannot be opened: {error}; train or export it again"
            raise CheckpointError(msg) from error
        self.intensity = intensity if intensity is not None else trained_with

    def predict(self, path: str | Path) -> Prediction:
        """Score one image file.

        Raises:
            ImageReadError: It cannot be decoded.
            IntensityError: It has more than 8 bits, and there is no intensity policy.
            NotReadyError: The model was made without a post-processor.
        """
        image = read_image(path, self.intensity)
        resized = self.resize(image).as_subclass(Tensor)
        found: Any = self.run(resized[None])
        if found.pred_label is None:
            msg = "the model has no post-processor, and so no threshold; train it with one"
            raise NotReadyError(msg)
        anomaly_map = found.anomaly_map.float()
        full = F.interpolate(anomaly_map[None], size=image.shape[-2:], mode="bilinear")
        return Prediction(
            score=float(found.pred_score), label=bool(found.pred_label),
            anomaly_map=anomaly_map[0], full_map=full[0, 0],
        )  # fmt: skip


Opened = tuple[Run, MethodResize, IntensityPolicy]


def _from_checkpoint(path: Path, device: str) -> Opened:
    notes = torch.load(path, map_location="cpu", weights_only=True).get("anomalib_medclip", {})
    if "method" not in notes:
        msg = f"{path} was not made by a model of anomalib-medclip; pass one that was"
        raise CheckpointError(msg)
    method = getattr(anomalib_medclip, notes["method"])
    return _from_module(method.load_from_checkpoint(path, map_location=device), device)


def _from_torch(path: Path, device: str) -> Opened:
    return _from_module(TorchInferencer(path, device).model, device)


def _from_module(model: Any, device: str) -> Opened:  # noqa: ANN401 - any of our methods
    reading = model.pre_processor
    return torch_run(model.eval().to(device), device), reading.resize, reading.intensity


def _from_onnx(path: Path, device: str) -> Opened:
    known = _certified(path)
    return open_onnx(path, device), *known


def _from_openvino(path: Path, device: str) -> Opened:
    known = _certified(path)
    return open_openvino(path, device), *known


def _certified(path: Path) -> tuple[MethodResize, IntensityPolicy]:
    """Resize and intensity policy, from the certificate beside a model."""
    certificate = path.with_suffix(".json")
    if not certificate.is_file():
        msg = f"{certificate} is missing; export the model again, or copy it together with {path}"
        raise CheckpointError(msg)
    paper = json.loads(certificate.read_text(encoding="utf-8"))
    for name, expected in paper["files"].items():
        if sha256(path.parent / name) != expected:
            msg = f"{path.parent / name} is not the file that {certificate} certifies; export again"
            raise CheckpointError(msg)
    intensity = paper["intensity"]
    resize = MethodResize(paper["input_size"][0], paper["resample"])
    return resize, tuple(intensity) if isinstance(intensity, list) else intensity


_OPENERS = {
    ".ckpt": _from_checkpoint,
    ".onnx": _from_onnx,
    ".xml": _from_openvino,
    ".pt": _from_torch,
}
