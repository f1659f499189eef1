"""What the labels of tables mean."""

import re
from collections.abc import Collection

from anomalib_medclip.data.patients import is_unknown
from anomalib_medclip.errors import DataRootError
from anomalib_medclip.readers.mask_names import alike

_NORMAL = ("0", "normal", "good", "healthy", "false")
_ABNORMAL = ("1", "abnormal", "ungood", "anomalous", "true")
_SAYS_NOTHING = ("?", "-1", "unknown", "unk", "uncertain", "missing", "undefined")
_WITH_EXPONENT = re.compile(r"\d(?:\.0+)?e[+]0\d")  # as numpy writes numbers


def plain_label(cell: str) -> str:
    """A label without what programs and people change in it: case, and how a number is written.

    >>> [plain_label(cell) for cell in ("1.0", "0,0", "Benign", "10", "1e+00")]
    ['1', '0', 'benign', '10', '1']
    """
    label = re.sub(r"(?<=\d)[.,]0*$", "", alike(cell))
    return str(int(float(label))) if _WITH_EXPONENT.fullmatch(label) else label


def class_label(cell: str) -> int | None:
    """0 or 1 for a label that says so in numbers, in words, or as true and false; else ``None``.

    Yes and no are none: they may answer whether something is there, or whether all is well.
    """
    label = plain_label(cell)
    return int(label in _ABNORMAL) if label in _NORMAL + _ABNORMAL else None


def label_of(cell: str, place: str, normal: Collection[str]) -> int:
    """0 or 1 for the label of a row.

    Args:
        cell: The label.
        place: Where it stands.
        normal: What means normal, where labels say more than that; then all others mean abnormal.

    Raises:
        DataRootError: It says neither.
    """
    plain = [plain_label(one) for one in normal]
    label = plain_label(cell)
    if label in plain:
        return 0
    if not cell:
        msg = f"{place} has label '', which is none; write it, or take the row out"
        raise DataRootError(msg)
    if not plain:
        found = class_label(cell)
        if found is None:
            words = " nor ".join(_NORMAL + _ABNORMAL)
            msg = f"{place} has label {cell!r}, which is neither {words}; name those that mean "
            msg += "normal by --data.normal_labels"
            raise DataRootError(msg)
        return found
    if is_unknown(cell) or label in _SAYS_NOTHING:
        msg = (
            f"{place} has label {cell!r}, which says neither normal nor abnormal; write which, "
            "take the row out, or name it by --data.normal_labels if it means normal"
        )
        raise DataRootError(msg)
    return 1
