"""Public names of a package, imported when they are first asked for."""

import ast
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def lazy_names(
    package: str, file: str, folders: str = ""
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """What a package needs to offer the names in the stub beside it.

    The stub is the one list: type checkers and editors read it, and so does this function. Each of
    its lines says ``from .module import Name as Name``, or ``from . import module as module``.

    Args:
        package: The package's ``__name__``.
        file: The package's ``__file__``, beside which lies ``__init__.pyi``.
        folders: Module that makes a folder of the package one of its kind: what the folder's own
            stub takes from there is offered, too, so that such a folder need not be listed.

    Returns:
        The package's ``__getattr__``, ``__dir__`` and ``__all__``.

    Example:
        >>> from anomalib_medclip import data
        >>> "BMAD" in dir(data)
        True
        >>> data.BMDA
        Traceback (most recent call last):
        AttributeError: anomalib_medclip.data has no 'BMDA'; it has BMAD, BMADLeaveOneOut, ...
    """
    stub = Path(file).with_suffix(".pyi")
    homes = _homes(stub)
    for path in stub.parent.glob(f"*/{folders}.py") if folders else ():
        of_folder = _homes(path.with_name(stub.name)).items()
        homes |= {name: path.parent.name for name, module in of_folder if module == folders}
    public = sorted(homes)

    def find(name: str) -> Any:  # noqa: ANN401 - a class or function, known only once imported
        if name not in homes:
            msg = f"{package} has no {name!r}; it has {', '.join(public)}"
            raise AttributeError(msg)
        from pkgutil import resolve_name  # costs the start of every command a millisecond

        if homes[name] is None:  # from . import name
            return import_module(f"{package}.{name}")
        return resolve_name(f"{package}.{homes[name]}:{name}")

    return find, public.copy, public


def _homes(stub: Path) -> dict[str, str | None]:
    """Names in a stub, and the module each is from; ``None`` where it is a module itself."""
    lines = ast.parse(stub.read_text(encoding="utf-8")).body
    imports = [line for line in lines if isinstance(line, ast.ImportFrom)]
    return {alias.name: line.module for line in imports for alias in line.names}
