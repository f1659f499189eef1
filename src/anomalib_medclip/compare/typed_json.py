"""Dataclasses from what JSON holds; what does not fit is told by its place."""

from collections.abc import Hashable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

_T = TypeVar("_T")

_LEAVES: Mapping[Any, tuple[type, ...]] = {
    float: (float, int), int: (int,), str: (str,), bool: (bool,),
}  # fmt: skip
"""Types that JSON may have where a field is of one; a whole number stands for itself."""


def from_plain(kind: type[_T], plain: object, place: str = "it") -> _T:
    """A dataclass from what JSON holds.

    Fields are numbers, words, dataclasses, tuples, dictionaries by word, ``Any``, or one of these
    or ``None``. A field with a default may be lacking; what no field is for is passed over.

    Args:
        kind: The dataclass.
        plain: What stands for it.
        place: What an error calls it.

    Raises:
        ValueError: Something is lacking, or is of another type.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Point:
        ...     x: float
        ...     name: str | None = None
        >>> from_plain(Point, {"x": 0.5})
        Point(x=0.5, name=None)
        >>> from_plain(Point, {"x": "far"})
        Traceback (most recent call last):
        ValueError: 'x' of it is 'far', and no float
    """
    found: Mapping[str, Any] = _of_type(plain, (dict,), "an object", place)
    given = {}
    for name, (of, required) in _fields(cast("Hashable", kind)).items():
        if name in found:
            given[name] = _read(of, found[name], f"{name!r} of {place}")
        elif required:
            msg = f"{name!r} of {place} is lacking"
            raise ValueError(msg)
    return kind(**given)


@cache
def _fields(kind: Any) -> dict[str, tuple[Any, bool]]:  # noqa: ANN401 - a dataclass
    """Type of each field, and whether it has no default."""
    hints = get_type_hints(kind)
    return {
        field.name: (
            hints[field.name],
            field.default is MISSING and field.default_factory is MISSING,
        )
        for field in fields(kind)
    }


def _read(kind: Any, plain: Any, place: str) -> Any:  # noqa: ANN401 - of any type
    of = get_args(kind)
    if kind is Any or (plain is None and NoneType in of):
        return plain
    if get_origin(kind) is UnionType:
        (kind,) = (one for one in of if one is not NoneType)
        return _read(kind, plain, place)
    if get_origin(kind) is tuple:
        return _tuple(of, plain, place)
    if get_origin(kind) is dict:
        found = _of_type(plain, (dict,), "an object", place).items()
        return {name: _read(of[1], value, f"{name!r} of {place}") for name, value in found}
    if is_dataclass(kind):
        return from_plain(kind, plain, place)  # type: ignore[arg-type] # of a type, not of an object
    return _of_type(plain, _LEAVES[kind], f"{kind.__name__}", place)


def _tuple(of: tuple[Any, ...], plain: Any, place: str) -> tuple[Any, ...]:  # noqa: ANN401
    found: list[Any] = _of_type(plain, (list, tuple), "list", place)
    if of[-1] is not Ellipsis and len(found) != len(of):
        msg = f"{place} holds {len(found)}, and not {len(of)}"
        raise ValueError(msg)
    if of[0] not in _LEAVES:
        return tuple(_read(of[0], one, f"{n} of {place}") for n, one in enumerate(found))
    for one in found:  # not each by a call, as there are as many as images
        if type(one) not in _LEAVES[of[0]]:
            _of_type(one, _LEAVES[of[0]], of[0].__name__, f"something of {place}")
    return tuple(found)


def _of_type(plain: Any, kinds: tuple[type, ...], word: str, place: str) -> Any:  # noqa: ANN401
    if type(plain) not in kinds:
        msg = f"{place} is {str(plain)[:40]!r}, and no {word.removeprefix('an ')}"
        raise ValueError(msg)
    return plain
