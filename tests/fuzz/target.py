"""What is attempted: whole inputs, ways to damage them, and how a user has them read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fuzz.attempts import MOST_MEMORY


@dataclass(frozen=True)
class Target:
    """A kind of file that this package loads.

    Attributes:
        name: What tables call it.
        whole: Each writes an undamaged input to a folder, and returns the file to damage.
        damage: Ways to damage it.
        read: Reads the damaged file, as a user has it read; asserts that a result is one.
        mend: Makes what belongs to a damaged file fit it, such as its hash elsewhere.
        memory: Bytes that an attempt may add.
        names: What else an error may name: files that the damaged one names, say.
        slow: Whether an attempt takes tenths of a second.
    """

    name: str
    whole: tuple[Callable[[Path], Path], ...]
    damage: tuple[Callable, ...]
    read: Callable[[Path], None]
    mend: Callable[[Path], None] = lambda file: None
    memory: int = MOST_MEMORY
    names: tuple[str, ...] = ()
    slow: bool = False


def legal(*arrays, top=1.0):
    """Assert that arrays have numbers, all of them finite and from zero to a top."""
    for one in map(np.asarray, arrays):
        assert one.size, "an empty result"
        assert np.isfinite(one).all(), "a result that is not finite"
        assert one.min() >= 0, f"a result of {one.min()}"
        assert one.max() <= top, f"a result of {one.max()}"


def writing(name, write, *args, **options):
    """Write one file of this name by ``write(path, ...)``."""

    def whole(folder):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, *args, **options)
        return path

    return whole


def text(name, content):
    """Write a text file."""
    return writing(name, lambda path: path.write_text(content))
