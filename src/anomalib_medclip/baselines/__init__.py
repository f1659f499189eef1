"""Models to compare with that are not methods of this package: anomalib's, put right."""

from importlib import import_module
from typing import Any

_HOME = {"ImageSize": "trivial", "MeanIntensity": "trivial", "WinCLIP": "winclip"}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a model class, known only once imported
    """Import the module of a baseline when its class is first asked for."""
    if name not in _HOME:
        msg = f"{__name__} has no {name!r}; it has {', '.join(_HOME)}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
