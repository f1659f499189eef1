"""OpenVINO files in bf16: which of their operations are computed in it, and which stay in float32.

In CLIP's blocks bf16 costs little. But a cosine in bf16 has two digits, and maps are differences of
cosines; and the stream that the blocks add to would lose a little at each of them.
"""

from collections.abc import Collection
from importlib import import_module
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from anomalib_medclip.errors import CheckpointError

_NO_WORK = ("Const", "Parameter", "Result")
"""Layers that compute nothing."""


def mark_exact(path: Path, tower_nodes: Collection[str]) -> None:
    """Mark all but the inside of CLIP's blocks in an OpenVINO file to stay in float32.

    The marks are OpenVINO's own. Where it computes in bf16 or fp16 by default, it heeds most of
    them, but forgets those of operations that it rewrites, as it does each difference.
    ``read_in_bf16`` forgets none.

    Args:
        path: The ``.xml`` file.
        tower_nodes: Names of the operations of CLIP's blocks; their norms have other names.
    """
    document = ElementTree.parse(path)
    for layer in document.iter("layer"):
        inside = layer.get("name", "").split("/")[0] in tower_nodes
        if _adds_to_stream(layer) if inside else layer.get("type") not in _NO_WORK:
            notes = layer.find("rt_info")
            if notes is None:
                notes = ElementTree.Element("rt_info")
                layer.insert(int(layer.find("data") is not None), notes)
            ElementTree.SubElement(notes, "attribute", name="precise", version="0")
    document.write(path, encoding="utf-8", xml_declaration=True)


def _adds_to_stream(layer: ElementTree.Element) -> bool:
    """Whether it is a sum of two things of one shape, as a residual is, and not of a bias."""
    shapes = [[size.text for size in port] for port in layer.iterfind("input/port")]
    return layer.get("type") == "Add" and shapes[0] == shapes[-1]


def read_in_bf16(path: Path) -> Any:  # noqa: ANN401 - an OpenVINO model
    """An OpenVINO model that computes in bf16 what is not marked, and all else in float32.

    Numbers are converted at each border, so it is to be compiled with the hint for float32. What
    OpenVINO knows no bf16 for, it computes in float32.

    Raises:
        CheckpointError: Nothing is marked in the file.
    """
    openvino = import_module("openvino")

    document = ElementTree.parse(path)
    marked = "rt_info/attribute[@name='precise']"
    exact = {x.get("name") for x in document.iter("layer") if x.find(marked) is not None}
    if not exact:
        msg = f"{path} does not say what must stay in float32; export again, or leave precision out"
        raise CheckpointError(msg)
    model = openvino.Core().read_model(path)
    numbers = {openvino.Type.f32, openvino.Type.bf16}
    for operation in model.get_ordered_ops():
        if operation.get_type_name() in ("Constant", "Parameter"):
            continue
        name = operation.get_friendly_name()
        last = operation.get_type_name() == "Result"
        wanted = openvino.Type.f32 if last or name in exact else openvino.Type.bf16
        for port in operation.inputs():
            source = port.get_source_output()
            if source.get_element_type() in numbers - {wanted}:
                port.replace_source_output(openvino.opset13.convert(source, wanted).output(0))
        operation.validate_and_infer_types()
    return model
