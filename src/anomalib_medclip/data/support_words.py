"""What a support is made of, in words."""

import logging
from collections.abc import Mapping

logger = logging.getLogger(__name__)


def say_support(where: str, counts: Mapping[str, Mapping[str, int]]) -> None:
    """Say in the log what the support of some data is made of, as ``count_support`` counts it."""
    logger.info("the support of %s: %s", where, in_words(counts))


def in_words(counts: Mapping[str, Mapping[str, int]]) -> str:
    """The counts of ``count_support`` as a sentence.

    Example:
        >>> in_words({"normal": {"images": 4, "patients": 2, "unknown": 0},
        ... "abnormal": {"images": 4, "patients": 4, "unknown": 3}})
        '4 normal images of 2 patients, 4 abnormal images of 4 patients (3 images of unknown ones)'
    """
    return ", ".join(_class_in_words(word, found) for word, found in counts.items()) or "no image"


def _class_in_words(word: str, found: Mapping[str, int]) -> str:
    said = f"{_count(found['images'], f'{word} image')} of {_count(found['patients'], 'patient')}"
    if unknown := found["unknown"]:
        said += f" ({_count(unknown, 'image')} of unknown ones)"
    return said


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"
