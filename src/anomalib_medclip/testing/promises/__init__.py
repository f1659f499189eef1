"""What every method promises; a promise is a function of a ``MethodCase`` that raises if broken.

The first line of its docstring says it in a sentence.
"""

from anomalib_medclip.testing.promises import (
    answering,
    declaring,
    encoding,
    exporting,
    learning,
    saving,
)
from anomalib_medclip.testing.promises.promise import Promise, promises_of

PROMISES: tuple[Promise, ...] = tuple(
    promise
    for module in (declaring, learning, encoding, answering, saving, exporting)
    for promise in promises_of(module)
)
"""All of them, those that cost little first."""

__all__ = ["PROMISES", "Promise"]
