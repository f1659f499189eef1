"""Checkpoints and exports of released versions are read, and answer as they did then."""

import json
from pathlib import Path

import numpy as np
import pytest
from released.record import FILES, answers, bits, machine
from tiny import METHODS

RELEASED = sorted(path.parent for path in Path(__file__).parent.glob("released/*/bits.json"))


def test_there_is_a_released_version_to_read():
    assert [home.name for home in RELEASED] == ["0.1.0"]


@pytest.mark.parametrize("home", RELEASED, ids=lambda home: home.name)
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
@pytest.mark.parametrize("kind", FILES)
def test_a_released_model_answers_as_it_did(home, method, kind):
    kept = home / method.__name__.lower()
    found = answers(kept / FILES[kind][0], home / "pictures")
    with np.load(kept / f"{kind}.npz") as expected:
        clear = abs(expected["scores"] - 0.5) > 1e-4  # some lie on the threshold itself
        assert np.array_equal(found["labels"][clear], expected["labels"][clear])
        for name in ("scores", "maps"):
            np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-5)
    noted = json.loads((home / "bits.json").read_text())
    if machine(kind) in noted:  # another processor rounds otherwise
        assert bits(found) == noted[machine(kind)][method.__name__]
