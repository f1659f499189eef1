"""Model files as functions: a checkpoint, or an export with the certificate beside it."""

from collections.abc import Callable, Sequence
from functools import partial
from inspect import signature
from math import isfinite
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple

import torch
from anomalib.data import InferenceBatch
from torch import Tensor

from anomalib_medclip.clip.backbone import without_clip
from anomalib_medclip.clip.blocks import Precision
from anomalib_medclip.components.familiar import cell_vectors
from anomalib_medclip.components.processors import MedicalPreProcessor
from anomalib_medclip.components.threshold import has_pixel_threshold, has_threshold
from anomalib_medclip.data.slicing import Slicing
from anomalib_medclip.data.voxel_transforms import TransformSpec, is_harmless
from anomalib_medclip.decisions.familiarity import Familiarity
from anomalib_medclip.devices import find_device
from anomalib_medclip.errors import CheckpointError, MedclipError, TrustError
from anomalib_medclip.export.parity import read_certificate
from anomalib_medclip.export.runtimes import (
    Run,
    load_trusted,
    open_onnx,
    open_openvino,
    open_program,
    torch_run,
)
from anomalib_medclip.files import A_FOLDER, MISSING, fault_of
from anomalib_medclip.option_checks import checked
from anomalib_medclip.provenance import sha256_of_tensors
from anomalib_medclip.readers.intensity import IntensityPolicy
from anomalib_medclip.readers.resize import MethodResize
from anomalib_medclip.readers.size_limit import check_pixels
from anomalib_medclip.score.method_class import method_class
from anomalib_medclip.training.checkpoints import (
    notes_of,
    read_checkpoint,
    refuse_unfinished,
    switched_off,
)
from anomalib_medclip.training.hub import as_file, files_of, read_pretrained


class OpenedModel(NamedTuple):
    """A model as a function, and what must be known to use it as it was trained.

    Attributes:
        run: The function.
        resize: What images pass before it.
        intensity: What training did with images of more than 8 bits.
        slicing: How training cut volumes into images; ``None`` where it did not.
        precision: What it computes most products in.
        has_threshold: Whether it knows a threshold; without one its labels mean nothing.
        has_pixel_threshold: Whether it knows one of pixels.
        notes: What the checkpoint or the certificate says of it.
        run_with_vectors: The same function, which gives vectors of the images, too.
        familiarity: Whether images are like those it was made with, by these vectors.
        no_unlike: Why nobody can say whether they are; else empty.
    """

    run: Run
    resize: MethodResize
    intensity: IntensityPolicy
    slicing: dict[str, Any] | None
    precision: Precision
    has_threshold: bool
    has_pixel_threshold: bool
    notes: dict[str, Any]
    run_with_vectors: Callable[[Tensor], tuple[InferenceBatch, Tensor]] | None = None
    familiarity: Familiarity | None = None
    no_unlike: str = ""


def open_model(
    path: Path,
    device: str,
    precision: Precision | None = None,
    pretrained: str | None = None,
    trust: bool = False,
) -> OpenedModel:
    """Open a checkpoint or an exported model; arguments and errors are those of ``Inferencer``."""
    if path.suffix not in _OPENERS:
        msg = f"{path} is no model file; its ending should be {', '.join(_OPENERS)}"
        raise CheckpointError(msg)
    if fault := fault_of(path):
        remedy = "" if fault in (MISSING, A_FOLDER) else f"{fault.remedy}, or "
        msg = f"model file {path} {fault.said}; {remedy}give a checkpoint or an export"
        raise CheckpointError(msg)
    if pretrained and path.suffix not in (".ckpt", _SHARED):
        msg = f"{path} holds weights of its own; leave pretrained out, or give the checkpoint"
        raise CheckpointError(msg)
    if path.suffix in (".ckpt", _SHARED, ".pt", ".pt2"):
        find_device(device)
    trusting: dict[str, Any] = {"trust": trust}
    clip = {"pretrained": pretrained}
    asked = {".ckpt": clip, _SHARED: clip, ".pt": trusting, ".pt2": trusting}
    try:
        opened: OpenedModel = _OPENERS[path.suffix](
            path, device, precision, **asked.get(path.suffix, {})
        )
        slicing_from(opened.slicing, ())
    except MedclipError as error:
        if path.name in str(error):
            raise
        msg = f"{path} cannot be opened: {error}"
        raise type(error)(msg) from error
    except Exception as error:
        reason = shorten(str(error), 300, placeholder=" ...")  # runtimes give whole traces
        msg = f"{path} cannot be opened: {reason}; train or export it again"
        raise CheckpointError(msg) from error
    check_pixels(path, opened.resize.side, opened.resize.side)
    return opened


