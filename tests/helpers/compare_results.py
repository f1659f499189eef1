"""Records of a comparison, made up: of the shape that ``compare`` writes, with scores by chance."""

import numpy as np

from anomalib_medclip.compare.cell_record import CellRecord, ComparisonGrid
from anomalib_medclip.compare.store import Store
from anomalib_medclip.evaluation.figures import CHOSEN_ON_TEST, of_test_alone
from anomalib_medclip.evaluation.levels import UNIT_FIGURES
from anomalib_medclip.evaluation.localisation import LESION_FIGURES

METRICS = (
    *(f"{level}_{name}" for level in ("patient", "volume", "image") for name in UNIT_FIGURES),
    "image_F1Max",
    "image_SpecificityAtSensitivity", "image_ECE", "pixel_AUROC", "pixel_AP", "pixel_AUPRO",
    *LESION_FIGURES,
)  # fmt: skip
MODELS = {
    "MVFA": ("method", 1.6, 4),
    "MadCLIP": ("method", 2.0, 4),
    "PatchCore": ("baseline", 0.9, 1),
    "mean intensity": ("trivial", 0.3, 1),
}
"""Kind, how well it tells the classes apart, epochs."""

SIDE = 24


def write_results(folder, shots=(4, 16), draws=(0, 1), tests=("heads", "volumes"), failing=True):
    """Write records of every model on every set, K and draw; one cell failed, one was not run."""
    store = Store(folder)
    planned = []
    for model, (kind, _, _) in MODELS.items():
        for normals in ("support", "train") if model == "PatchCore" else ("support",):
            for data in tests:
                for k in shots if normals == "support" else shots[:1]:
                    for draw in draws:
                        key = f"{len(planned):016x}"
                        cell = {
                            "key": key, "model": model, "kind": kind, "normals": normals,
                            "data": data, "tests": [data], "k_shot": k, "draw": draw, "seed": 0,
                            "note": "untrained backbone" if kind == "baseline" else "",
                            "keeps": ["pictures"], "data_configs": {},
                            "model_config": {"class_path": f"made_up.{model}"},
                        }  # fmt: skip
                        planned.append(cell)
                        _write_cell(store, key, cell)
    grid = {"title": "Made-up results", "command": "anomalib-medclip compare made_up.yaml",
            "versions": {"anomalib-medclip": "0", "anomalib": "2.7.0"}, "cells": planned,
            "published": {"heads": "Brain"}}  # fmt: skip
    if failing:
        planned.append({**planned[0], "key": "f" * 16, "model": "Broken"})
        store.write("f" * 16, CellRecord.of_plain(failed(planned[-1])))
        planned.append({**planned[0], "key": "e" * 16, "model": "MediCLIP"})  # not run yet
    store.write_grid(ComparisonGrid.of_plain(grid), "title: Made-up results\n")
    return store


def failed(cell):
    """The record of a cell that raised."""
    error = {"type": "RuntimeError", "message": "out of <memory>", "traceback": "Traceback ..."}
    taken = {"started": "2026-01-01T00:00:00+00:00", "seconds": 1.0, "machine": "x86_64, 2 cores"}
    return {"key": cell["key"], "status": "failed", "cell": cell, "error": error,
            "determined_by": determined_by(cell), "measured": taken}  # fmt: skip


def determined_by(cell):
    """What the findings of a cell depend on."""
    return {"data": {cell["data"]: "0" * 64}, "versions": {"anomalib": "2.7.0"},
            "package": "0" * 64, "code": [], "files": {}}  # fmt: skip


def measured(seed):
    random = np.random.default_rng(seed)
    return {
        "started": "2026-01-01T00:00:00+00:00", "seconds": 12.0, "device": "cpu",
        "train_seconds": float(random.uniform(1, 20)),
        "seconds_per_image": float(random.uniform(0.01, 0.2)),
        "model_mb": float(random.uniform(5, 50)), "learnt_mb": float(random.uniform(0, 5)),
        "features_from_cache": 3, "machine": "x86_64, 2 cores",
    }  # fmt: skip


def _write_cell(store, key, cell):
    kind, skill, epochs = MODELS[cell["model"]]
    random = np.random.default_rng([int(key, 16), cell["draw"]])
    test, arrays = _test(cell, skill * (1 + 0.02 * cell["k_shot"]), epochs, random)
    support = {"images": cell["k_shot"], "patients": cell["k_shot"] - 1, "unknown": 0}
    record = {
        "key": key,
        "status": "done",
        "cell": cell,
        "determined_by": determined_by(cell),
        "facts": {
            "untrained": kind != "trivial", "epochs": epochs, "epoch_choice": "last",
            "support": {"normal": support, "abnormal": support}, "trained_on": 2 * cell["k_shot"],
            "threshold_from": "validation", "zero_shot": False, "learns_abnormal": kind == "method",
        },
        "tests": [test],
        "measured": measured(int(key, 16)),
    }  # fmt: skip
    store.write(key, CellRecord.of_plain(record), arrays)


