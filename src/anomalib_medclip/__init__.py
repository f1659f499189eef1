"""CLIP adapters for few-shot medical anomaly detection, as anomalib models.

``anomalib_medclip.MVFA`` and its like are models, ``data`` and ``metrics`` hold what goes with
them, ``Inferencer`` scores images with what was trained or exported. All are imported when they are
first asked for; ``__init__.pyi`` lists them. A method that is not listed there is found by its
class's name, be it a folder of ``models`` or another package's; see ``anomalib_medclip.models``.
"""

from typing import Any

from anomalib_medclip.lazy import lazy_names

__version__ = "0.2.0"

_listed, __dir__, __all__ = lazy_names(__name__, __file__)


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class or module, known only once imported
    """A listed name, or the class of any method.

    Raises:
        AttributeError: There is none; it says which there are.
        PluginError: Another package's method of this name cannot be used.
    """
    if name in __all__ or name.startswith("_"):
        return _listed(name)
    from anomalib_medclip.models import get_model, list_models  # not needed for what is listed

    if name.lower() in list_models():
        found = get_model(name)
        if found.__name__ == name:
            return found
    there = ", ".join(__all__)
    msg = f"{__name__} has no {name!r}; it has {there}; models: {', '.join(list_models())}"
    raise AttributeError(msg)
