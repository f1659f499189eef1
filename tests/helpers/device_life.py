"""The life of a model on a fake device, from training to export, in a process of its own.

    python -c "import device_life; device_life.main()" cuda MVFA LESIONS HOME '{}' cell files

A cell has the first GPU that it sees. Files are trained, exported and used on the second, so that
what goes to the first without being told is noticed.
"""

import inspect
import json
import sys
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import faiss
import fake_device
import torch
from anomalib.engine import Engine
from anomalib.models.components.base import AnomalibModule
from comparing import CFLOW, PATCHCORE, SMALL, lesion_entry, write_config
from faiss_gpus import Resources
from tiny import METHODS, SHALLOW, Training, lesion_data

from anomalib_medclip import baselines, cli
from anomalib_medclip.compare import run_cell as running
from anomalib_medclip.compare.cell_setup import CellSettings, model_of
from anomalib_medclip.compare.comparison import build_model, find_class, read_config
from anomalib_medclip.compare.grid import plan_cells
from anomalib_medclip.components.model import ClipModel
from anomalib_medclip.score.inferencer import Inferencer
from anomalib_medclip.training.method import ClipMethod

PLACES = {"cuda": torch.device("cuda", 1), "mps": torch.device("mps", 0)}
NAMES = {"cuda": fake_device.NAME, "mps": "mps"}
METHOD_NAMES = [method.__name__ for method in METHODS]
OURS = [*METHOD_NAMES, *baselines.list_baselines()]
SWIN = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1), "window_size": 2}
"""MedCLIP's network, as small as it may be."""

OTHERS = {"PatchCore": PATCHCORE, "CFlow": CFLOW}
"""Models of anomalib, to compare with."""


class GpuIndex:
    """FAISS's on the device that it was made for, which needs a driver; it searches on the host."""

    def __init__(self, _resources, width, config):
        self.device = torch.device("cuda", config.device)
        self.on_host = faiss.IndexFlatIP(width)

    def add(self, rows):
        """Take rows from the device."""
        assert rows.device == self.device
        self.on_host.add(rows.cpu())

    def search(self, queries, k):
        """Answer on the device."""
        assert queries.device == self.device == torch.device("cuda", torch.cuda.current_device())
        return tuple(one.to(self.device) for one in self.on_host.search(queries.cpu(), k))


def entry_of(name, options):
    """A model of a comparison, as small as its options let it be."""
    if name in OTHERS:
        return OTHERS[name]
    path = f"anomalib_medclip.{'' if name in METHOD_NAMES else 'baselines.'}{name}"
    kind = find_class({"class_path": path})
    known = inspect.signature(kind).parameters
    given = {**(SHALLOW if "levels" in known else SMALL), "cross_fit": False}
    if name == "MedCLIP":
        given |= {"backbone": SWIN, "levels": [2, 3]}
    given = {option: value for option, value in given.items() if option in known}
    epochs = 2 if name in METHOD_NAMES else 1  # after the first, the test images are scored
    init_args = {**given, **Training.of(kind).options, **options}
    return {"class_path": path, "init_args": init_args, "max_epochs": epochs}


def built(entry):
    """The model itself."""
    return build_model({name: entry[name] for name in ("class_path", "init_args")}, None)


def cell(kind, entry, lesions, home, features=None):
    """Fit, score after an epoch, test, explain and take the time: all on the device."""
    models = {"it": {**entry, "normals": ["support"]}}
    data = {"set": lesion_entry(lesions, train_batch_size=64)}
    config = write_config(home / "c.yaml", models, data)
    (one,) = plan_cells(read_config(config), explain=True)
    made = []
    running.model_of = lambda asked: made.append(model_of(asked)) or made[-1]
    fake_device.waited_for.clear()
    found = running.run_cell(one, CellSettings(features, accelerator=kind))
    (test,) = found.tests
    assert test.images.called is not None
    assert 0 <= test.honest["image_AUROC"] <= 1
    maps = getattr(type(made[0].model), "level_maps", ClipModel.level_maps)
    assert (test.explain is not None) == (maps is not ClipModel.level_maps), "what it offers"
    assert NAMES[kind] == found.scoring.device
    waits = len(test.epochs) - 1 + 4  # before an epoch's figures, and after each pass that is timed
    assert fake_device.waited_for == [f"{kind}:0"] * waits, "a cell has the first that it sees"
    assert made[0].device == torch.device("cpu"), "the next cell has room"
    return found


def shared(kind, entry, lesions, home):
    """Two cells, of which the second finds the features that the first has computed."""
    first, second = (cell(kind, entry, lesions, home, home / "features") for _ in range(2))
    assert first.scoring.features_from_cache < second.scoring.features_from_cache
    assert first.tests[0].honest == second.tests[0].honest


