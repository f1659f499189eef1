"""A bench that takes no time: its setting, its run, and what every row has."""

import math

import pytest

import anomalib_medclip
from anomalib_medclip.bench import machine, output
from anomalib_medclip.bench.settings import SMALL, Setting
from anomalib_medclip.provenance import packages

TINY = Setting(backbone=SMALL, image_size=32, batch_size=2, rounds=2, at_least=0.0)
METHODS = anomalib_medclip.list_models()
RUN = {"id": "first", "command": "bench", "hardware": machine.hardware()}
RUN["versions"] = packages()


def is_sound(row):
    """All columns are known, and every time is one."""
    assert set(row) <= set(output.CSV_COLUMNS)
    for name in ("ms_per_image", "reference_ms_per_image", "images_per_second", "load_s"):
        assert 0 < row[name] < math.inf
    assert 0 < row["ratio_low"] <= row["ratio"] <= row["ratio_high"] < math.inf
    assert row["images_per_second"] == pytest.approx(1e3 / row["ms_per_image"])
    return True
