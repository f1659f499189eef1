"""Files that lie among data and are not taken: each is named, with the reason."""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

logger = logging.getLogger(__name__)


class LeftOut(NamedTuple):
    """A file that is not taken.

    Attributes:
        path: Where it lies.
        reason: Why, as the rest of a sentence that begins with the path; many files may share it.
        remedy: What to do if it should be taken.
    """

    path: Path
    reason: str
    remedy: str = "give it by itself if it should be read"

    @property
    def said(self) -> str:
        """What is said of it after its path, before the remedy."""
        return f"{self.reason}, and is left out"


def warn_of(left_out: Sequence[LeftOut]) -> None:
    """Log a warning for each reason why files are left out, with their number and the first."""
    for reason, count in Counter(one.reason for one in left_out).items():
        first = next(one for one in left_out if one.reason == reason)
        more = f" (1 of {count} such)" if count > 1 else ""
        logger.warning("%s %s%s; %s", first.path, first.said, more, first.remedy)
