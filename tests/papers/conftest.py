"""Tests of the papers' tables ask no network."""

import pytest

from anomalib_medclip.papers import weights


@pytest.fixture(autouse=True)
def _in_reach(monkeypatch):
    """Weights of anomalib's models count as there, or as to be had."""
    monkeypatch.setattr(weights, "_offline", lambda: False)
