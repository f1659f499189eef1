"""Exports: what passes is the same model, what is not the same leaves no file.

They are of the checkpoint that the contract of MVFA exports, and made by the same worker, so that
its graph is traced once.
"""

import json
import shlex
import socket
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import openvino
import pytest
import torch
from anomalib.deploy.export import CompressionType
from command import SMALL, anomalib
from open_clip.transformer import QuickGELU
from tiny import BACKBONE, CASES, OPTIONS, SHALLOW, lesion_data
from torch import nn

import anomalib_medclip
from anomalib_medclip import Inferencer
from anomalib_medclip.components.processors import MedicalPreProcessor
from anomalib_medclip.errors import CheckpointError, NotReadyError, ParityError
from anomalib_medclip.export.openvino_precision import read_in_bf16
from anomalib_medclip.models.mvfa import MVFA

pytestmark = pytest.mark.xdist_group("MVFA")
[CASE] = [case for case in CASES if case.name == "MVFA"]
LEAST = {
    **OPTIONS,
    "backbone": {**BACKBONE, "vision_cfg": {**BACKBONE["vision_cfg"], "layers": 1}},
    "levels": [1],
}
"""One block: its graph is traced for one test."""


@pytest.fixture(scope="module")
def finished():
    return CASE.shallow_checkpoint


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """The same trained until its scores lie far apart, so that they bear other precisions."""
    engine = CASE.engine(tmp_path_factory.mktemp("learnt"), max_epochs=12)
    engine.fit(CASE.shallow(), datamodule=CASE.data())
    return engine.trainer.checkpoint_callback.best_model_path


@pytest.fixture
def model(finished):
    return MVFA.load_from_checkpoint(finished)


def paper(path):
    return json.loads(path.with_suffix(".json").read_text())


def test_a_checkpoint_is_exported_without_its_images_and_without_network(
    finished, tmp_path, monkeypatch
):
    def no_network(*_args):
        msg = "unreachable"
        raise OSError(msg)

    monkeypatch.setattr(socket.socket, "connect", no_network)
    with moved_away(CASE.lesions):
        path = MVFA.load_from_checkpoint(finished).to_onnx(tmp_path)
    assert path == tmp_path / "weights" / "onnx" / "model.onnx"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["weights"], "nothing is left aside"
    assert sum(f.stat().st_size for f in path.parent.iterdir()) < 2e6, "no text tower in it"
    assert str(Path(anomalib_medclip.__file__).parent).encode() not in path.read_bytes()


@contextmanager
def moved_away(folder):
    """A folder is not where it was, for a while."""
    elsewhere = folder.rename(folder.with_name("elsewhere"))
    try:
        yield
    finally:
        elsewhere.rename(folder)


def test_the_certificate_says_what_a_user_must_know(model, finished, tmp_path):
    said = paper(model.to_torch(tmp_path))
    assert said["figures"]["map"] == said["figures"]["score"] == said["figures"]["labels"] == 0
    assert said["images"] >= 8
    assert (said["input_size"], said["object_name"]) == ([32, 32], "phantom")
    assert said["threshold_from"] == "validation"
    assert said["image_threshold"] == 0.5, "that of the scores as they come out"
    raw = float(model.post_processor.image_threshold)
    assert said["raw_image_threshold"] == pytest.approx(raw)
    assert len(said["weights_sha256"]) == 64
    assert said["checkpoint"]["file"] == "model.ckpt"
    assert len(said["checkpoint"]["sha256"]) == len(said["files"]["model.pt"]) == 64
    assert said["backbone_fingerprint"] == model.model.clip.fingerprint
    assert said["versions"]["anomalib"].startswith("2.")
    assert said["notice"] == "research use only"
    assert {"resize", "intensity", "normalisation", "pixel_threshold"} <= set(said)


def another_activation(model):
    for block in model.model.clip.visual.transformer.resblocks:
        block.mlp.gelu = QuickGELU()


def another_resize(model):
    model.pre_processor = Blurred(32)


class Blurred(MedicalPreProcessor):
    def forward(self, batch):
        smaller = nn.functional.interpolate(batch, size=(24, 24), mode="bilinear")
        return nn.functional.interpolate(smaller, size=(32, 32), mode="bilinear")


