"""A method as a file for other runtimes."""

import torch

from anomalib_medclip.export.parity import read_certificate
from anomalib_medclip.readers.picture import read_image
from anomalib_medclip.score.inferencer import Inferencer
from anomalib_medclip.testing.method_case import MethodCase
from anomalib_medclip.testing.promises.promise import hold


def exports_to_torch_what_it_is(case: MethodCase) -> None:
    """Its torch export is certified, and scores a picture as the checkpoint does."""
    _exports(case, "torch")


def exports_to_onnx_what_it_is(case: MethodCase) -> None:
    """Its ONNX export is certified, and scores a picture as the checkpoint does."""
    _exports(case, "onnx")


def exports_to_openvino_what_it_is(case: MethodCase) -> None:
    """Its OpenVINO export is certified, and scores a picture as the checkpoint does."""
    _exports(case, "openvino")


def _exports(case: MethodCase, kind: str) -> None:
    picture, file = case.lesions / "images" / "abnormal" / "1.png", case.exported(kind)
    figures = read_certificate(file)["figures"]
    allowed, worst = figures["allowed"], max(figures["map"], figures["score"])
    hold(0 < allowed <= 1e-4, f"a difference of {allowed} is allowed")
    hold(worst <= allowed and figures["labels"] == 0, f"it is certified at {worst}")
    found = Inferencer(file, trust=kind == "torch").predict(picture)
    model = case.method.load_from_checkpoint(case.shallow_checkpoint).eval()
    image = model.pre_processor.resize(read_image(picture)).as_subclass(torch.Tensor)
    with torch.inference_mode():
        expected = model(image[None])
    apart = float((found.anomaly_map - expected.anomaly_map[0]).abs().max())
    hold(apart <= allowed, f"maps differ by {apart}")
    hold(abs(found.score - float(expected.pred_score)) <= allowed, "scores differ")
    hold(found.label == bool(expected.pred_label), "labels differ")
