"""Valid files as other programs write them: each with what it holds, known before it was written.

A file is a name and a function that writes it and returns where it lies and what it should be read
as, in [0, 1]; of what is refused, nothing.
"""

import imagecodecs
import numpy as np

WINDOW = (-1000.0, 2000.0)
"""The one policy by which all numbers of more than 8 bits are read here."""

READS_FAXES = hasattr(imagecodecs, "ccittfax4_decode")
"""Whether what is installed reads them; else they are refused by name, which other tests try."""

TYPES = {
    "u1": (0, 255), "i1": (-128, 127), "u2": (0, 2000), "i2": (-1000, 2000), "u4": (0, 2000),
    "i4": (-1000, 2000), "u8": (0, 2000), "i8": (-1000, 2000),
}  # fmt: skip
"""Numbers of a type that the window tells apart."""


def drawn(kind, *shape, seed=0):
    """Numbers of a type, as ``u2``; real ones have fractions."""
    random = np.random.default_rng([seed, *kind.encode()])
    if kind.startswith("f"):
        return random.uniform(-900, 1900, shape).astype(kind)
    low, high = TYPES[kind]
    return random.integers(low, high, shape, dtype=kind, endpoint=True)


def windowed(numbers):
    """Where numbers lie in the window."""
    low, high = WINDOW
    return np.clip((np.asarray(numbers, np.float64) - low) / (high - low), 0, 1)


def shown(numbers, bits=8):
    """Numbers of a picture: those of at most 8 bits without a sign as they are, others windowed."""
    numbers = np.asarray(numbers)
    return numbers / (2**bits - 1) if numbers.dtype == np.uint8 else windowed(numbers)


def ending(base, suffix):
    """The file of a name, in a folder that is made."""
    base.parent.mkdir(parents=True, exist_ok=True)
    return base.with_name(base.name + suffix)
