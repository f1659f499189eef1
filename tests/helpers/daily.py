"""Which tests of which methods run every day; ``conftest`` leaves the others to the night."""

from pathlib import Path

from anomalib_medclip import baselines
from anomalib_medclip.models import list_models

THOROUGH = {"iqeclip", "madclip", "mediclip", "mvfa"}
"""Methods of which all is asked daily; of any other the smoke, and its first golden case."""

SMOKE = {"learns"}
"""Promises that are asked of every method daily."""

RIVALS = {path.parent.name for path in Path(baselines.__path__[0]).glob("*/lightning_model.py")}
"""Baselines that are a folder."""

OTHERS = {*list_models(), *RIVALS, "medclip"} - THOROUGH
"""Of these a smoke daily; of the baselines beside the folders only the largest."""


def waits(parameter):
    """Whether a test with this parameter waits for the night.

    That may be a method, its name, its case, a promise asked of it, or the folder of a golden case.
    """
    if isinstance(parameter, Path):
        return parameter.name != "case0" and waits(parameter.parent.name)
    if case := getattr(parameter, "case", None):
        return parameter.name not in SMOKE and waits(case)
    return str(title(parameter)).lower().replace("_", "") in OTHERS


def title(parameter):
    """The name of a method, or of its case; anything else as it is."""
    return getattr(parameter, "__name__", getattr(parameter, "name", parameter))
