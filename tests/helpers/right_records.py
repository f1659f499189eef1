"""Records whose image figures are those of their scores, one cell at a time."""

import zlib

import numpy as np
from compare_results import determined_by, measured
from sklearn.metrics import average_precision_score, roc_auc_score

from anomalib_medclip.compare.cell_record import CellRecord, ComparisonGrid


def right_record(model, draw=0, skill=1.0, *, seed=0, k=4, patients=20, facts=None, **cell):
    """A finished cell; the images of a draw are the same for every model, the scores are not."""
    cell = {
        "model": model, "kind": "method", "normals": "support", "data": "heads",
        "tests": ["heads"], "k_shot": k, "draw": draw, "seed": seed, "note": "", "keeps": [],
        "model_config": {"class_path": f"made_up.{model}"}, "data_configs": {}, **cell,
    }  # fmt: skip
    key = "-".join(map(str, (model, cell["normals"], cell["data"], k, draw, seed)))
    cell["key"] = key
    random = np.random.default_rng([zlib.crc32(key.encode()), draw])
    patient, number = np.divmod(np.arange(4 * patients), 4)
    label = number % 2
    score = 1 / (1 + np.exp(-random.normal(skill * (label - 0.5))))
    honest = {
        "image_AUROC": float(roc_auc_score(label, score)),
        "image_AP": float(average_precision_score(label, score)),
        "pixel_AUROC": None,
    }
    images = {
        "name": [f"p{p:02d}_{n}.png" for p, n in zip(patient, number, strict=True)],
        "patient": patient.tolist(), "label": label.tolist(), "score": score.tolist(),
        "called": (score > 0.5).astype(int).tolist(),
    }  # fmt: skip
    tests = [
        {
            "data": name, "object_name": "head", "has_masks": False, "honest": honest,
            "oracle": {"image_AUROC": min(1.0, honest["image_AUROC"] + 0.02)}, "oracle_epoch": 1,
            "epochs": [], "images": images, "pixel_curves": None, "gallery": None,
            "patients": {"known_as": [f"p{p:02d}" for p in range(patients)], "unknown": 0},
            "influence": {},
        }
        for name in cell["tests"]
    ]  # fmt: skip
    known = {
        "untrained": False, "epochs": 4, "epoch_choice": "last", "zero_shot": False,
        "learns_abnormal": True, "threshold_from": "validation", "support": {}, "trained_on": 8,
    }  # fmt: skip
    return {
        "key": key, "status": "done", "cell": cell, "facts": {**known, **(facts or {})},
        "tests": tests, "measured": measured(draw), "determined_by": determined_by(cell),
    }  # fmt: skip


def failed_record(record):
    """The same cell, had it raised."""
    error = {"type": "RuntimeError", "message": "out of memory", "traceback": ""}
    key = f"{record['key']}-failed"
    cell = {**record["cell"], "key": key}
    return {"key": key, "status": "failed", "cell": cell, "error": error,
            "determined_by": record["determined_by"], "measured": measured(0)}  # fmt: skip


def with_figure(record, metric, value, protocol="honest"):
    """The same record with another figure."""
    tests = [{**test, protocol: {**test[protocol], metric: value}} for test in record["tests"]]
    return {**record, "tests": tests}


def typed(records):
    """Records as the store gives them, of what their files hold."""
    return [CellRecord.of_plain(record) for record in records]


def grid_of(records, **more):
    """The grid that would have planned these records."""
    cells = [record["cell"] for record in records]
    return ComparisonGrid.of_plain({
        "title": "Right results", "command": "anomalib-medclip compare right.yaml",
        "versions": {"anomalib": "2.7.0"}, "cells": cells, "published": {}, **more,
    })  # fmt: skip