def slicing_from(
    plain: dict[str, Any] | None, transforms: Sequence[TransformSpec] | None = None
) -> Slicing:
    """How volumes are cut, from what ``Slicing.as_plain`` made; JSON has lists for tuples.

    Args:
        plain: What a file says.
        transforms: Those that a user names, in the place of those of the file.

    Raises:
        TrustError: The file names transforms that are not of MONAI, or do more than change voxels.
        TypeError: It is of something else.
        ValueError: It is no way to cut volumes.

    Example:
        >>> slicing_from({"plane": "coronal", "spacing": [1.0, 1.0, 2.0]}).spacing
        (1.0, 1.0, 2.0)
    """
    options: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in (plain or {}).items()
    }
    if transforms is not None:
        options["transforms"] = tuple(transforms)
    for one in options.get("transforms") or ():
        if transforms is None and not is_harmless(one):
            msg = f"the model was trained with the transform {one}, which no file may have run; if "
            msg += "you trust it, name all transforms again (score --transforms)"
            raise TrustError(msg)
    return Slicing(**options)


def _from_checkpoint(
    path: Path, device: str, precision: Precision | None, pretrained: str | None
) -> OpenedModel:
    shared = path.suffix == _SHARED
    state = read_pretrained(path) if shared else read_checkpoint(path)
    noted = notes_of(path, state)
    refuse_unfinished(path, noted)
    method = method_class(path, noted)
    has_choice = "precision" in signature(method).parameters
    if precision == "bf16" and not has_choice:
        msg = f"{path} is of {noted.method}, which computes in fp32 only; leave precision out"
        raise CheckpointError(msg)
    chosen: dict[str, Any] = {"precision": precision} if precision and has_choice else {}
    chosen |= {"pretrained": pretrained} if pretrained else {}
    chosen |= switched_off(state)
    # Which was read above, and says nothing of code to run.
    with as_file(state) if shared else path.open("rb") as file:
        model = method.load_from_checkpoint(file, map_location=device, **chosen)
    weights = sha256_of_tensors(without_clip(model.state_dict()))
    notes = vars(noted) | {"backbone_fingerprint": noted.fingerprint, "weights_sha256": weights}
    notes |= {"files": files_of(path)} if shared else {}
    return _from_module(model, device, notes)


def _from_torch(path: Path, device: str, precision: Precision | None, trust: bool) -> OpenedModel:
    paper = read_certificate(path) if path.with_suffix(".json").is_file() else {}
    opened = _from_module(load_trusted(path, device, trust=trust), device, paper)
    _check_precision(path, precision, opened.precision)
    return opened


def _from_module(model: Any, device: str, notes: dict[str, Any]) -> OpenedModel:  # noqa: ANN401
    reading = model.pre_processor
    if not isinstance(reading, MedicalPreProcessor):
        msg = f"the model has the pre_processor {type(reading).__name__}, and images can be read "
        msg += "here for MedicalPreProcessor only; use 'anomalib predict'"
        raise CheckpointError(msg)
    run = torch_run(model.eval().to(device), device)
    # A .pt file may hold any model of anomalib: most have no CLIP, WinCLIP has open_clip's own.
    precision: Precision = getattr(getattr(model.model, "clip", None), "precision", "fp32")
    known = has_threshold(model.post_processor), has_pixel_threshold(model.post_processor)
    if decisions := getattr(model, "decisions", None):
        notes = {**notes, "decisions": decisions.as_plain()}
    opened = OpenedModel(
        run, reading.resize, reading.intensity, reading.slicing, precision, *known, notes
    )
    if getattr(model, "training_facts", {}).get("setting") == "zero-shot":
        return opened._replace(no_unlike="a zero-shot model is meant for images unlike its own")
    familiar = getattr(model, "familiar", None)
    if familiar is None or not len(familiar.vectors):
        return opened._replace(no_unlike="made by a version, model or training that keeps none")
    familiarity = familiar.familiarity()
    if not isfinite(familiarity.limit):
        return opened._replace(no_unlike=familiarity.words)
    both = partial(_run_with_vectors, model, device)
    return opened._replace(run_with_vectors=both, familiarity=familiarity)


