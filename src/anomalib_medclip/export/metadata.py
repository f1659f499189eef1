"""The description of an exported model, written into its file."""

from pathlib import Path
from xml.etree import ElementTree

from anomalib_medclip.export.description import Description
from anomalib_medclip.export.runtimes import runtime

ONE_FILE = 2_000_000_000
"""Bytes of an ONNX model up to which its weights are in the file itself; protobuf holds 2 GiB."""


def into_onnx(path: Path, description: Description) -> None:
    """Write a description into an ONNX file, under its keys and those of the Model API.

    The weights, which torch writes beside the file, go into it, too, unless they are too large.
    """
    onnx = runtime("onnx")
    model = onnx.load(path, load_external_data=False)
    of_model_api = {f"model_info {name}": v for name, v in description.model_info().items()}
    onnx.helper.set_model_props(model, description.texts() | of_model_api)
    weights = path.with_name(f"{path.name}.data")
    if weights.is_file() and weights.stat().st_size + path.stat().st_size <= ONE_FILE:
        onnx.load_external_data_for_model(model, str(path.parent))
        weights.unlink()
    onnx.save(model, path)


def into_openvino(path: Path, description: Description) -> None:
    """Write a description into the ``rt_info`` of an OpenVINO file.

    Args:
        path: The ``.xml`` file.
        description: It comes under ``anomalib_medclip``, what the Model API reads under
            ``model_info``.
    """
    document = ElementTree.parse(path)
    notes = document.getroot().find("rt_info")
    if notes is None:
        notes = ElementTree.SubElement(document.getroot(), "rt_info")
    parts = {"anomalib_medclip": description.texts(), "model_info": description.model_info()}
    for part, texts in parts.items():
        section = ElementTree.SubElement(notes, part)
        for name, text in texts.items():
            ElementTree.SubElement(section, name, value=text)
    document.write(path, encoding="utf-8", xml_declaration=True)
