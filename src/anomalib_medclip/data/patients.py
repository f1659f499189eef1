"""Which names of patients mean the same one, and which mean that nobody knows."""

import re
from collections.abc import Iterable

from anomalib_medclip.readers.mask_names import alike

_UNKNOWN = ("", "nan", "na", "n/a", "<na>", "#n/a", "nat", "none", "null")
"""What programs write where a table holds nothing, in lower case."""


def patient_key(name: str) -> str:
    """What the spellings of a patient have in common.

    They may differ in case, blanks, how letters are composed, and the zeros of a fraction, which
    tables get where a number is missing. Leading zeros tell patients apart.

    >>> [patient_key(name) for name in ("P 01", "p  01", "7.0", "7", "007", "1.5")]
    ['p 01', 'p 01', '7', '7', '007', '1.5']
    """
    return re.sub(r"^([-+]?\d+)[.,]0*$", r"\1", " ".join(alike(name).split()))


def is_unknown(name: str, unknown: str = "") -> bool:
    """Whether a cell names nobody.

    Args:
        name: The cell.
        unknown: What stands for no patient, besides nothing and what programs write for it.

    Example:
        >>> [is_unknown(name, unknown="-1") for name in ("", "NaN", "-1.0", "0")]
        [True, True, True, False]
    """
    return patient_key(name) in (*_UNKNOWN, patient_key(unknown))


def first_spellings(names: Iterable[str]) -> list[str]:
    """Each patient as first spelt.

    >>> first_spellings(["P1", "p1", "7.0", "7"])
    ['P1', 'P1', '7.0', '7.0']
    """
    first: dict[str, str] = {}
    return [first.setdefault(patient_key(name), name) for name in names]
