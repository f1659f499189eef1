"""The page of a comparison of words: one file, which needs nothing else."""

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def word_sets_page(record: Mapping[str, Any]) -> str:
    """HTML of what ``prompts.json`` holds.

    Args:
        record: As it is written there.
    """
    environment = Environment(
        loader=PackageLoader("anomalib_medclip.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("word_sets.html").render(record)
