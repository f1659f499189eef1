"""An exported file says what it is, and scores pictures without this package, by the documents'
examples.

They are of a model that trained on lesions of other organs, and of the one that the contract of
MVFA exports, made by the same worker.
"""

import json
import os
import shutil
import struct
import subprocess
import sys
import threading
import zlib
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from anomalib.data import InferenceBatch
from anomalib.deploy import OpenVINOInferencer
from command import SMALL, anomalib
from openvino.package_utils import get_cmake_path
from PIL import Image
from tiny import BACKBONE, CASES, OPTIONS, SHALLOW

from anomalib_medclip import Inferencer
from anomalib_medclip.data import BMADLeaveOneOut
from anomalib_medclip.data.bmad import BMAD_SETS
from anomalib_medclip.errors import TrustError
from anomalib_medclip.export import metadata
from anomalib_medclip.export.description import describe
from anomalib_medclip.models.mvfa import MVFA

pytestmark = pytest.mark.xdist_group("MVFA")
[CASE] = [case for case in CASES if case.name == "MVFA"]
EXAMPLES = Path(__file__).parents[2] / "docs" / "export_examples"
NODE_MODULES = os.environ.get("ANOMALIB_MEDCLIP_NODE_MODULES", "")
"""A folder ``node_modules``: ``npm install onnxruntime-web fast-png`` makes one."""
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
LEAST = {
    **OPTIONS,
    "backbone": {**BACKBONE, "vision_cfg": {**BACKBONE["vision_cfg"], "layers": 1}},
    "levels": [1],
}
"""One block: its graph is traced for this file alone."""
WINDOW = (0.0, 4095.0)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Larger and smaller than the input, wide and tall, grey and colour, 8 and 16 bits, alpha."""
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    kinds = {
        "larger": (90, 71, 3), "smaller": (20, 27, 3), "tall": (150, 40), "same": (32, 32, 3),
        "deep_larger": (64, 90), "deep_smaller": (25, 19), "alpha": (33, 50, 4),
    }  # fmt: skip
    for name, shape in kinds.items():
        deep = name.startswith("deep")
        pixels = random.integers(0, 5000 if deep else 256, shape)
        Image.fromarray(pixels.astype(np.uint16 if deep else np.uint8)).save(folder / f"{name}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def indexed(tmp_path_factory):
    """PNG files of one bit, and of palettes with and without a colour that is transparent."""
    folder, random = tmp_path_factory.mktemp("indexed"), np.random.default_rng(0)
    colour = Image.fromarray(random.integers(0, 256, (40, 52, 3), np.uint8))
    colour.quantize(64).save(folder / "palette.png")
    colour.quantize(8).save(folder / "palette_4_bits.png", bits=4)
    colour.quantize(64).save(folder / "palette_transparent.png", transparency=0)
    colour.convert("1").save(folder / "one_bit.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def deep_colour(tmp_path_factory):
    """PNG files of 16 bits in colour, with and without alpha, and in grey with alpha."""
    folder, random = tmp_path_factory.mktemp("deep"), np.random.default_rng(0)
    pixels = random.integers(0, 5000, (40, 52, 4), np.uint16)
    for kind, channels in {2: 3, 6: 4, 4: 2}.items():  # colour, with alpha, grey with alpha
        write_png(folder / f"kind_{kind}.png", pixels[..., :channels], kind)
    return sorted(folder.iterdir())


def write_png(path, pixels, kind):
    """A PNG file of 16 bits, by the format's definition."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


@pytest.fixture(scope="module")
def zero_shot(bmad_tree, tmp_path_factory):
    """A checkpoint without support, an ONNX file of it for images of any size, and the model."""
    root = tmp_path_factory.mktemp("zero_shot")
    for category in BMAD_SETS:
        bmad_tree(category, root / "BMAD", count=4)
    engine = CASE.engine(root, max_epochs=1, limit_train_batches=1)
    model = MVFA(**LEAST)
    engine.fit(model, datamodule=BMADLeaveOneOut(root / "BMAD", "Brain", num_workers=0))
    model.pre_processor.intensity = WINDOW
    checkpoint = engine.trainer.checkpoint_callback.best_model_path
    return checkpoint, model.to_onnx(root, any_size=True), model


