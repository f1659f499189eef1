"""BGAD's step size: a cosine over meta epochs, after a warm-up over the first two."""

import math

WARM = 2
"""Meta epochs of the warm-up."""

_LEAST = 1e-3
"""Of the step size, at the end."""

_FIRST = 0.1
"""Of the step size, at the start of the warm-up."""


def cosine(lr: float, meta: int, metas: int) -> float:
    """Step size of a meta epoch after the warm-up.

    Args:
        lr: The largest.
        meta: Which meta epoch, from 0.
        metas: How many there are.

    Example:
        >>> round(cosine(2e-4, 24, 25), 10)
        9.877e-07
    """
    least = lr * _LEAST
    return least + (lr - least) * (1 + math.cos(math.pi * meta / metas)) / 2


def step_size(lr: float, meta: int, metas: int, done: float) -> float:
    """Step size at a place of a meta epoch; in the warm-up it rises in equal steps.

    The authors' warm-up counts loaders for batches, and ends above the cosine where there are many
    batches; this is what it is meant to be.

    Args:
        lr: The largest.
        meta: Which meta epoch, from 0.
        metas: How many there are.
        done: Share of the meta epoch that is done.

    Example:
        >>> [round(step_size(2e-4, meta, 25, 0.0), 8) for meta in (0, 1, 2)]
        [2e-05, 0.00010843, 0.00019686]
    """
    if meta >= WARM:
        return cosine(lr, meta, metas)
    # Of a training so short that the cosine would have ended by then, too, it rises.
    first, last = lr * _FIRST, cosine(lr, WARM, max(metas, 2 * WARM))
    return first + (last - first) * (meta + done) / WARM
