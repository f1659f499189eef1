"""Small comparisons that tests share: their configs, how they are run, what they leave on disk."""

import csv
import json
import multiprocessing
import time
from pathlib import Path

import yaml
from tiny import EVEN, OPTIONS

from anomalib_medclip import cli
from anomalib_medclip.compare.comparison import read_config
from anomalib_medclip.compare.grid import plan_cells
from anomalib_medclip.compare.store import Store

SMALL = {**OPTIONS, "backbone": EVEN}
MVFA = {"class_path": "anomalib_medclip.MVFA", "init_args": SMALL, "max_epochs": 2}
METHODS = {
    "MVFA": MVFA,
    "MadCLIP": {**MVFA, "class_path": "anomalib_medclip.MadCLIP"},
    "MediCLIP": {**MVFA, "class_path": "anomalib_medclip.MediCLIP"},
    "IQE-CLIP": {**MVFA, "class_path": "anomalib_medclip.IQECLIP"},
}
PLAIN = {"class_path": "anomalib_medclip.baselines.MeanIntensity", "normals": ["support"]}
"""What costs least."""

TINY_RESNET = {"backbone": "test_resnet", "pre_trained": False}
PATCHCORE = {
    "class_path": "anomalib.models.Patchcore",
    "init_args": {**TINY_RESNET, "layers": ["layer1"]},
    "image_size": 32,
}
CFLOW = {
    "class_path": "anomalib.models.Cflow",
    "init_args": {**TINY_RESNET, "layers": ["layer2"], "coupling_blocks": 1},
    "image_size": 64,
    "max_epochs": 2,
}


def lesion_entry(folder, **options):
    """What ``write_lesions`` has written to a folder, as data of a comparison."""
    given = {
        "table": str(folder / "table.csv"), "patient_column": "patient", "mask_column": "mask",
        "object_name": "phantom", "num_workers": 0, "val_ratio": 0.4, "train_batch_size": 16,
        **options,
    }  # fmt: skip
    return {"class_path": "anomalib_medclip.data.MedicalFolder", "init_args": given}


def phantom_entry(folder, **options):
    """Synthetic heads that are drawn into a folder, as data of a comparison."""
    given = {
        "root": str(folder), "organ": "head", "patients": [3, 2, 3], "slices": 4, "side": 32,
        "num_workers": 0, "train_batch_size": 16, **options,
    }  # fmt: skip
    return {"class_path": "anomalib_medclip.data.Phantoms", "init_args": given}


def write_config(path, models, data, **options):
    """Write a comparison of these models on these data; K is 2 and nothing trivial."""
    whole = {"models": models, "data": data, "k_shot": [2], "trivial": False, **options}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(whole, sort_keys=False))
    return path


def cells_of(path, models, data, **options):
    """The cells of a comparison."""
    return plan_cells(read_config(write_config(path, models, data, **options)))


def command(config, out, *more):
    """The words of the command, for ``cli.main``."""
    return ["compare", str(config), "--out", str(out), "--device", "cpu", *more]


def compare(config, out, *more):
    """Run the command in this process; its exit code."""
    return cli.main(command(config, out, *more))


def forked(config, out, *more):
    """Start the command in a copy of this process, which has imported everything."""
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_end_with, args=(command(config, out, *more),))
    process.start()
    return process


def _end_with(words):
    raise SystemExit(cli.main(words))


def records(out):
    """Records of a comparison that were written, by key, without what no two runs share."""
    found = {path.stem: json.loads(path.read_text()) for path in out.glob("cells/*.json")}
    for record in found.values():
        del record["measured"]
    return found


def started(out):
    """When each cell was run, by key."""
    found = {path.stem: json.loads(path.read_text()) for path in out.glob("cells/*.json")}
    return {key: record["measured"]["started"] for key, record in found.items()}


def figures(out):
    """Lines of ``table.csv`` without what they cost."""
    with (Path(out) / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    costs = {"seconds_per_image", "train_seconds", "model_mb", "learnt_mb"}
    return [{name: value for name, value in row.items() if name not in costs} for row in rows]


def held(out):
    """Keys of the cells that somebody holds, once whoever was killed has had time to die."""
    store = Store(out)
    keys = [cell.key for cell in store.grid().cells]
    for _ in range(100):
        locks = {key: store.claim(key) for key in keys}
        for lock in filter(None, locks.values()):
            lock.lock.release()
        keys = [key for key, lock in locks.items() if lock is None]
        if not keys:
            break
        time.sleep(0.1)
    return keys