def paper(path):
    return json.loads(path.with_suffix(".json").read_text())


def allowed(path):
    """The largest difference that the certificate of a model calls none."""
    return min(found["allowed"] for found in at_sizes(path).values())


def at_sizes(path):
    return {size: found for size, found in paper(path)["figures"].items() if " x " in size}


def agree(found, checkpoint, path, pictures):
    """Scores by the name of their picture are those of the trained model."""
    inferencer = Inferencer(checkpoint, intensity=WINDOW)
    assert len(found) == len(pictures)
    for picture in pictures:
        assert abs(found[picture.name] - inferencer.predict(picture).score) <= allowed(path)


def run(*command):
    """A program's end, without this package on its path."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, env=env, check=False)


def refused(words, *command):
    """A program ends with these words, and prints no score."""
    done = run(*command)
    assert done.returncode
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


def said(*command):
    """What a program prints of each picture: path, score, and whether it is abnormal."""
    done = run(*command)
    assert done.returncode == 0, done.stderr
    rows = [line.split(" ") for line in done.stdout.splitlines() if ".png " in line]
    for _, score, verdict in rows:
        assert (float(score) > 0.5) == (verdict in ("True", "1"))
    return {Path(path).name: float(score) for path, score, _ in rows}


def test_a_zero_shot_model_is_certified_on_images_of_validation(zero_shot):
    assert paper(zero_shot[1])["images"] == 8
    assert list(at_sizes(zero_shot[1])) == ["19 x 26", "48 x 67", "106 x 38"]


def test_onnxruntime_alone_gives_the_scores_of_the_trained_model(
    zero_shot, pictures, indexed, deep_colour
):
    checkpoint, path, _ = zero_shot
    program = sys.executable, EXAMPLES / "score_onnxruntime.py"
    found = said(*program, path, *pictures, *indexed)
    agree(found, checkpoint, path, [*pictures, *indexed])
    for picture in deep_colour:
        refused(f"{picture.name} has 16 bits of colour", *program, path, picture)
    [grey] = [path for path in pictures if path.stem == "deep_larger"]
    refused("takes images of one size", *program, CASE.exported("onnx"), grey)
    opened = Inferencer(path)  # which resizes first
    agree({p.name: opened.predict(p).score for p in pictures}, checkpoint, path, pictures)


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome is installed")
@pytest.mark.skipif(
    not Path(NODE_MODULES, "onnxruntime-web").is_dir() or not NODE_MODULES,
    reason="ANOMALIB_MEDCLIP_NODE_MODULES names no folder with onnxruntime-web and fast-png",
)
def test_a_browser_gives_the_scores_of_the_trained_model(
    zero_shot, pictures, indexed, deep_colour, tmp_path
):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    checkpoint, path, _ = zero_shot
    site = shutil.copytree(EXAMPLES / "web", tmp_path / "site")
    (site / "node_modules").symlink_to(NODE_MODULES)
    for file in path.parent.iterdir():
        shutil.copy(file, site)
    assert {file.name for file in path.parent.iterdir()} == {"model.onnx", "model.json"}
    said_of = {}
    with served(site) as address, playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(120_000)
        for picture in (*pictures, *deep_colour, *indexed):
            page.goto(address)
            page.set_input_files("input", picture)
            page.wait_for_function("document.querySelector('output').value !== ''")
            said_of[picture.name] = page.locator("output").text_content()
        browser.close()
    for picture in indexed:
        assert said_of.pop(picture.name).startswith("a palette, or fewer than 8 bits")
    found = {name: float(text) for name, text in said_of.items()}
    agree(found, checkpoint, path, [*pictures, *deep_colour])


class Quiet(SimpleHTTPRequestHandler):
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript"}

    def log_message(self, *_):
        pass


@contextmanager
def served(folder):
    """The address of a folder's page, for a while."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/index.html"
        server.shutdown()