def trained(kind, entry, lesions, home, **trainer):
    """An engine that has trained and tested a model on the device."""
    model = built(entry)
    engine = Engine(
        default_root_dir=home / "run", accelerator=kind, devices=[PLACES[kind].index],
        max_epochs=1, enable_progress_bar=False, enable_model_summary=False, **trainer,
    )  # fmt: skip
    engine.train(model, datamodule=lesion_data(lesions, train_batch_size=64))
    return engine


@contextmanager
def written_from():
    """Where models are while they are written as ``.pt`` files."""
    places, save = [], torch.save

    def noting(obj, f):
        places.append(obj["model"].device)
        save(obj, f)

    torch.save = noting
    yield places
    torch.save = save


def half(kind, entry, lesions, home):
    """Train and test with Lightning's mixed precision, which is the device's autocast."""
    trained(kind, entry, lesions, home, precision="bf16-mixed")


def files(kind, entry, lesions, home, formats=("torch",)):
    """Train, export from the device, and score a picture there with each file."""
    engine = trained(kind, entry, lesions, home)
    model, device = engine.model, PLACES[kind]
    if type(model).on_save_checkpoint is AnomalibModule.on_save_checkpoint:
        return  # none of its files can be opened to score with
    checkpoint = Path(engine.trainer.checkpoint_callback.best_model_path)
    model.to(device)
    with written_from() as places:
        made = [engine.export(model, one, export_root=home / one) for one in formats]
    assert places == [torch.device("cpu") if isinstance(model, ClipMethod) else device]
    assert model.device == device, "it is where it was before"
    torch.accelerator.set_device_index(0)  # as in a process that has not trained
    picture, scores = lesions / "images" / "abnormal" / "1.png", []
    for path in map(Path, (checkpoint, *made)):
        place = str(device) if path.suffix in (".ckpt", ".pt") else "cpu"
        scores.append(Inferencer(path, device=place, trust=True).predict(picture).score)
    assert max(scores) - min(scores) < 1e-3, scores
    for place in (device, torch.device("cpu")):
        words = ["score", picture, "--ckpt", checkpoint, "--out", home / f"maps_{place.type}"]
        assert cli.main([*map(str, words), "--device", str(place)]) == 0


def to_numpy(encoded):
    """A fault: what is on the device becomes an array."""
    encoded.numpy()


def from_processor(encoded):
    """A fault: a tensor is made on the processor."""
    return encoded + torch.ones(encoded.shape)


def planted(fault, kind, entry, lesions, home):
    """The life of a method that has a fault wherever it encodes."""
    model = type(built(entry).model)
    encode = model.encode

    def faulty(self, images):
        fault(encoded := encode(self, images))
        return encoded

    model.encode = faulty
    cell(kind, entry, lesions, home)


def timed(kind, entry, lesions, home):
    """Time a method's scores of images and its search."""
    from bench_rows import TINY  # no other stage needs any of it

    from anomalib_medclip.bench import measure, roofline

    (data := home / "data.yaml").write_text(json.dumps(lesion_entry(lesions)))
    name = entry["class_path"].rpartition(".")[2].lower()
    setting = replace(TINY, method=name, device=str(PLACES[kind]), k_shot=1, rounds=1)
    roofline._SIDE[kind] = 64
    for options in ({"images": str(data)}, {"what": "bank"}):
        row = measure.measure_setting(replace(setting, **options))
        assert row["device_name"] == NAMES[kind]
        assert torch.accelerator.current_device_index() == PLACES[kind].index, "Lightning's choice"
        assert fake_device.waited_for[-1] == str(PLACES[kind])


STAGES = {
    "cell": cell,
    "shared": shared,
    "half": half,
    "files": files,
    "graphs": partial(files, formats=("torch", "onnx")),
    "timed": timed,
    "to_numpy": partial(planted, to_numpy),
    "from_processor": partial(planted, from_processor),
}


def main():
    """Go through the stages that are named."""
    kind, name, lesions, home, options, *stages = sys.argv[1:]
    fake_device.install(kind, PLACES[kind].index + 1)
    if kind == "cuda":
        faiss.get_num_gpus, faiss.GpuIndexFlatIP = torch.cuda.device_count, GpuIndex
        faiss.StandardGpuResources = Resources
    entry = entry_of(name, json.loads(options))
    for stage in stages:
        (folder := Path(home, stage)).mkdir()
        STAGES[stage](kind, entry, Path(lesions), folder)
