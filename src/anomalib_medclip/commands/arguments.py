"""Words of the command line become what they mean."""

import argparse
from contextlib import suppress
from typing import Any

import yaml


def at_least_one(word: str) -> int:
    """How many, and some."""
    return _from(1, word)


def count(word: str) -> int:
    """How many; 0 for none."""
    return _from(0, word)


def plain(word: str) -> Any:  # noqa: ANN401 - anything YAML holds
    """What a word says as YAML."""
    try:
        return yaml.safe_load(word)
    except yaml.YAMLError as error:
        msg = f"{word!r} is not YAML"
        raise argparse.ArgumentTypeError(msg) from error


def pair(word: str) -> tuple[str, str]:
    """``NAME=VALUE`` as two words."""
    name, is_one, value = word.partition("=")
    if not (name and is_one):
        msg = f"{word!r} is no pair; give NAME=VALUE, such as EchoNumbers=2"
        raise argparse.ArgumentTypeError(msg)
    return name, value


def share(word: str) -> tuple[int, int]:
    """``I/N`` as numbers, I from 0."""
    number, slash, of = word.partition("/")
    if not (slash and number.isdigit() and of.isdigit() and int(number) < int(of)):
        msg = f"{word!r} is no share; give I/N with I from 0 to N - 1, such as 0/8"
        raise argparse.ArgumentTypeError(msg)
    return int(number), int(of)


def proportion(word: str) -> float:
    """A number between 0 and 1."""
    with suppress(ValueError):
        if 0 < (number := float(word)) < 1:
            return number
    msg = f"{word!r} is no number between 0 and 1; give a share, such as 0.1"
    raise argparse.ArgumentTypeError(msg)


def _from(least: int, word: str) -> int:
    number = int(word)
    if number < least:
        msg = f"{number} is less than {least}"
        raise argparse.ArgumentTypeError(msg)
    return number