@torch.inference_mode()
def _run_with_vectors(model: Any, device: str, images: Tensor) -> tuple[InferenceBatch, Tensor]:  # noqa: ANN401
    """What a method says of images, and what its frozen tower says, which is run once for both."""
    clip_model = model.model
    encoded = clip_model.encode(model.pre_processor(images.to(device)))
    found = clip_model.score(encoded, clip_model.known_text())
    found = model.post_processor(found) if model.post_processor else found
    vectors = cell_vectors(clip_model.middle_patches(encoded))
    outputs = {name: one.cpu() for name, one in found._asdict().items() if one is not None}
    return InferenceBatch(**outputs), vectors.cpu()


def _from_program(path: Path, device: str, precision: Precision | None, trust: bool) -> OpenedModel:
    _check_precision(path, precision, "fp32")
    return _certified(path, partial(open_program, trust=trust), device, "fp32")


def _from_onnx(path: Path, device: str, precision: Precision | None) -> OpenedModel:
    _check_precision(path, precision, "fp32")
    return _certified(path, open_onnx, device, "fp32")


def _from_openvino(path: Path, device: str, precision: Precision | None) -> OpenedModel:
    computed = precision or "fp32"
    return _certified(path, partial(open_openvino, precision=computed), device, computed)


def _check_precision(path: Path, asked: Precision | None, own: Precision) -> None:
    if asked not in (None, own):
        msg = f"{path} has the precision that it was exported with, {own}; leave precision out, "
        msg += "or give the checkpoint or an OpenVINO model (.xml) without integers"
        raise CheckpointError(msg)


def _certified(
    path: Path, open_file: Callable[[Path, str], Run], device: str, precision: Precision
) -> OpenedModel:
    """A model whose resize, intensity policy and slicing stand in the certificate beside it."""
    paper = read_certificate(path)
    if str(paper.get("compression")).startswith("int8"):
        _check_precision(path, precision, "fp32")  # integers in blocks, fp32 around them
    intensity = paper["intensity"]
    return OpenedModel(
        _named(path, open_file(path, device)),
        MethodResize(
            checked("input_size", paper["input_size"][0], 1, whole=True), paper["resample"]
        ),
        tuple(intensity) if isinstance(intensity, list) else intensity,
        paper.get("slicing"),
        precision,
        paper["raw_image_threshold"] is not None,
        paper["raw_pixel_threshold"] is not None,
        paper,
        no_unlike=_NO_TOKENS,
    )


_SHARED = ".safetensors"
"""Ending of a model that ``save_pretrained`` has written."""

_NO_TOKENS = "an export of this kind gives no features to compare: score with the checkpoint"


def _named(path: Path, run: Run) -> Run:
    """The same function, whose errors name the file: its certificate may be of another size."""

    def named(images: Tensor) -> InferenceBatch:
        try:
            return run(images)
        except Exception as error:
            msg = f"{path} cannot be run on images {tuple(images.shape)}: {error}; export it again"
            raise CheckpointError(msg) from error

    return named


_OPENERS: dict[str, Callable[..., OpenedModel]] = {
    ".ckpt": _from_checkpoint,
    _SHARED: _from_checkpoint,
    ".onnx": _from_onnx,
    ".xml": _from_openvino,
    ".pt": _from_torch,
    ".pt2": _from_program,
}
