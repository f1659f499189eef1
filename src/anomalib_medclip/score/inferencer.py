"""Scores one image after another, with a trained checkpoint or an exported model."""

from collections.abc import Callable
from functools import partial
from inspect import signature
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from anomalib_medclip import baselines
from anomalib_medclip.clip.backbone import without_clip
from anomalib_medclip.clip.blocks import Precision
from anomalib_medclip.components.finite import refuse_non_finite
from anomalib_medclip.errors import CheckpointError, MedclipError, NotReadyError, UnknownNameError
from anomalib_medclip.export.parity import read_certificate
from anomalib_medclip.export.runtimes import (
    Run,
    load_trusted,
    open_onnx,
    open_openvino,
    torch_run,
)
from anomalib_medclip.models import get_model
from anomalib_medclip.provenance import sha256_of_tensors
from anomalib_medclip.readers.intensity import IntensityPolicy
from anomalib_medclip.readers.picture import read_image
from anomalib_medclip.readers.resize import MethodResize
from anomalib_medclip.training.checkpoints import read_checkpoint


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


class Answers(NamedTuple):
    """What a model says of a batch of images at its own size.

    Attributes:
        scores: How abnormal, in [0, 1]; 0.5 is the threshold.
        labels: Whether they count as abnormal.
        maps: How abnormal each pixel is, in [0, 1], at the model's size.
    """

    scores: Float[Tensor, "batch"]
    labels: Bool[Tensor, "batch"]
    maps: Float[Tensor, "batch side side"]


class Scored(NamedTuple):
    """What a model says of a batch of images.

    Attributes:
        scores: How abnormal, in [0, 1]; 0.5 is the threshold.
        labels: Whether they count as abnormal.
        maps: How abnormal each pixel is, in [0, 1], at the model's size.
        full_maps: The same at the images' own size.
    """

    scores: Float[Tensor, "batch"]
    labels: Bool[Tensor, "batch"]
    maps: Float[Tensor, "batch side side"]
    full_maps: Float[Tensor, "batch height width"]


