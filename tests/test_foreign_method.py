"""A method of another package keeps every promise, and one that breaks a promise fails by its name.

The method is the one that the page on methods shows, put into a package outside the repository.
"""

import json
import os
from pathlib import Path

import fresh_process
import pytest
from shown_files import shown_files

HELPERS = Path(__file__).with_name("helpers")
SCRIPT = """
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tracing import traced_once

import anomalib_medclip
from anomalib_medclip.clip.towers import ImageTower
from anomalib_medclip.testing import BrokenPromiseError, MethodCase, check_method, method_checks

Probe = anomalib_medclip.Probe
assert Probe.__module__ == "far_probe.lightning_model"


class Leaks(Probe):
    def on_test_start(self):
        super().on_test_start()
        data = self.trainer.datamodule.test_data
        images = torch.stack([data[index].image for index in range(len(data))])
        tokens = self.model.bank_tokens(self.model.encode(images))
        self.model.memory_bank.fill(tokens, torch.arange(len(images)))


class Peeks(Probe):
    def on_fit_start(self):
        super().on_fit_start()
        table = self.trainer.datamodule.test_data.samples
        with torch.no_grad():
            self.model.layers[0].bias += 0.01 * float(table["label_index"].mean())


class Forgets(Probe):
    def assemble(self, model, few_shot=None):
        super().assemble(model, few_shot)
        rows = model.memory_bank.rows
        del model.memory_bank.rows
        model.memory_bank.register_buffer("rows", rows, persistent=False)


class ForgetsItsKind(Probe):
    def on_load_checkpoint(self, checkpoint):
        super().on_load_checkpoint(checkpoint)
        self.model.has_masks = self.model.few_shot = True


class LearnsFromPredictions(Probe):
    def on_predict_start(self):
        super().on_predict_start()
        with torch.no_grad():
            self.model.layers[0].bias += 0.01


class RunsTheTowerAgain(Probe):
    def training_step(self, batch, batch_idx):
        self.model.encode(batch.image)
        return super().training_step(batch, batch_idx)


class IgnoresPrecision(Probe):
    def image_tower(self):
        return ImageTower(self.backbone)


class MovesTheTower(Probe):
    def on_train_end(self):
        super().on_train_end()
        self.model.clip.visual.conv1.weight.data += 0.001


def broken(method, names):
    case = MethodCase(method, options={"lr": 1e-2}, epochs=1)
    found = {}
    for check in method_checks(case):
        if check.name in names:
            try:
                check()
            except BrokenPromiseError as error:
                found[check.name] = str(error)
    return found


told, asked = [], json.loads(sys.argv[1])
if sys.argv[2] == "without exports":
    sys.modules["onnxscript"] = None  # as where it is not installed
with TemporaryDirectory() as folder, traced_once(Path(folder)):
    check_method(MethodCase(Probe, options={"lr": 1e-2}, epochs=4), report=told.append)
kinds = [Leaks, Peeks, Forgets, ForgetsItsKind, LearnsFromPredictions, RunsTheTowerAgain,
         IgnoresPrecision, MovesTheTower]
found = {kind.__name__: broken(kind, asked[kind.__name__]) for kind in kinds}
print(json.dumps([told, found]))
"""

BROKEN = {
    "Leaks": "learns_nothing_from_images_to_score",
    "Peeks": "learns_the_same_whatever_is_tested",
    "Forgets": "restores_the_same_scores",
    "ForgetsItsKind": "restores_the_kind_of_model_it_is",
    "LearnsFromPredictions": "learns_nothing_from_images_to_score",
    "RunsTheTowerAgain": "encodes_no_image_twice",
    "IgnoresPrecision": "computes_in_the_precision_asked_for",
    "MovesTheTower": "changes_no_frozen_weight",
}


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A package of the page's method, and where it is installed."""
    home = tmp_path_factory.mktemp("site")
    for path, text in shown_files("add_a_method.md").items():
        folder, _, name = path.rpartition("/")
        if folder.endswith("models/probe"):
            (home / "far_probe").mkdir(exist_ok=True)
            code = text.replace("anomalib_medclip.models.probe", "far_probe")
            (home / "far_probe" / name).write_text(code)
    about = home / "far_probe-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: far-probe\nVersion: 1.0\n")
    entry = "[anomalib_medclip.models]\nprobe = far_probe:Probe\n"
    (about / "entry_points.txt").write_text(entry)
    return home


@pytest.fixture(scope="module", params=["without exports", "whole"])
def said(request, package):
    """What the method's promises came to, and those that its kinds were asked for and broke."""
    path = fresh_process.search_path(package, HELPERS)
    asked = {kind: [promise, "declares_what_it_has"] for kind, promise in BROKEN.items()}
    done = fresh_process.run(
        "-c", SCRIPT, json.dumps(asked), request.param, env={**os.environ, "PYTHONPATH": path}
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return request.param, *json.loads(done.stdout.splitlines()[-1])


@pytest.mark.daily_for(said="without exports")
def test_a_method_of_another_package_keeps_every_promise(said):
    given, told, _ = said
    assert len(told) > 35
    others = [word for word in told if not word.startswith("kept: ")]
    needing = [word for word in others if "needs onnxscript: pip install" in word]
    assert others == needing
    assert len(others) == (2 if given == "without exports" else 0)


@pytest.mark.daily_for(said="without exports")
def test_a_broken_promise_is_called_by_its_name(said):
    *_, found = said
    assert found.keys() == BROKEN.keys()
    for name, promise in BROKEN.items():
        assert found[name].keys() == {promise}, "the other one that it was asked for is kept"
        assert f"{name} breaks {promise} (" in found[name][promise]
