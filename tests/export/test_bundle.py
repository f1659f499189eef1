"""A bundle of MONAI's is verified and run by MONAI's own tools, and scores as the checkpoint."""

import csv
import json
from pathlib import Path

import fresh_process
import numpy as np
import pytest
import torch
from monai.bundle import verify_net_in_out
from PIL import Image
from tiny import CASES

from anomalib_medclip import Inferencer
from anomalib_medclip.errors import ConfigError, ParityError

[CASE] = [case for case in CASES if case.name == "MVFA"]
pytestmark = pytest.mark.xdist_group("MVFA")

RUN = """
import sys
from monai.bundle import run
run(config_file=sys.argv[1], **dict(word.split("=") for word in sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    model = CASE.method.load_from_checkpoint(CASE.shallow_checkpoint)
    return model.to_monai(tmp_path_factory.mktemp("exported"))


def certificate(bundle):
    return json.loads((bundle / "models" / "model.json").read_text())


def run(bundle, pictures, results):
    words = (f"bundle_root={bundle}", f"dataset_dir={pictures}", f"output_dir={results}")
    return fresh_process.run("-c", RUN, bundle / "configs" / "inference.json", *words)


def scores(results):
    with (results / "scores.csv").open() as file:
        return {name: float(score) for name, score in csv.reader(file)}


def test_monai_verifies_what_goes_in_and_comes_out(bundle):
    configs = bundle / "configs"
    words = {"meta_file": str(configs / "metadata.json"), "device": "cpu"}
    words |= {"config_file": str(configs / "inference.json"), "bundle_root": str(bundle)}
    verify_net_in_out("network", **words)
    wrong = {"_meta_#network_data_format#outputs#pred#num_channels": 3}
    with pytest.raises(ValueError, match="output channel number"):
        verify_net_in_out("network", **words, **wrong)


def test_monai_scores_pictures_as_the_checkpoint_does(bundle, tmp_path):
    random = np.random.default_rng(0)
    for name, size in {"a": (40, 48), "deep/b": (31, 70), "deep/c": (32, 32)}.items():
        path = tmp_path / "in" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, size, dtype=np.uint8)).save(path)
    colours = Image.fromarray(random.integers(0, 255, (50, 44, 3), dtype=np.uint8))
    turned = Image.Exif()
    turned[274] = 6
    colours.save(tmp_path / "in" / "turned.jpg", exif=turned, quality=95)
    done = run(bundle, tmp_path / "in", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    model, allowed = Inferencer(CASE.shallow_checkpoint), certificate(bundle)["figures"]
    found = scores(tmp_path / "out")
    assert found.keys() == {"a.png", "deep/b.png", "deep/c.png", "turned.jpg"}
    for name, score in found.items():
        expected = model.predict(tmp_path / "in" / name)
        assert score == pytest.approx(expected.score, abs=allowed["allowed_score"]), name
        heat = np.asarray(Image.open(tmp_path / "out" / "maps" / f"{name}.tiff"))
        apart = np.abs(heat - expected.anomaly_map.numpy()).max()
        assert apart <= allowed["allowed"], name
    assert len({round(score, 3) for score in found.values()}) == 4


def test_a_picture_of_more_than_8_bits_is_refused_by_name(bundle, tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(np.full((40, 40), 3000, dtype=np.uint16)).save(tmp_path / "in" / "deep.png")
    done = run(bundle, tmp_path / "in", tmp_path / "out")
    assert done.returncode != 0
    words = "deep.png is of the kind I;16, 16 bits; save it as grey or RGB of 8 bits"
    assert "".join(words.split()) in "".join(done.stderr.split())  # lines may break within words
    assert not (tmp_path / "out" / "scores.csv").exists()


def test_the_network_takes_batches_of_any_size_and_names_no_place(bundle):
    network = torch.jit.load(str(bundle / "models" / "model.ts"))
    model = CASE.method.load_from_checkpoint(CASE.shallow_checkpoint).eval()
    images = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        found, expected = network(images), model(images)
    torch.testing.assert_close(
        found[:, 0], expected.anomaly_map.reshape(5, 32, 32), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(found[:, 1, 7, 9], expected.pred_score.reshape(5), atol=1e-5, rtol=0)
    for file in bundle.rglob("*"):
        if file.is_file():
            text = file.read_bytes()
            assert b"site-packages" not in text, file
            assert str(Path(__file__).parents[2]).encode() not in text, file


def test_the_certificate_is_of_the_network_in_the_bundle(bundle):
    said = certificate(bundle)
    assert said["format"] == "monai"
    assert said["outputs"]["pred"]["shape"] == ["batch", 2, 32, 32]
    assert said["files"].keys() == {"model.ts"}
    meta = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert meta["decision"]["image_threshold"] == said["image_threshold"] == 0.5
    assert meta["weights_sha256"] == said["weights_sha256"]
    assert meta["network_data_format"]["inputs"]["image"]["spatial_shape"] == [32, 32]
    page = (bundle / "docs" / "README.md").read_text()
    assert page.startswith("# MVFA as a MONAI bundle\n\nResearch use only.")


def test_a_network_that_says_otherwise_leaves_no_bundle(tmp_path, monkeypatch):
    model = CASE.method.load_from_checkpoint(CASE.shallow_checkpoint)
    with pytest.raises(ConfigError, match="model_file_name"):
        model.to_monai(tmp_path, "../mine")
    from anomalib_medclip.export import bundle

    class Louder(bundle._AsChannels):
        def forward(self, image):
            return super().forward(image) * 1.01

    monkeypatch.setattr(bundle, "_AsChannels", Louder)
    with pytest.raises(ParityError):
        model.to_monai(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.nightly(
    also="tests/export/test_bundle.py::test_the_network_takes_batches_of_any_size_and_names_no_place"
)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_method_that_has_a_graph_has_a_bundle(case, tmp_path):
    model = case.method.load_from_checkpoint(case.shallow_checkpoint)
    if model.model.untraceable:
        pytest.skip(model.model.untraceable)
    assert (model.to_monai(tmp_path) / "configs" / "inference.json").is_file()
