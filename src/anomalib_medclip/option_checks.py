"""Numbers that users give, looked at before a library fails on them in words of its own."""

from math import inf, isfinite
from typing import TypeVar

from anomalib_medclip.errors import ConfigError

_T = TypeVar("_T", int, float)

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
