"""A method as a file for other runtimes."""

import torch

from anomalib_medclip.export.parity import read_certificate
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
    expected = Inferencer(case.shallow_checkpoint).predict(picture)
    apart = float((found.anomaly_map - expected.anomaly_map).abs().max())
    hold(apart <= allowed, f"maps differ by {apart}")
    hold(abs(found.score - expected.score) <= allowed, "scores differ")
    hold(found.label == expected.label, "labels differ")
    hold(torch.isfinite(found.full_map).all(), "a map is not finite")