class Inferencer:
    """Reads images as training did, and scores them.

    Reading and resizing happen outside the exported graph, because runtimes resize differently;
    everything that must be known for that is in the checkpoint, or in the certificate beside the
    exported model.

    Args:
        path: A checkpoint (``.ckpt``), or an exported model (``.onnx``, ``.xml`` or ``.pt``).
        device: ``"cpu"``, ``"cuda"``, or OpenVINO's name of a device.
        intensity: What to do with images of more than 8 bits; by default as in training.
        precision: What most products are computed in, ``"fp32"`` or ``"bf16"``; by default that of
            the checkpoint or ``.pt`` file, and fp32 for other exported models. Of exported models,
            only OpenVINO's have a choice.
        pretrained: open_clip tag or weights file of a checkpoint's backbone, where it is not what
            the checkpoint names; other weights than those of the training run are refused.
        trust: Whether a ``.pt`` file may run the code in it; ``TRUST_REMOTE_CODE=1`` says so, too.

    Attributes:
        intensity: The policy that images are read with.
        shares_batches: Whether a result is the same to the bit wherever its image stands in a
            batch: so it is in torch and OpenVINO on a processor. In ONNX Runtime it need not be;
            on other devices and with compressed models it was not measured.
        slicing: How training cut volumes into images, as ``Slicing.as_plain`` has it; ``None``
            where it did not.
        precision: What it computes most products in.
        origin: What the file says of itself: ``method``, ``object_name``, ``backbone``,
            ``backbone_fingerprint``, ``weights_sha256`` and ``threshold_from``, ``None`` where it
            does not say.

    Raises:
        CheckpointError: No such file, no certificate beside it, or it is of another kind, or its
            precision is another one and cannot be chosen.
        BackboneMismatchError: The weights are not those of the training run.
        TrustError: It is a ``.pt`` file that is not trusted.
        RuntimeMissingError: The runtime for the file is not installed.
    """

    def __init__(
        self,
        path: str | Path,
        device: str = "cpu",
        intensity: IntensityPolicy = None,
        precision: Precision | None = None,
        pretrained: str | None = None,
        trust: bool = False,
    ) -> None:
        path = Path(path)
        if path.suffix not in _OPENERS:
            msg = f"{path} is no model file; its ending should be {', '.join(_OPENERS)}"
            raise CheckpointError(msg)
        if not path.is_file():
            msg = f"model file {path} does not exist"
            raise CheckpointError(msg)
        if pretrained and path.suffix != ".ckpt":
            msg = f"{path} holds weights of its own; leave pretrained out, or give the checkpoint"
            raise CheckpointError(msg)
        asked: dict[str, Any] = {".ckpt": {"pretrained": pretrained}, ".pt": {"trust": trust}}
        try:
            opened = _OPENERS[path.suffix](path, device, precision, **asked.get(path.suffix, {}))
        except MedclipError:
            raise
        except Exception as error:
            msg = f"{path} cannot be opened: {error}; train or export it again"
            raise CheckpointError(msg) from error
        self.run, self.resize, trained_with, self.slicing, self.precision, notes = opened
        self.shares_batches = (
            path.suffix != ".onnx" and device.lower() == "cpu" and not notes.get("compression")
        )
        in_torch = path.suffix not in (".onnx", ".xml")
        self._gpu = device if in_torch and device.startswith("cuda") else None
        self.intensity = intensity if intensity is not None else trained_with
        self.origin = {name: notes.get(name) or None for name in _ORIGIN}

    def predict(self, path: str | Path) -> Prediction:
        """Score one image file.

        Raises:
            ImageReadError: It cannot be decoded.
            IntensityError: It has more than 8 bits, and there is no intensity policy.
            NotReadyError: The model was made without a post-processor.
            NonFiniteError: Its score or map is NaN or infinite.
        """
        found = self.score(read_image(path, self.intensity)[None])
        return Prediction(
            score=float(found.scores[0]), label=bool(found.labels[0]),
            anomaly_map=found.maps[0], full_map=found.full_maps[0],
        )  # fmt: skip

    def score(self, images: Float[Tensor, "batch 3 height width"]) -> Scored:
        """Score images in [0, 1], at any size, as one batch.

        Raises:
            NotReadyError: The model was made without a post-processor.
            NonFiniteError: A score or map is NaN or infinite.
        """
        found = self.answer(self.resize(images).as_subclass(Tensor))
        full = [full_map(one, images.shape[-2:]) for one in found.maps]
        return Scored(*found, torch.stack(full))

    def send(self, images: Tensor) -> Tensor:
        """Images on their way to where ``answer`` computes, in any shape.

        To a GPU they are copied from pinned memory while it computes something else; other runtimes
        take them where they are.
        """
        if self._gpu is None:
            return images
        return images.pin_memory().to(self._gpu, non_blocking=True)

    def answer(self, images: Float[Tensor, "batch 3 side side"]) -> Answers:
        """Score images in [0, 1] that ``resize`` has made, as one batch.

        Raises:
            NotReadyError: The model was made without a post-processor.
            NonFiniteError: A score or map is NaN or infinite.
        """
        found: Any = self.run(images)
        if found.pred_label is None:
            msg = "the model has no post-processor, and so no threshold; train it with one"
            raise NotReadyError(msg)
        maps = found.anomaly_map.float().reshape(len(images), *found.anomaly_map.shape[-2:])
        scores = found.pred_score.float().reshape(-1)
        refuse_non_finite(scores, maps)
        return Answers(scores, found.pred_label.bool().reshape(-1), maps)


def full_map(
    one: Float[Tensor, "side side"], size: tuple[int, ...]
) -> Float[Tensor, "height width"]:
    """A map at the size of its image; one at a time, so that others cannot change its digits."""
    return F.interpolate(one[None, None], size=size, mode="bilinear")[0, 0]


class _Opened(NamedTuple):
    """A model as a function, and what must be known to use it as it was trained."""

    run: Run
    resize: MethodResize
    intensity: IntensityPolicy
    slicing: dict[str, Any] | None
    precision: Precision
    notes: dict[str, Any]