def another_bank_row(model):
    """One row is turned round, the nearest of a token that it is the nearest of."""
    torch_model = model.model
    stream = torch_model.encode(model.exporter.probes[:1].float() / 255)
    queries = torch_model.adapted_tokens(stream).segment[0][0, 1:]
    rows = torch_model.memory_bank.rows
    nearest = (nn.functional.normalize(queries, dim=-1) @ rows[0].float().T).argmax(dim=-1)[0]
    torch_model.memory_bank.rows = rows.clone()
    torch_model.memory_bank.rows[0, nearest] *= -1


@pytest.mark.parametrize("plant", [another_activation, another_resize, another_bank_row])
def test_a_planted_error_fails_the_export_and_leaves_no_file(
    plant, model, finished, tmp_path, monkeypatch
):
    """What reaches the exporter is not what was trained."""
    save = torch.save

    def save_another(obj, f):
        other = MVFA.load_from_checkpoint(finished).eval()
        with torch.no_grad():
            plant(other)
        save({"model": other}, f)

    monkeypatch.setattr(torch, "save", save_another)
    with pytest.raises(ParityError, match="differs from the trained one"):
        model.to_torch(tmp_path)
    assert not list(tmp_path.rglob("*"))


def test_a_compression_without_a_bound_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match="no bound to be certified by; take fp16, int8, int8_ptq"):
        model.to_openvino(tmp_path, compression_type=CompressionType.INT8_ACQ)


def test_another_input_size_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match="takes images of 32 x 32 pixels only"):
        model.to_onnx(tmp_path, input_size=(64, 64))


