"""How often a normal patient scores so high: a p-value that holds whatever the scores are."""

from typing import NamedTuple

import numpy as np

from anomalib_medclip.decisions.reference import Reference


class PValue(NamedTuple):
    """The share of normal patients with such a score or a higher one.

    Attributes:
        value: Small where few normal patients score so high; for a new normal patient it is at
            most a with a probability of at most a, on average over references.
        smallest: The smallest that can be: 1 / (n + 1) of n normal patients.
        patients: n.
        is_approximate: Whether the reference is not quite like new patients.
    """

    value: float
    smallest: float
    patients: int
    is_approximate: bool


def p_value(score: float, reference: Reference) -> PValue | None:
    """Conformal p-value of a score among normal patients; ``None`` without any, and of NaN.

    Args:
        score: Of a new unit, aggregated as those of the reference.
        reference: Whose normal patients are to have had no part in training, memory, epoch,
            aggregation and threshold, or are marked as approximate.

    Example:
        >>> p_value(0.8, Reference((0.1, 0.2, 0.9), ()))
        PValue(value=0.5, smallest=0.25, patients=3, is_approximate=False)
    """
    count = len(reference.normal)
    if not count or not np.isfinite(score):
        return None
    as_high = count - int(np.searchsorted(reference.normal, score))
    share = (1 + as_high) / (count + 1)
    return PValue(share, 1 / (count + 1), count, reference.is_approximate)
