"""What is exported, and what a reader of the file must know to use it as it was trained."""

from typing import Any, TypeAlias

from anomalib_medclip.clip.backbone import without_clip
from anomalib_medclip.components.threshold import has_threshold
from anomalib_medclip.export.parity import number
from anomalib_medclip.provenance import NOTICE, sha256_of_tensors, versions

Exportable: TypeAlias = Any
"""A ``training.method.ClipMethod``, whose room lies above this one."""


def fixed_size(method: Exportable, input_size: tuple[int, int] | None) -> tuple[int, int]:
    """The model's own input size: a tower has one grid, and the resize stays outside.

    Raises:
        ValueError: Another one is asked for.
    """
    side, _ = method.model.clip.size
    if input_size is not None and tuple(input_size) != (side, side):
        msg = f"this model takes images of {side} x {side} pixels only; leave input_size out"
        raise ValueError(msg)
    return side, side


def describe(method: Exportable, checkpoint: dict[str, str] | None) -> dict[str, Any]:
    """What stands in a certificate besides the figures.

    Args:
        method: The model.
        checkpoint: Name and SHA-256 of the file it was restored from.
    """
    backbone, post = method.model.clip.backbone, method.post_processor
    known = has_threshold(post)
    return {
        "model": type(method).__name__,
        "object_name": method.object_name,
        "input_size": list(method.model.clip.size),
        "resize": "antialiased to the square, by Pillow on whole 255ths",
        "resample": method.pre_processor.resize.resample,
        "intensity": method.pre_processor.intensity,
        "slicing": method.pre_processor.slicing,
        "normalisation": "CLIP's mean and deviation" if backbone.normalize else "none",
        "image_threshold": number(post.normalized_image_threshold) if known else None,
        "pixel_threshold": number(post.normalized_pixel_threshold) if known else None,
        "raw_image_threshold": number(post.image_threshold) if known else None,
        "raw_pixel_threshold": number(post.pixel_threshold) if known else None,
        "threshold_from": method.threshold_from,
        "backbone": str(backbone),
        "backbone_fingerprint": method.model.clip.fingerprint,
        "checkpoint": checkpoint,
        "weights_sha256": sha256_of_tensors(without_clip(method.state_dict())),
        "versions": versions(),
        "notice": NOTICE,
    }