def test_a_model_that_has_seen_no_images_cannot_be_certified(tmp_path):
    with pytest.raises(NotReadyError, match="no images to certify an export with"):
        MVFA(**SHALLOW).to_torch(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_torch_export_holds_no_picture_and_no_path_of_the_support(lesions, finished, tmp_path):
    engine = CASE.engine(tmp_path, max_epochs=1)
    trained = MVFA(**SHALLOW)
    engine.fit(trained, datamodule=lesion_data(lesions))
    for model in (trained, MVFA.load_from_checkpoint(finished)):
        path = model.to_torch(tmp_path)
        written = torch.load(path, weights_only=False)["model"]
        assert len(written.exporter.probes) == 0
        assert len(model.exporter.probes) == 8
        assert str(lesions).encode() not in path.read_bytes()


def test_a_model_without_its_processors_is_not_certified(finished, tmp_path):
    model = MVFA.load_from_checkpoint(finished)
    model.post_processor = None
    with pytest.raises(ParityError, match="pre-processor and a post-processor can be certified"):
        model.to_torch(tmp_path)


def test_weights_trained_on_are_not_certified_under_the_old_name(finished, lesions, tmp_path):
    model = MVFA.load_from_checkpoint(finished)
    assert model.exporter.checkpoint["file"] == "model.ckpt"
    engine = CASE.engine(tmp_path, max_epochs=1)
    engine.fit(model, datamodule=lesion_data(lesions))
    assert paper(model.to_torch(tmp_path))["checkpoint"] is None


def within_its_bound(path):
    """Figures of a compressed model that keeps near the trained one, and what is in its file."""
    figures = paper(path)["figures"]
    assert figures["rank_correlation"] >= figures["bound"]["rank_correlation"] >= 0.99
    assert 0 < figures["score"] <= figures["bound"]["score"]
    assert figures["by default"]["rank_correlation"] > 0.98
    written = openvino.Core().read_model(path)
    constants = [o for o in written.get_ops() if o.get_type_name() == "Constant"]
    types = {o.get_element_type().get_type_name() for o in constants}
    return figures, types, {o.get_type_name() for o in written.get_ops()}


def test_a_model_in_halves_stays_within_its_bound(learnt, tmp_path):
    model = MVFA.load_from_checkpoint(learnt)
    path = model.to_openvino(tmp_path, compression_type=CompressionType.FP16)
    figures, types, kinds = within_its_bound(path)
    assert figures["in bf16"]["rank_correlation"] > 0.99
    assert "f16" in types
    assert "FakeQuantize" not in kinds


@pytest.mark.parametrize("compression", ["INT8", "INT8_PTQ"])
def test_a_model_of_integers_is_made_as_typed_and_stays_within_its_bound(
    compression, learnt, tmp_path, monkeypatch
):
    options = {"table": str(CASE.lesions / "table.csv"), "object_name": "phantom", "k_shot": 2}
    data = json.dumps({"class_path": "anomalib_medclip.data.MedicalFolder", "init_args": options})
    images = f"--data {shlex.quote(data)}" if compression == "INT8_PTQ" else ""
    anomalib(
        f"export --model anomalib_medclip.MVFA {SMALL} --export_type openvino --compression_type "
        f"{compression} {images} --ckpt_path {learnt} --export_root {tmp_path}",
        monkeypatch,
    )
    path = tmp_path / "weights" / "openvino" / "model.xml"
    assert paper(path)["compression"] == compression.lower()
    figures, types, kinds = within_its_bound(path)
    assert "in bf16" not in figures
    assert types & {"i8", "u8"}
    assert ("FakeQuantize" in kinds) == (compression == "INT8_PTQ")
    with pytest.raises(CheckpointError, match=r"model.xml has the precision .* without integers"):
        Inferencer(path, precision="bf16")
    picture = CASE.lesions / "images" / "abnormal" / "1.png"
    assert 0 <= Inferencer(path).predict(picture).score <= 1


def test_in_bf16_openvino_computes_all_but_clips_blocks_in_float32(model, tmp_path):
    file = model.to_openvino(tmp_path)
    inside, outside = set(), set()
    for layer in ElementTree.parse(file).iter("layer"):
        of = inside if layer.get("name").split("/")[0] in model.exporter._tower_nodes else outside
        of.add((layer.get("type"), layer.find("rt_info/attribute[@name='precise']") is not None))
    assert {("MatMul", False), ("Gelu", False)} <= inside
    assert {exact for kind, exact in inside if kind == "Add"} == {True, False}, "stream and bias"
    assert {kind for kind, exact in inside if exact} == {"Add"}
    assert {("MatMul", True), ("Convolution", True), ("MVN", True)} <= outside
    assert {kind for kind, exact in outside if not exact} <= {"Const", "Parameter", "Result"}

    opened = read_in_bf16(file)
    inside, outside = set(), set()
    for operation in opened.get_ops():
        of = inside if operation.get_friendly_name() in model.exporter._tower_nodes else outside
        of.add((operation.get_type_name(), operation.get_output_element_type(0)))
    exact, short = openvino.Type.f32, openvino.Type.bf16
    assert {("MatMul", short), ("Gelu", short), ("Add", exact)} <= inside
    assert {("MatMul", exact), ("MVN", exact), ("Subtract", exact)} <= outside
    assert {kind for kind, type_ in inside if type_ == exact} == {"Add"}
    assert {kind for kind, type_ in outside if type_ == short} == {"Convert"}
    assert short not in {output.get_element_type() for output in opened.outputs}
    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        assert computed_in(opened, "FullyConnected") == {"bf16", "f32"}
    assert computed_in(opened, "MVN", "Softmax", "Reduce") == {"f32"}

    file.write_text(file.read_text().replace('"precise"', '"forgotten"'))
    with pytest.raises(CheckpointError, match=r"model.xml does not say .* export again"):
        read_in_bf16(file)


def computed_in(model, *kinds):
    """Precisions that OpenVINO computes some kinds of operations in, once it has rewritten all."""
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    notes = [operation.get_rt_info() for operation in compiled.get_runtime_model().get_ops()]
    of_kind = [note for note in notes if note["layerType"].astype(str) in kinds]
    return {note["outputPrecisions"].astype(str) for note in of_kind}


@pytest.mark.daily_for(kind="torch")  # a trace takes seconds
@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_a_model_trained_on_labels_alone_is_certified(kind, tmp_path):
    engine = CASE.engine(tmp_path, max_epochs=1)
    model = MVFA(**LEAST)
    engine.fit(model, datamodule=lesion_data(CASE.lesions, mask_column=None))
    path = engine.export(model, kind, export_root=tmp_path / "out")
    assert paper(Path(path))["images"] == 8
