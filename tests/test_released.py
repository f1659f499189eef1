"""Checkpoints and exports of released versions are read, and answer as they did then."""

import json
from pathlib import Path

import numpy as np
import pytest
from released.record import FILES, answers, bits, machine

import anomalib_medclip

RELEASED = sorted(path.parent for path in Path(__file__).parent.glob("released/*/bits.json"))


def test_there_is_a_released_version_to_read():
    assert [home.name for home in RELEASED] == ["0.1.0"]


METHODS = [
    pytest.param(home, kept.name, id=f"{home.name}-{kept.name}")
    for home in RELEASED
    for kept in sorted(home.iterdir())
    if (kept / FILES["checkpoint"][0]).is_file()
]
"""The methods of each version."""


def test_every_method_of_a_version_is_kept():
    assert [(home.values[0].name, home.values[1]) for home in METHODS] == [
        ("0.1.0", name) for name in ("iqeclip", "madclip", "mediclip", "mvfa")
    ]


@pytest.mark.parametrize(("home", "method"), METHODS)
@pytest.mark.parametrize("kind", FILES)
def test_a_released_model_answers_as_it_did(home, method, kind):
    kept = home / method
    found = answers(kept / FILES[kind][0], home / "pictures")
    with np.load(kept / f"{kind}.npz") as expected:
        clear = abs(expected["scores"] - 0.5) > 1e-4  # some lie on the threshold itself
        assert np.array_equal(found["labels"][clear], expected["labels"][clear])
        for name in ("scores", "maps"):
            np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-5)
    noted = json.loads((home / "bits.json").read_text())
    if machine(kind) in noted:  # another processor rounds otherwise
        name = anomalib_medclip.get_model(method).__name__
        assert bits(found) == noted[machine(kind)][name]