def test_an_onnx_file_says_what_its_certificate_says(zero_shot):
    path = zero_shot[1]
    session = onnxruntime.InferenceSession(path)
    says = session.get_modelmeta().custom_metadata_map
    description = {name: value for name, value in says.items() if " " not in name}
    assert_says(description, paper(path))
    given, (taken,) = paper(path), session.get_inputs()
    assert (taken.name, taken.type) == (given["input"]["name"], "tensor(float)")
    assert given["input"]["shape"] == ["batch", 3, "height", "width"]
    assert [isinstance(size, str) for size in taken.shape] == [True, False, True, True]
    outputs = {
        one.name: [one.shape[0] and "batch", *one.shape[1:]] for one in session.get_outputs()
    }
    assert outputs == {name: one["shape"] for name, one in given["outputs"].items()}
    assert (given["inside"], given["outside"]) == (["resize", "normalisation"], ["intensity"])
    assert (given["intensity"], given["intensity_window"]) == ([0.0, 4095.0], [0.0, 4095.0])


def assert_says(texts, certificate):
    """A file's own description is that of its certificate, all but what is measured on the file."""
    measured = ("images", "figures", "files")
    expected = {name: value for name, value in certificate.items() if name not in measured}
    found = {n: t if isinstance(expected[n], str) else json.loads(t) for n, t in texts.items()}
    assert found == expected
    assert {"notice", "threshold_from", "labels", "resize", "normalisation"} <= set(found)


def test_an_openvino_file_says_what_its_certificate_says():
    path = CASE.exported("openvino")
    model = openvino.Core().read_model(path)
    assert_says(model.get_rt_info("anomalib_medclip").value, paper(path))
    given, sizes = paper(path), list(model.input().partial_shape)[1:]
    assert model.input().get_any_name() == given["input"]["name"]
    assert [size.get_length() for size in sizes] == given["input"]["shape"][1:] == [3, 32, 32]
    assert {one.get_any_name() for one in model.outputs} == set(given["outputs"])
    assert (given["inside"], given["outside"]) == (["normalisation"], ["intensity", "resize"])
    assert model.get_rt_info(["model_info", "model_type"]).astype(str) == "AnomalyDetection"


def test_the_model_api_opens_a_file_as_it_is_told_in_it(pictures):
    api = pytest.importorskip("model_api.models", reason="openvino-model-api is not installed")
    adapters = pytest.importorskip("model_api.adapters")
    path, exact = CASE.exported("openvino"), {"INFERENCE_PRECISION_HINT": "f32"}
    core = adapters.create_core()
    adapter = adapters.OpenvinoAdapter(core, str(path), device="CPU", plugin_config=exact)
    model = api.Model.create_model(adapter)
    assert type(model) is api.AnomalyDetection
    assert model.params.labels == ["normal", "abnormal"]
    assert model.params.image_threshold == model.params.pixel_threshold == 0.5
    opened = Inferencer(path)
    for picture in [path for path in pictures if not path.stem.startswith("deep")]:
        resized = Image.open(picture).convert("RGB").resize((32, 32), Image.Resampling.BICUBIC)
        found, expected = model(np.asarray(resized)[..., ::-1]), opened.predict(picture)
        assert abs(found.pred_score - expected.score) <= paper(path)["figures"]["allowed"]
        assert found.pred_label == str(expected.label)


def test_a_program_of_torch_is_certified_and_gives_the_same_scores(zero_shot, pictures, tmp_path):
    checkpoint, _, model = zero_shot
    path = model.to_pt2(tmp_path)
    assert path == tmp_path / "weights" / "pt2" / "model.pt2"
    with pytest.raises(TrustError, match=r"model\.pt2 may hold pickles: opening it runs whatever"):
        Inferencer(path)
    expected, found = Inferencer(checkpoint, intensity=WINDOW), Inferencer(path, trust=True)
    for picture in pictures:
        apart = found.predict(picture).score - expected.predict(picture).score
        assert abs(apart) <= paper(path)["figures"]["allowed"]
    extra = {"description.json": ""}
    program = torch.export.load(path, extra_files=extra)
    said_in_it = json.loads(extra["description.json"])
    assert said_in_it == {name: paper(path)[name] for name in said_in_it}
    assert said_in_it["input"]["shape"] == ["batch", 3, 32, 32]
    assert set(program.module()(torch.rand(2, 3, 32, 32))) == set(said_in_it["outputs"])
    for of_this_machine in (str(Path(__file__).parents[2]), sys.prefix):
        assert of_this_machine.encode() not in path.read_bytes()


