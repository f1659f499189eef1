"""Numbers and names that users give, looked at before a library fails on them, or follows them."""

from math import inf, isfinite
from typing import Any, TypeVar, get_args

from anomalib_medclip.errors import ConfigError

_T = TypeVar("_T", int, float)
_C = TypeVar("_C")

SEEDS = 2**32 - 1
"""The largest seed that NumPy takes."""


def checked(name: str, value: _T, least: float, most: float = inf, *, whole: bool = False) -> _T:
    """A number, if it can be.

    Args:
        name: Of the option.
        value: What was given.
        least: The least that can be.
        most: The most that can be.
        whole: Whether fractions cannot be.

    Raises:
        ConfigError: It is no such number; NaN and infinity never are.

    Example:
        >>> checked("lr", float("nan"), 0)
        Traceback (most recent call last):
        anomalib_medclip.errors.ConfigError: lr is nan, and must be a number of at least 0
    """
    kinds = int if whole else (int, float)
    is_number = isinstance(value, kinds) and not isinstance(value, bool)
    if is_number and isfinite(value) and least <= value <= most:
        return value
    limits = f"of at least {least:g}" if most == inf else f"from {least:g} to {most:.10g}"
    kind = "whole number" if whole else "number"
    msg = f"{name} is {value!r}, and must be a {kind} {limits}"
    raise ConfigError(msg)


def checked_choice(name: str, value: _C, kind: Any) -> _C:  # noqa: ANN401 - a Literal
    """A word, if an option knows it; the command line looks by itself.

    Args:
        name: Of the option.
        value: What was given.
        kind: A ``Literal`` of the words there are.

    Raises:
        ConfigError: It is none of them.

    Example:
        >>> from typing import Literal
        >>> checked_choice("dice", "all", Literal["rows", "images"])
        Traceback (most recent call last):
        anomalib_medclip.errors.ConfigError: dice is 'all', and must be one of 'rows', 'images'
    """
    if value not in get_args(kind):
        known = ", ".join(map(repr, get_args(kind)))
        msg = f"{name} is {value!r}, and must be one of {known}"
        raise ConfigError(msg)
    return value


_LONGEST = 200
"""Bytes of a name; systems take 255, endings included."""


def checked_name(option: str, value: str) -> str:
    """A name that one file or folder can have, in the folder where it is looked for.

    Args:
        option: What it is the name of.
        value: What was given.

    Raises:
        ConfigError: It is empty, leads into another folder, or is too long.

    Example:
        >>> checked_name("name", "../brain")
        Traceback (most recent call last):
        anomalib_medclip.errors.ConfigError: name is '../brain', and must be the name of one file or
        folder: no path, and at most 200 bytes
    """
    leads_away = value in ("", ".", "..") or any(one in value for one in "/\\\0")
    if leads_away or len(value.encode(errors="surrogateescape")) > _LONGEST:
        msg = (
            f"{option} is {value[:_LONGEST]!r}, and must be the name of one file or folder: no "
            f"path, and at most {_LONGEST} bytes"
        )
        raise ConfigError(msg)
    return value
