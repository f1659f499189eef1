"""Files that lie among data and are none of them."""

from pathlib import Path
from typing import NamedTuple


class LeftOut(NamedTuple):
    """A file that is not taken.

    Attributes:
        path: Where it lies.
        reason: Why, as the rest of a sentence that begins with the path.
    """

    path: Path
    reason: str