def _test(cell, skill, epochs, random):
    """Twelve patients of eight images each; the images of a draw are the same for every model."""
    shared = np.random.default_rng([3, cell["draw"], len(cell["tests"][0])])
    patient, number = np.divmod(np.arange(96), 8)
    label = number % 2
    sliced = cell["tests"][0] == "volumes"
    names = [f"p{p:02d}.nii.gz#{n}" if sliced else f"p{p:02d}_{n}.png" for p, n in
             zip(patient, number, strict=True)]  # fmt: skip
    score = 1 / (1 + np.exp(-(random.normal(size=96) + skill * (label - 0.5))))
    figures = {name: float(random.uniform(0.6, 0.9)) for name in METRICS}
    if cell["kind"] == "trivial":
        figures |= {name: None for name in METRICS if name.startswith(("pixel", "lesion"))}
    ranked = {k: v for k, v in figures.items() if not of_test_alone(k)}
    by_epoch = [{"epoch": n + 1, **{k: v and v - 0.02 * (epochs - 1 - n) for k, v in
                ranked.items()}} for n in range(epochs)]  # fmt: skip
    oracle = {**ranked, "image_ECE": None}
    figures = {k: v for k, v in figures.items() if k not in CHOSEN_ON_TEST}
    oracle = {k: v and min(1.0, v + 0.03 * (epochs > 1)) for k, v in oracle.items()}
    chosen = list(range(16))
    pictures, masks, maps = _pictures(shared, random, label[chosen], skill)
    points = np.linspace(0, 1, 50)
    test = {
        "data": cell["tests"][0], "object_name": "head", "has_masks": True,
        "honest": figures, "oracle": oracle, "oracle_epoch": max(1, epochs - 1),
        "epochs": by_epoch,
        "images": {"name": names, "patient": patient.tolist(), "label": label.tolist(),
                   "score": score.tolist(), "called": (score > 0.5).astype(int).tolist()},
        "levels": {level: _units(random) for level in ("volume", "patient")},
        "aggregated": "the mean of the 3 worst images, fixed",
        "patients": {"known_as": [f"{p:02d}" for p in range(12)], "unknown": 0},
        "influence": {name: {
            "value": figures[name], "patients": [f"{p:02d}" for p in range(12)],
            "parts": random.normal(0, 0.003, (12, 2)).tolist(), "images": [[8, 4]] * 12,
        } for name in METRICS
            if name.startswith(("pixel", "lesion")) and figures[name] is not None},
        "pixel_curves": None if cell["kind"] == "trivial" else {
            "false_positive_rate": points.tolist(), "recall": (points**0.3).tolist(),
            "precision": (1 - 0.8 * points).tolist()},
        "gallery": {
            "image": chosen,  # positions among images
            "volume": [names[i].split("#")[0] if sliced else "" for i in chosen],
            "slice": [int(number[i]) for i in chosen],
            "pictures": "test0_pictures", "masks": "test0_masks", "maps": "test0_maps",
        },
    }  # fmt: skip
    arrays = {"test0_pictures": pictures, "test0_masks": masks, "test0_maps": maps}
    if cell["kind"] == "trivial":
        test["gallery"]["maps"] = None
        arrays.pop("test0_maps")
    return test, arrays


def _units(random):
    """Twelve volumes of as many patients, every other one abnormal."""
    score = random.uniform(size=12)
    return {
        "patient": [f"{p:02d}" for p in range(12)], "label": [p % 2 for p in range(12)],
        "score": score.tolist(), "called": (score > 0.5).astype(int).tolist(), "threshold": 0.5,
    }  # fmt: skip


def _pictures(shared, random, label, skill):
    count = len(label)
    pictures = shared.integers(0, 120, (count, SIDE, SIDE), dtype=np.uint8)
    masks = np.zeros((count, SIDE, SIDE), dtype=np.uint8)
    masks[label == 1, 6:12, 8:16] = 255
    noise = random.uniform(0, 120, masks.shape)
    maps = np.clip(noise + 60 * skill * (masks > 0), 0, 255).astype(np.uint8)
    return pictures, masks, maps
