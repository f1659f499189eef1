"""Numbers and names that users give, looked at before a library fails on them, or follows them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from inspect import Signature
from math import inf, isfinite
from types import UnionType
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

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


def check_choices(options: Mapping[str, Any], known: Signature) -> None:
    """Refuse a word that an option does not know; the command line does so by itself.

    Raises:
        ConfigError: It names option, word and those there are.
    """
    for name, option in known.parameters.items():
        kinds = get_args(option.annotation) if _is_union(option.annotation) else [option.annotation]
        if any(get_origin(kind) is not Literal for kind in kinds if kind is not type(None)):
            continue
        words = [word for kind in kinds for word in get_args(kind)]
        allowed = [*words, None] if type(None) in kinds else words
        if name in options and options[name] not in allowed:
            msg = f"{name} is {options[name]!r}, and must be one of {', '.join(map(repr, words))}"
            raise ConfigError(msg)


def _is_union(annotation: Any) -> bool:  # noqa: ANN401 - of any option
    return get_origin(annotation) in (Union, UnionType)


class Idle(NamedTuple):
    """Options that have no effect beside others.

    Attributes:
        names: Of these options.
        beside: Whether it is so, of all options by name.
        words: What they are beside, for messages.
    """

    names: tuple[str, ...]
    beside: Callable[[Mapping[str, Any]], bool]
    words: str


def idle_options(
    given: Mapping[str, Any], defaults: Mapping[str, Any], known: Iterable[Idle]
) -> Iterator[str]:
    """Sentences about options that were given and have no effect.

    Args:
        given: All options by name.
        defaults: What they are where nobody says anything.
        known: Where options have none.

    Example:
        >>> known = [Idle(("causal",), lambda given: given["prompts"] == "fixed", "prompts: fixed")]
        >>> given, defaults = {"prompts": "fixed", "causal": True}, {"causal": False}
        >>> list(idle_options(given, defaults, known))
        ['causal is True, and has no effect beside prompts: fixed']
    """
    for idle in known:
        for name in idle.names:
            if (
                name in given
                and given[name] != defaults.get(name, given[name])
                and idle.beside(given)
            ):
                yield f"{name} is {given[name]!r}, and has no effect beside {idle.words}"


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
