"""Tables of the papers made small: tiny models, and a tree of every set's layout."""

import shutil
from functools import cache

import yaml
from comparing import SMALL
from conftest import save_bmad, save_mask, save_picture
from paper_trees import MEDICLIP, WRITERS
from tiny import Training

from anomalib_medclip.commands import reproduce
from anomalib_medclip.commands.configs import configs
from anomalib_medclip.compare.comparison import find_class, read_config
from anomalib_medclip.data.bmad import BMAD_SETS
from anomalib_medclip.data.industrial import INDUSTRIAL_SETS
from anomalib_medclip.papers.inputs import as_config
from anomalib_medclip.papers.tables import paper_tables

TABLES = paper_tables(configs())

_RESNET = {"backbone": "resnet18", "pre_trained": False}
_SWIN = {"embed_dim": 16, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8], "window_size": 2}
_TINY = {
    "MedCLIP": {"backbone": _SWIN, "pretrained": None, "image_size": 32},
    "Cflow": {**_RESNET, "coupling_blocks": 1, "fiber_batch_size": 8},
    "ReverseDistillation": _RESNET,
    "Patchcore": {"backbone": "test_resnet", "pre_trained": False, "layers": ["layer1"]},
}
"""Options that make a model small which those of the other tests do not fit."""

_LEVELS = {"levels", "scored_levels"}


@cache
def config_of(name):
    """The comparison of a table, read once; nobody changes it."""
    return read_config(TABLES[name].config)


def small_options(kind):
    """Options that make a model of a class small and offline."""
    usual = {**SMALL, **Training.of(kind).options}
    useless = getattr(kind, "no_use_for", ())
    return _TINY.get(kind.__name__, {k: v for k, v in usual.items() if k not in useless})


def shrink(name, home, monkeypatch, models=None):
    """Let a table be run with tiny models for one epoch, at most two draws and seeds.

    ``models`` are those that stay; trivial scores do not.
    """
    config = as_config(read_config(TABLES[name].config))
    for entry in config["models"].values():
        options = {**entry["init_args"], **small_options(find_class(entry))}
        # Of 4 blocks where the papers' have 24.
        shallow = {k: [level // 6 for level in v] for k, v in options.items() if k in _LEVELS}
        entry |= {"init_args": {**options, **shallow}, "max_epochs": 1}
        if "image_size" in entry:
            entry["image_size"] = 64
    for entry in config["data"].values():
        entry["init_args"]["num_workers"] = 0
    config |= {
        "draws": min(2, config["draws"]),
        "seeds": config["seeds"][:2],
        "trivial": False,
    }
    config["models"] = {k: v for k, v in config["models"].items() if k in (models or [k])}
    path = home / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    stem = name.replace("-", "_")
    monkeypatch.setattr(reproduce, "configs", lambda: {f"compare/papers/{stem}": path})


_FOLDERS = {"nihchest": "NIHChest", "adni": "ADNI", "octdl": "OCTDL", "mvtecad": "MVTecAD"}
_INDUSTRIAL = {
    "mvtecad": (INDUSTRIAL_SETS["MVTecAD"], "bottle"),
    "visa": (INDUSTRIAL_SETS["Visa"], "pcb1"),
}
"""With the category that ``WRITERS`` write."""

_LISTS = {"mvfa": "{k}-shot.txt", "madclip": "my{k}-shot.txt"}


def every_set(config):
    """Names of all sets of a comparison, as ``grow`` has them."""
    found = {}
    for name, entry in config.data.items():
        kind = entry["class_path"].rpartition(".")[2]
        if kind == "BMADLeaveOneOut":
            found |= dict.fromkeys(BMAD_SETS)
        elif kind == "BMAD":
            found[entry["init_args"]["category"]] = None
        elif kind == "Industrial":
            found[entry["init_args"]["dataset"].lower()] = None
        else:
            found[name] = None
    return list(found)


def grow(root, sets, shots):
    """Write sets of BMAD, with lists for each K, and other sets by the names of their configs."""
    for name in sets:
        if name in BMAD_SETS:
            save_bmad(name, root / "BMAD", count=max(8, 2 * max(shots)))
            for authors, file in _LISTS.items():
                for k in shots:
                    path = root / "support_lists" / authors / name / file.format(k=k)
                    _write_list(path, root / "BMAD" / f"{name}_AD" / "valid", k)
        else:
            home = root / _FOLDERS.get(name, name)
            home.mkdir(parents=True)
            more = {"count": max(shots) + 4} if name in MEDICLIP else {}
            WRITERS[name](home, save_picture, save_mask, **more)
            if name in _INDUSTRIAL:
                known, first = _INDUSTRIAL[name]
                there = home / known.folder
                for category in {*known.categories} - {first}:
                    shutil.copytree(there / first, there / category)


def _write_list(path, valid, k):
    """A list of the first K images of each class, in the format of MVFA's authors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        f"{letter}-0: " + " ".join(sorted(one.name for one in (valid / word / "img").iterdir())[:k])
        for letter, word in (("n", "good"), ("a", "Ungood"))
    ]
    path.write_text("\n".join(lines))
