"""The scores of several processes in one store, block by block."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from anomalib_medclip.metrics.keys import Words
from anomalib_medclip.metrics.score_store import ScoreStore

Gather = Callable[[npt.NDArray[Any]], list[npt.NDArray[Any]]]
"""Sends an array of signed whole numbers to all processes; gives theirs, by rank."""

_SIGNED = {4: np.int32, 8: np.int64}


def gathered(own: ScoreStore, into: ScoreStore, gather: Gather) -> ScoreStore:
    """Fill an empty store with the words of all processes; each must call this.

    Args:
        own: Scores of this process, kept as they are.
        into: An empty store of the same kind.
        gather: How processes exchange arrays, of lengths that may differ.
    """
    sizes = np.concatenate([[0], *own.region_sizes]).astype(np.int64)  # the 0 is never empty
    into.region_sizes = [found[1:] for found in gather(sizes)]
    counts = [len(found) for found in into.region_sizes]
    ahead = np.cumsum([0, *counts[:-1]])  # regions of the processes before each
    for kind in (0, 1):
        blocks = own.words(kind)
        while True:
            # What is sent is never empty: its first number says whether there is more behind.
            block = next(blocks, None)
            found = gather(_sent(block, own.word(kind)))
            if not any(one[0] for one in found):
                break
            for rank, one in enumerate(found):
                words = one[1:].view(own.word(kind))
                _add(into, kind, words, int(ahead[rank]))
    return into


def _sent(block: Words | None, word: np.dtype[Any]) -> npt.NDArray[Any]:
    """Torch sends signed numbers only; the bits are the same."""
    signed = _SIGNED[word.itemsize]
    if block is None:
        return np.zeros(1, dtype=signed)
    return np.concatenate([np.ones(1, dtype=signed), block.view(signed)])


def _add(into: ScoreStore, kind: int, words: Words, ahead: int) -> None:
    none = np.empty(0, dtype=words.dtype)
    if kind == 0:
        into.add_words(words, none)
    else:
        into.add_words(none.astype(np.uint32), words + words.dtype.type(ahead))