ALONE = """
import sys, torch
model = torch.export.load(sys.argv[1]).module()
found = model(torch.load(sys.argv[2]))
assert not {"anomalib", "anomalib_medclip"} & set(sys.modules)
torch.save(found["pred_score"], sys.argv[3])
"""


@pytest.mark.nightly(
    also="tests/export/test_examples.py::"
    "test_a_program_of_torch_is_certified_and_gives_the_same_scores"
)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_torch_alone_opens_a_program_of_every_method(case, tmp_path):
    model = case.method.load_from_checkpoint(case.shallow_checkpoint)
    path = model.to_pt2(tmp_path, any_size=True)
    images = torch.rand(2, 3, 40, 51)
    torch.save(images, tmp_path / "images")
    words = [sys.executable, "-c", ALONE, path, tmp_path / "images", tmp_path / "scores"]
    subprocess.run(words, check=True)
    with torch.inference_mode():
        expected = model.eval().cpu()(images).pred_score
    difference = (torch.load(tmp_path / "scores") - expected).abs().max()
    assert difference <= paper(path)["figures"]["allowed"]


def test_a_model_without_a_threshold_says_so_and_is_not_for_the_model_api():
    answer = InferenceBatch(pred_score=torch.rand(2), anomaly_map=torch.rand(2, 1, 32, 32))
    model = MVFA(**SHALLOW)
    found = describe(model, None, answer, "onnx")
    assert (found.image_threshold, found.model_info()) == (None, {})
    assert found.texts()["image_threshold"] == "null"
    assert found.threshold_from is None
    assert "no threshold of images is known" in found.outputs["pred_score"]["meaning"]
    assert "no threshold of pixels is known" in found.outputs["anomaly_map"]["meaning"]
    assert found.outputs["anomaly_map"]["shape"] == ["batch", 1, 32, 32]


def test_a_model_that_learnt_from_labels_alone_knows_no_threshold_of_pixels():
    answer = InferenceBatch(pred_score=torch.rand(2), anomaly_map=torch.rand(2, 1, 32, 32))
    model = MVFA(**SHALLOW)
    model.post_processor._image_threshold = torch.tensor(0.3)
    found = describe(model, None, answer, "onnx")
    assert (found.image_threshold, found.pixel_threshold) == (0.5, None)
    assert "no threshold" not in found.outputs["pred_score"]["meaning"]
    assert "no threshold of pixels is known" in found.outputs["anomaly_map"]["meaning"]
    assert found.model_info()["task"] == "classification"
    model.post_processor._pixel_threshold = torch.tensor(0.3)
    assert describe(model, None, answer, "onnx").model_info()["task"] == "segmentation"


def test_weights_too_large_for_one_file_stay_beside_it(tmp_path, monkeypatch):
    path, values = tmp_path / "model.onnx", np.arange(1000, dtype=np.float32)
    description = describe(MVFA(**SHALLOW), None, InferenceBatch(), "onnx")
    for limit, files in ((3000, ["model.onnx", "model.onnx.data"]), (300_000, ["model.onnx"])):
        write_apart(path, values)
        monkeypatch.setattr(metadata, "ONE_FILE", limit)
        metadata.into_onnx(path, description)
        assert sorted(file.name for file in tmp_path.iterdir()) == files
        session = onnxruntime.InferenceSession(path)
        assert np.array_equal(session.run(None, {})[0], values)
        assert session.get_modelmeta().custom_metadata_map["notice"] == "research use only"


def write_apart(path, values):
    """An ONNX file that gives some values, which lie beside it."""
    constant = onnx.numpy_helper.from_array(values, "weights")
    node = onnx.helper.make_node("Identity", ["weights"], ["out"])
    out = onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, values.shape)
    graph = onnx.helper.make_graph([node], "graph", [], [out], [constant])
    opset = [onnx.helper.make_opsetid("", 18)]
    model = onnx.helper.make_model(graph, ir_version=10, opset_imports=opset)
    onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data")