_ORIGIN = (
    "method",
    "object_name",
    "backbone",
    "backbone_fingerprint",
    "weights_sha256",
    "threshold_from",
)


def _from_checkpoint(
    path: Path, device: str, precision: Precision | None, pretrained: str | None
) -> _Opened:
    notes = read_checkpoint(path).get("anomalib_medclip", {})
    if "method" not in notes:
        msg = f"{path} was not made by a model of anomalib-medclip; pass one that was"
        raise CheckpointError(msg)
    method = _method_class(path, notes)
    notes = {**notes, "backbone_fingerprint": notes["fingerprint"]}
    has_choice = "precision" in signature(method).parameters
    if precision == "bf16" and not has_choice:
        msg = f"{path} is of {notes['method']}, which computes in fp32 only; leave precision out"
        raise CheckpointError(msg)
    chosen: dict[str, Any] = {"precision": precision} if precision and has_choice else {}
    chosen |= {"pretrained": pretrained} if pretrained else {}
    model = method.load_from_checkpoint(path, map_location=device, **chosen)
    notes["weights_sha256"] = sha256_of_tensors(without_clip(model.state_dict()))
    return _from_module(model, device, notes)


def _method_class(path: Path, notes: dict[str, Any]) -> Any:  # noqa: ANN401 - any method or baseline
    name: str = notes["method"]
    if name in baselines.__all__:
        return resolve_name(f"{baselines.__name__}:{name}")
    try:
        return get_model(name)
    except UnknownNameError as error:
        named = f"the one with the module {notes['package']}" if "package" in notes else "that one"
        msg = f"{path} is of the method {name}, which is of another package; install {named}"
        raise CheckpointError(msg) from error


def _from_torch(path: Path, device: str, precision: Precision | None, trust: bool) -> _Opened:
    paper = read_certificate(path) if path.with_suffix(".json").is_file() else {}
    opened = _from_module(load_trusted(path, device, trust=trust), device, paper)
    _check_precision(path, precision, opened.precision)
    return opened


def _from_module(model: Any, device: str, notes: dict[str, Any]) -> _Opened:  # noqa: ANN401
    reading = model.pre_processor
    run = torch_run(model.eval().to(device), device)
    precision: Precision = getattr(getattr(model.model, "clip", None), "precision", "fp32")
    return _Opened(run, reading.resize, reading.intensity, reading.slicing, precision, notes)


def _from_onnx(path: Path, device: str, precision: Precision | None) -> _Opened:
    _check_precision(path, precision, "fp32")
    return _certified(path, open_onnx, device, "fp32")


def _from_openvino(path: Path, device: str, precision: Precision | None) -> _Opened:
    computed = precision or "fp32"
    return _certified(path, partial(open_openvino, precision=computed), device, computed)


def _check_precision(path: Path, asked: Precision | None, own: Precision) -> None:
    if asked not in (None, own):
        msg = f"{path} has the precision that it was exported with, {own}; leave precision out, "
        msg += "or give the checkpoint or an OpenVINO model (.xml) without integers"
        raise CheckpointError(msg)


def _certified(
    path: Path, open_file: Callable[[Path, str], Run], device: str, precision: Precision
) -> _Opened:
    """A model whose resize, intensity policy and slicing stand in the certificate beside it."""
    paper = read_certificate(path)
    if str(paper.get("compression")).startswith("int8"):
        _check_precision(path, precision, "fp32")  # integers in blocks, fp32 around them
    intensity = paper["intensity"]
    return _Opened(
        open_file(path, device),
        MethodResize(paper["input_size"][0], paper["resample"]),
        tuple(intensity) if isinstance(intensity, list) else intensity,
        paper.get("slicing"),
        precision,
        paper,
    )


_OPENERS: dict[str, Callable[..., _Opened]] = {
    ".ckpt": _from_checkpoint,
    ".onnx": _from_onnx,
    ".xml": _from_openvino,
    ".pt": _from_torch,
}
