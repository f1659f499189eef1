"""Public names of a package, imported when they are first asked for."""

import ast
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def lazy_names(
    package: str, file: str
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """What a package needs to offer the names in the stub beside it.

    The stub is the one list: type checkers and editors read it, and so does this function. Each of
    its lines says ``from .module import Name as Name``, or ``from . import module as module``.

    Args:
        package: The package's ``__name__``.
        file: The package's ``__file__``, beside which lies ``__init__.pyi``.

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
    stub = ast.parse(Path(file).with_suffix(".pyi").read_text(encoding="utf-8"))
    lines = [line for line in stub.body if isinstance(line, ast.ImportFrom)]
    homes = {alias.name: line.module for line in lines for alias in line.names}
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