@pytest.fixture(scope="module", params=["MVFA", "MediCLIP"])
def for_openvino(request, tmp_path_factory):
    """A checkpoint, and an OpenVINO file of it that takes images of any size."""
    [case] = [case for case in CASES if case.name == request.param]
    model = case.method.load_from_checkpoint(case.shallow_checkpoint)
    model.pre_processor.intensity = WINDOW
    asked = {"any_size": True, "input_names": ["image"]}
    path = model.to_openvino(tmp_path_factory.mktemp("openvino"), onnx_kwargs=asked)
    assert openvino.Core().read_model(path).input().get_any_name() == "image"
    assert paper(path)["input"]["name"] == "image"
    return case.shallow_checkpoint, path


@pytest.mark.nightly(
    also="tests/export/test_examples.py::test_the_model_api_opens_a_file_as_it_is_told_in_it"
)
def test_the_model_api_gives_the_scores_of_the_trained_model(
    for_openvino, pictures, indexed, deep_colour
):
    pytest.importorskip("model_api.models", reason="openvino-model-api is not installed")
    checkpoint, path = for_openvino
    program = sys.executable, EXAMPLES / "score_model_api.py"
    found = said(*program, path, *pictures, *indexed)
    agree(found, checkpoint, path, [*pictures, *indexed])
    for picture in deep_colour:
        refused(f"{picture.name} has 16 bits of colour", *program, path, picture)
    refused("takes images of one size", *program, CASE.exported("openvino"), *pictures)


@pytest.mark.nightly(
    also="tests/export/test_examples.py::test_an_openvino_file_says_what_its_certificate_says"
)
@pytest.mark.skipif(
    not shutil.which("cmake")
    or not shutil.which("g++")
    or not Path("/usr/include/png.h").is_file(),
    reason="cmake, g++ or libpng's header (libpng-dev) is not installed",
)
def test_cpp_gives_the_scores_of_the_trained_model(
    for_openvino, pictures, indexed, deep_colour, tmp_path
):
    checkpoint, path = for_openvino
    where = f"-DOpenVINO_DIR={get_cmake_path()}"
    for words in (["-S", EXAMPLES / "cpp", "-B", tmp_path, where], ["--build", tmp_path]):
        subprocess.run(["cmake", *words], check=True, stdout=subprocess.DEVNULL)
    every, program = [*pictures, *indexed, *deep_colour], tmp_path / "score"
    agree(said(program, path, *every), checkpoint, path, every)
    refused("takes images of one size", program, CASE.exported("openvino"), *pictures)
    refused("cannot open", program, path, tmp_path / "gone.png")
    refused("usage", program)


@pytest.mark.nightly(
    also="tests/export/test_examples.py::"
    "test_onnxruntime_alone_gives_the_scores_of_the_trained_model"
)
def test_anomalibs_openvino_inferencer_takes_images_of_any_size(
    for_openvino, pictures, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # it makes a cache folder where it stands
    checkpoint, path = for_openvino
    inferencer = OpenVINOInferencer(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    eight = [path for path in pictures if not path.stem.startswith("deep")]
    scores = [torch.as_tensor(inferencer.predict(picture).pred_score) for picture in eight]
    found = {picture.name: score.item() for picture, score in zip(eight, scores, strict=True)}
    agree(found, checkpoint, path, eight)


@pytest.mark.nightly(
    also="tests/export/test_examples.py::"
    "test_onnxruntime_alone_gives_the_scores_of_the_trained_model"
)
def test_a_command_exports_for_images_of_any_size(pictures, tmp_path, monkeypatch):
    checkpoint = CASE.shallow_checkpoint
    anomalib(
        f"export --model anomalib_medclip.MVFA {SMALL} --export_type onnx --onnx_kwargs.any_size "
        f"true --ckpt_path {checkpoint} --export_root {tmp_path}",
        monkeypatch,
    )
    path = tmp_path / "weights" / "onnx" / "model.onnx"
    eight = [path for path in pictures if not path.stem.startswith("deep")]
    program = sys.executable, EXAMPLES / "score_onnxruntime.py"
    agree(said(*program, path, *eight), checkpoint, path, eight)
    [deep] = [path for path in pictures if path.stem == "deep_larger"]
    refused("16 bits, of which the model does not say", *program, path, deep)
