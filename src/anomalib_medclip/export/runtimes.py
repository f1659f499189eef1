"""Exported model files as plain functions: a batch of images in, anomalib's outputs out."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias
from zipfile import is_zipfile

import torch
from anomalib.data import InferenceBatch
from torch import Tensor
from torch.export.passes import move_to_device_pass

from anomalib_medclip.clip.blocks import Precision
from anomalib_medclip.errors import (
    CheckpointError,
    ConfigError,
    RuntimeMissingError,
    TrustError,
)
from anomalib_medclip.export.openvino_precision import read_in_bf16

Run: TypeAlias = Callable[[Tensor], InferenceBatch]
"""From images ``(batch, 3, side, side)`` in [0, 1] to scores, labels, maps and masks."""


def open_torch(path: Path, device: str = "cpu") -> Run:
    """Open a ``.pt`` file of anomalib's torch export that this process has written."""
    return torch_run(load_trusted(path, device, trust=True).eval(), device)


def load_trusted(path: Path, device: str = "cpu", *, trust: bool = False) -> Any:  # noqa: ANN401
    """The model in a ``.pt`` file of anomalib's torch export, an ``AnomalibModule``.

    Such a file is a pickle of Python objects, which runs any code when it is opened.

    Args:
        path: The file.
        device: Where its tensors go.
        trust: Whether that may be; the variable ``TRUST_REMOTE_CODE`` says it for all files, as
            anomalib has it.

    Raises:
        TrustError: Nobody says that it may be.
        CheckpointError: It names code of another version, or of a package that is not installed; or
            it is no exported model.
    """
    _check_trust(path, "is a pickle of a whole model", trust)
    no_model = f"{path} is damaged, or no exported model; export the checkpoint again"
    if not is_zipfile(path):
        raise CheckpointError(no_model)
    try:
        return torch.load(path, map_location=device, weights_only=False)["model"]
    except (ImportError, AttributeError) as error:
        msg = (
            f"{path} was exported by a version whose code lay elsewhere ({error}); export the "
            "checkpoint again: anomalib export --export_type torch --ckpt_path model.ckpt --model "
            "anomalib_medclip.<METHOD>"
        )
        raise CheckpointError(msg) from error
    except (KeyError, TypeError) as error:
        raise CheckpointError(no_model) from error


def open_program(path: Path, device: str = "cpu", *, trust: bool = False) -> Run:
    """Open a ``.pt2`` file of torch.export, which may hold pickles.

    Args:
        path: The file.
        device: Where it computes.
        trust: As of ``load_trusted``.

    Raises:
        TrustError: Nobody says that it may be opened.
    """
    _check_trust(path, "may hold pickles", trust)
    program = torch.export.load(path)
    if device != "cpu":
        program = move_to_device_pass(program, device)
    model = program.module()

    def run(images: Tensor) -> InferenceBatch:
        with torch.inference_mode():
            outputs = model(images.to(device))
        return InferenceBatch(**{name: value.cpu() for name, value in outputs.items()})

    return run


def _check_trust(path: Path, what: str, trust: bool) -> None:
    if not trust and os.environ.get("TRUST_REMOTE_CODE", "0").lower() not in ("1", "true"):
        msg = (
            f"{path} {what}: opening it runs whatever code was put into it. "
            "If you trust who made it, pass trust=True (score --trust), or set "
            "TRUST_REMOTE_CODE=1; a checkpoint (.ckpt), ONNX or OpenVINO file needs no trust"
        )
        raise TrustError(msg)


def torch_run(model: torch.nn.Module, device: str | torch.device = "cpu") -> Run:
    """A model in memory as a function."""

    def run(images: Tensor) -> InferenceBatch:
        with torch.inference_mode():
            outputs = model(images.to(device))._asdict()
        return InferenceBatch(**{n: v.cpu() for n, v in outputs.items() if v is not None})

    return run


def open_onnx(path: Path, device: str = "cpu") -> Run:
    """Open an ONNX file with ONNX Runtime.

    Args:
        path: The ``.onnx`` file; its weights lie beside it.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.

    Raises:
        ConfigError: The device is none of these, or there is no such GPU.
        RuntimeMissingError: ONNX Runtime is not installed, or not for GPUs.
    """
    onnxruntime = runtime("onnxruntime")
    kind, _, number = device.partition(":")
    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}.get(kind)
    if provider is None or (number and not number.isdecimal()):
        msg = f"ONNX Runtime takes no device {device!r}; give cpu, cuda or cuda:1"
        raise ConfigError(msg)
    if provider not in onnxruntime.get_available_providers():
        msg = f"this ONNX Runtime has no {provider}; pip install onnxruntime-gpu, or give cpu"
        raise RuntimeMissingError(msg)
    options = {"device_id": int(number)} if number else {}
    session = onnxruntime.InferenceSession(path, providers=[(provider, options)])
    if provider not in session.get_providers():  # it would compute on the processor instead
        msg = f"ONNX Runtime cannot use {device}; give a GPU that there is, or cpu"
        raise ConfigError(msg)
    names = [output.name for output in session.get_outputs()]

    def run(images: Tensor) -> InferenceBatch:
        return _batch(names, session.run(names, {session.get_inputs()[0].name: images.numpy()}))

    return run


def open_openvino(path: Path, device: str = "cpu", precision: Precision | None = "fp32") -> Run:
    """Open an OpenVINO file.

    Args:
        path: The ``.xml`` file; its weights lie beside it.
        device: OpenVINO's name of a device, such as ``"cpu"`` or ``"gpu"``.
        precision: ``"fp32"``, ``"bf16"`` for CLIP's blocks alone, or ``None`` to let OpenVINO
            choose: it computes in bf16 or fp16 where the processor is fast at that.

    Raises:
        CheckpointError: In bf16, the file does not say what must stay in float32.
        ConfigError: OpenVINO has no such device here.
        RuntimeMissingError: OpenVINO is not installed.
    """
    openvino = runtime("openvino")
    kind, there = device.upper().partition(":")[0], openvino.Core().available_devices
    if kind not in {"AUTO", "HETERO", "MULTI", *there, *(one.partition(".")[0] for one in there)}:
        msg = f"OpenVINO has no device {device!r} here; give one of {', '.join(there).lower()}"
        raise ConfigError(msg)
    model = read_in_bf16(path) if precision == "bf16" else path
    config = {"INFERENCE_PRECISION_HINT": "f32"} if precision else {}
    compiled = openvino.compile_model(model, device.upper(), config)
    names = [output.get_any_name() for output in compiled.outputs]

    def run(images: Tensor) -> InferenceBatch:
        found = compiled(images.numpy())
        return _batch(names, [found[output] for output in compiled.outputs])

    return run


def _batch(names: list[str], values: list[Any]) -> InferenceBatch:
    return InferenceBatch(
        **{n: torch.from_numpy(v.copy()) for n, v in zip(names, values, strict=True)}
    )


def runtime(name: str) -> Any:  # noqa: ANN401 - a module
    """A package that only those need who export.

    Raises:
        RuntimeMissingError: It is not installed.
    """
    try:
        return __import__(name)
    except ImportError as error:
        msg = f"{name} is not installed; run: pip install 'anomalib-medclip[export]'"
        raise RuntimeMissingError(msg) from error
