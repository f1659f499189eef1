"""An image file becomes a batch: what a data config may name."""

from importlib import import_module
from typing import Any

_HOME = {
    "BMAD": "bmad",
    "BMADLeaveOneOut": "bmad",
    "Industrial": "industrial",
    "MedicalFolder": "folder",
    "Phantoms": "phantoms",
    "VolumeSource": "cases",
    "Volumes": "volumes",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a datamodule class, known only once imported
    """Import the module of a datamodule when its class is first asked for."""
    if name not in _HOME:
        msg = f"{__name__} has no {name!r}; it has {', '.join(_HOME)}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
