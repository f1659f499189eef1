"""Exports: what passes is the same model, what is not the same leaves no file."""

import json
import socket

import pytest
import torch
from anomalib.deploy.export import CompressionType
from anomalib.engine import Engine
from open_clip.transformer import QuickGELU
from tiny import OPTIONS, lesion_data
from torch import nn

from anomalib_medclip.components.processors import MedicalPreProcessor
from anomalib_medclip.errors import NotReadyError, ParityError
from anomalib_medclip.models.mvfa import MVFA


@pytest.fixture
def model(finished):
    return MVFA.load_from_checkpoint(finished)


def paper(path):
    return json.loads(path.with_suffix(".json").read_text())


def test_a_checkpoint_is_exported_without_its_images_and_without_network(
    model, tmp_path, monkeypatch
):
    def no_network(*_args):
        msg = "unreachable"
        raise OSError(msg)

    monkeypatch.setattr(socket.socket, "connect", no_network)
    path = model.to_onnx(tmp_path)
    assert path == tmp_path / "weights" / "onnx" / "model.onnx"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["weights"], "nothing is left aside"
    assert sum(f.stat().st_size for f in path.parent.iterdir()) < 2e6, "no text tower in it"


def test_the_certificate_says_what_a_user_must_know(model, finished, tmp_path):
    said = paper(model.to_torch(tmp_path))
    assert said["figures"]["map"] == said["figures"]["score"] == said["figures"]["labels"] == 0
    assert said["images"] >= 8
    assert (said["input_size"], said["object_name"]) == ([32, 32], "phantom")
    assert said["threshold_from"] == "validation"
    assert said["image_threshold"] == pytest.approx(float(model.post_processor.image_threshold))
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
    queries = torch_model.adapted_tokens(model.probes[:1].float() / 255).segment[0][0, 1:]
    rows = torch_model.memory_bank.rows
    nearest = (nn.functional.normalize(queries, dim=-1) @ rows[0].float().T).argmax(dim=-1)[0]
    torch_model.memory_bank.rows = rows.clone()
    torch_model.memory_bank.rows[0, nearest] *= -1


@pytest.mark.parametrize("plant", [another_activation, another_resize, another_bank_row])
def test_a_planted_error_fails_the_export_and_leaves_no_file(
    plant, model, finished, tmp_path, monkeypatch
):
    """What reaches the exporter is not what was trained."""
    export = torch.onnx.export

    def export_another(model, *args, **kwargs):
        other = MVFA.load_from_checkpoint(finished).eval()
        with torch.no_grad():
            plant(other)
        return export(other, *args, **kwargs)

    monkeypatch.setattr(torch.onnx, "export", export_another)
    with pytest.raises(ParityError, match="differs from the trained one"):
        model.to_onnx(tmp_path)
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize("compression", ["FP16", "INT8", "INT8_PTQ"])
def test_a_compressed_model_stays_within_its_bound(compression, model, lesions, tmp_path):
    kind = CompressionType[compression]
    images = lesion_data(lesions) if kind == CompressionType.INT8_PTQ else None
    path = model.to_openvino(tmp_path, compression_type=kind, datamodule=images)
    figures = paper(path)["figures"]
    assert figures["rank_correlation"] >= figures["bound"]["rank_correlation"] >= 0.99
    assert 0 < figures["score"] <= figures["bound"]["score"]
    assert figures["by default"]["rank_correlation"] > 0.5


def test_a_compression_without_a_bound_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match="no bound to be certified by; take fp16, int8, int8_ptq"):
        model.to_openvino(tmp_path, compression_type=CompressionType.INT8_ACQ)


def test_another_input_size_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match="takes images of 32 x 32 pixels only"):
        model.to_onnx(tmp_path, input_size=(64, 64))


def test_a_model_that_has_seen_no_images_cannot_be_certified(tmp_path):
    with pytest.raises(NotReadyError, match="no images to certify an export with"):
        MVFA(**OPTIONS).to_torch(tmp_path)
    assert not list(tmp_path.iterdir())


def test_no_path_of_the_support_travels_with_an_export(model, lesions, tmp_path):
    engine = Engine(
        default_root_dir=tmp_path, accelerator="cpu", max_epochs=1, enable_progress_bar=False
    )
    trained = MVFA(**OPTIONS)
    engine.fit(trained, datamodule=lesion_data(lesions))
    assert str(lesions).encode() not in trained.to_torch(tmp_path).read_bytes()
