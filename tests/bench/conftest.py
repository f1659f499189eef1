"""What a bench in the suite does without, where only times are wanted."""

import pytest

from anomalib_medclip.bench import roofline


@pytest.fixture(autouse=True)
def small_product(monkeypatch):
    """A plain product that takes no second: its rate means nothing here."""
    monkeypatch.setitem(roofline._SIDE, "cpu", 64)
