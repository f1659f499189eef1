"""Smaller and faster exports: which part is compressed, and what must remain of the answer."""

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from anomalib.deploy.export import CompressionType
from torch import Tensor

from anomalib_medclip.errors import ParityError
from anomalib_medclip.export.parity import Bound
from anomalib_medclip.export.runtimes import runtime

logger = logging.getLogger(__name__)

BOUNDS = {
    CompressionType.FP16: Bound(rank_correlation=0.999, score=0.01),
    CompressionType.INT8: Bound(rank_correlation=0.99, score=0.05),
    CompressionType.INT8_PTQ: Bound(rank_correlation=0.99, score=0.05),
}
"""What each compression must satisfy."""

_BLOCKS = ("model.clip.visual.transformer.resblocks", "model.clip.visual.trunk.blocks")
"""Where CLIP's blocks are in a method: open_clip's own, and timm's."""


def tidy(path: Path) -> set[str]:
    """Take paths of this machine out of an ONNX file, and name the nodes of CLIP's blocks."""
    onnx = runtime("onnx")
    model = onnx.load(path, load_external_data=False)
    tower = set()
    for node in model.graph.node:
        if any(blocks in e.value for e in node.metadata_props for blocks in _BLOCKS):
            tower.add(node.name)
        del node.metadata_props[:]  # stack traces of the export among them
    onnx.save(model, path)
    return tower


def compress(
    model: Any,  # noqa: ANN401 - an OpenVINO model
    tower_nodes: Collection[str],
    images: Sequence[Tensor] | None = None,
) -> Any:  # noqa: ANN401 - an OpenVINO model
    """Turn CLIP's blocks into integers: weights alone or, with images, activations, too.

    The blocks are nearly all of the work. The rest is small and sharpens differences: logits are
    100 times a cosine, and a distance to the memory bank is the small rest to 1.

    Args:
        model: What to compress.
        tower_nodes: Names of the blocks' operations, from ``tidy``.
        images: Batches ``(1, 3, side, side)`` in [0, 1] to calibrate activations with.

    Raises:
        ParityError: None of the blocks is found.
        RuntimeMissingError: NNCF is not installed.
    """
    nncf = runtime("nncf")
    operations = [o for o in model.get_ops() if o.get_type_name() != "Constant"]
    names = [operation.get_friendly_name() for operation in operations]
    others = [name for name in names if name.split("/")[0] not in tower_nodes]
    if len(others) == len(names):
        msg = "none of CLIP's blocks is found in the graph: there is nothing to compress"
        raise ParityError(msg)
    scope = nncf.IgnoredScope(names=others, validate=False)
    if images is None:
        return nncf.compress_weights(model, ignored_scope=scope)
    logger.info("calibrating with %d images", len(images))
    return nncf.quantize(
        model,
        nncf.Dataset(images, lambda image: image.numpy()),
        subset_size=len(images),
        model_type=nncf.ModelType.TRANSFORMER,
        ignored_scope=scope,
    )
