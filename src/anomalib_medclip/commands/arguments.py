"""Words of the command line become what they mean."""

import argparse
from typing import Any

import yaml


def at_least_one(word: str) -> int:
    """How many, and some."""
    number = int(word)
    if number < 1:
        msg = f"{number} is less than 1"
        raise argparse.ArgumentTypeError(msg)
    return number


def count(word: str) -> int:
    """How many; 0 for none."""
    number = int(word)
    if number < 0:
        msg = f"{number} is less than 0"
        raise argparse.ArgumentTypeError(msg)
    return number


def plain(word: str) -> Any:  # noqa: ANN401 - anything YAML holds
    """What a word says as YAML."""
    try:
        return yaml.safe_load(word)
    except yaml.YAMLError as error:
        msg = f"{word!r} is not YAML"
        raise argparse.ArgumentTypeError(msg) from error
