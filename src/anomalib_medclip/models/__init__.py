"""The methods: every folder here is one, and other packages may bring more.

A folder is found by its ``lightning_model.py``, and is called as its class, in lower case, with
underscores where they help to read it. Another package names its class in an entry point of the
group ``anomalib_medclip.models``:

.. code-block:: toml

    [project.entry-points."anomalib_medclip.models"]
    probe = "my_package.probe:Probe"

So named, it is a model like those here: ``anomalib_medclip.Probe``, ``bench --method probe``,
checkpoints that ``Inferencer`` and ``score`` read.
"""

import sys
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from anomalib_medclip.errors import PluginError, UnknownNameError

if TYPE_CHECKING:
    from anomalib.models.components.base import AnomalibModule

GROUP = "anomalib_medclip.models"
"""Entry points of other packages' methods."""


def list_models() -> list[str]:
    """Names of all methods, in alphabetical order; none is imported.

    Example:
        >>> {"iqeclip", "madclip", "mediclip", "mvfa"} <= set(list_models())
        True
    """
    return sorted({*_folders(tuple(__path__)), *(_plain(entry.name) for entry in _entries())})


def get_model(name: str) -> "type[AnomalibModule]":
    """The class of a method; no other method is imported.

    Args:
        name: Of the method, or of its class: ``"mvfa"`` or ``"MVFA"``.

    Raises:
        UnknownNameError: There is no such method.
        PluginError: Two packages bring it, or what one brings cannot be used.
    """
    wanted = _plain(name)
    found = [entry for entry in _entries() if _plain(entry.name) == wanted]
    if folder := _folders(tuple(__path__)).get(wanted):
        found.append(_entry_of_folder(wanted, folder))
    if not found:
        msg = f"no model {name!r}; there are {', '.join(list_models())}: correct the name, or "
        msg += "install the package that brings it"
        raise UnknownNameError(msg)
    if len(found) > 1:
        owners = " and ".join(sorted(map(_package, found)))
        msg = f"the model {wanted} is brought by {owners}; uninstall one of them"
        raise PluginError(msg)
    return _load(found[0])


@cache
def _folders(places: tuple[str, ...]) -> dict[str, str]:
    """Names of folders by the names of their methods."""
    found = (Path(folder).glob("*/lightning_model.py") for folder in places)
    return {_plain(path.parent.name): path.parent.name for paths in found for path in paths}


def _entries() -> tuple[EntryPoint, ...]:
    """Other packages' methods; the command line asks for thousands of names that are none."""
    return _entries_on(tuple(sys.path))


@cache
def _entries_on(_search_path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=GROUP))  # which reads what every installed package says


def _plain(name: str) -> str:
    """Of a class, of a folder or of an entry point: what they have in common."""
    return name.lower().replace("_", "")


def _entry_of_folder(name: str, folder: str) -> EntryPoint:
    card = import_module(f"{__name__}.{folder}")
    named = next((one for one in card.__all__ if _plain(one) == name), name)
    return EntryPoint(name, f"{card.__name__}:{named}", GROUP)


def _load(entry: EntryPoint) -> "type[AnomalibModule]":
    from anomalib.models.components.base import AnomalibModule  # not needed to list names

    owner = _package(entry)
    named = f"the model {entry.name} of the package {owner}, {entry.value},"
    try:
        found = entry.load()
    except Exception as error:  # whatever another's code raises when it is imported
        msg = f"{named} cannot be imported: {error!r}; update or uninstall {owner}"
        raise PluginError(msg) from error
    is_model = isinstance(found, type) and issubclass(found, AnomalibModule)
    if not is_model or _plain(found.__name__) != _plain(entry.name):
        msg = f"{named} is no AnomalibModule of that name; update or uninstall {owner}"
        raise PluginError(msg)
    return found


def _package(entry: EntryPoint) -> str:
    """The distribution that brings a method, by the name to install or uninstall it by."""
    return entry.dist.name if entry.dist else "anomalib-medclip"
