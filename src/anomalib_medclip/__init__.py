"""CLIP adapters for few-shot medical anomaly detection, as anomalib models.

Every folder of ``models/`` that holds a ``lightning_model.py`` is a method, and is found by name:
``anomalib_medclip.MVFA`` imports ``anomalib_medclip.models.mvfa`` when it is first asked for.
``anomalib_medclip.Inferencer`` scores images with what was trained or exported.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

from anomalib_medclip import models

__version__ = "0.1.0"


def list_models() -> list[str]:
    """Names of the method folders, in alphabetical order."""
    found = (Path(folder).glob("*/lightning_model.py") for folder in models.__path__)
    return sorted(path.parent.name for paths in found for path in paths)


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a method's class, known only once imported
    """Import the method folder ``models/<name in lower case>`` and return its class."""
    if name == "Inferencer":
        return import_module(f"{__name__}.score.inferencer").Inferencer
    if name.startswith("_") or name.lower() not in list_models():
        msg = f"{__name__} has no model {name!r}; models: {', '.join(list_models())}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.models.{name.lower()}"), name)
