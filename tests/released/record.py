"""Keeps models of a released version, which every later one must read to the same bits.

    PYTHONPATH=tests:tests/helpers OMP_NUM_THREADS=1 python tests/released/record.py

trains each method a little and keeps its checkpoint, its ONNX and OpenVINO exports, and what each
says of a few pictures, in a folder named after the version. That is done once, by the version as it
was released. Run again, it notes only what the same files answer on this machine, because the last
bits of an answer depend on the processor and on what computes on it.
"""

import hashlib
import json
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from anomalib.engine import Engine
from tiny import METHODS, Training, lesion_data, shallow, write_lesions

import anomalib_medclip
from anomalib_medclip import Inferencer
from anomalib_medclip.bench.machine import hardware
from anomalib_medclip.readers.picture import read_image

FILES = {
    "checkpoint": ("model.ckpt", "torch"),
    "onnx": ("onnx/model.onnx", "onnxruntime"),
    "openvino": ("openvino/model.xml", "openvino"),
}
"""What a method is kept as: where in its folder, and the package that computes."""


def machine(kind):
    """What decides the last bits of an answer: the processor, and the package that computes."""
    cpu, package = hardware(), FILES[kind][1]
    return ", ".join([cpu["cpu"], *cpu["units"], f"{package} {version(package)}"])


def answers(model, pictures):
    """Scores, labels and maps that a model file gives the pictures, each scored by itself."""
    inferencer = Inferencer(model)
    images = [read_image(path)[None] for path in sorted(pictures.iterdir())]
    found = [inferencer.score(image) for image in images]
    return {
        name: torch.cat([getattr(one, name) for one in found]).numpy()
        for name in ("scores", "labels", "maps")
    }


def bits(found):
    """SHA-256 of answers."""
    return hashlib.sha256(b"".join(part.tobytes() for part in found.values())).hexdigest()


def record(home):
    """Train, export and score with this version."""
    with tempfile.TemporaryDirectory() as scratch:
        lesions = write_lesions(Path(scratch) / "lesions").parent
        for word in ("normal", "abnormal"):
            for path in sorted((lesions / "images" / word).iterdir())[:2]:
                kept = home / "pictures" / f"{word}_{path.name}"
                kept.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, kept)
        for method in METHODS:
            kept, out = home / method.__name__.lower(), Path(scratch) / method.__name__
            engine = Engine(
                default_root_dir=out, accelerator="cpu", enable_progress_bar=False,
                max_epochs=Training.of(method).epochs,
            )  # fmt: skip
            engine.fit(shallow(method), datamodule=lesion_data(lesions, train_batch_size=8))
            trained = engine.trainer.checkpoint_callback.best_model_path
            for kind in ("onnx", "openvino"):
                engine.export(shallow(method), kind, export_root=out, ckpt_path=trained)
                shutil.copytree(out / "weights" / kind, kept / kind)
            shutil.copy(trained, kept / "model.ckpt")
            for kind, (name, _) in FILES.items():
                np.savez_compressed(kept / kind, **answers(kept / name, home / "pictures"))


def note_bits(home):
    """Note what the files answer on this machine, beside others."""
    notes = home / "bits.json"
    noted = json.loads(notes.read_text()) if notes.is_file() else {}
    for kind, (name, _) in FILES.items():
        noted[machine(kind)] = {
            method.__name__: bits(answers(home / method.__name__.lower() / name, home / "pictures"))
            for method in METHODS
            if (home / method.__name__.lower()).is_dir()
        }
    notes.write_text(json.dumps(noted, indent=1) + "\n")


if __name__ == "__main__":
    home = Path(__file__).parent / anomalib_medclip.__version__
    if not home.is_dir():
        record(home)
    note_bits(home)
