"""What DICOM headers say of an attribute, as text: to be compared, shown and asked for."""

from collections.abc import Iterable, Mapping, MutableSequence, Sequence
from contextlib import suppress
from difflib import get_close_matches
from math import isclose
from typing import Any, TypeAlias

from anomalib_medclip.errors import ConfigError
from anomalib_medclip.readers.dicom_frames import Slice
from anomalib_medclip.readers.dicom_header import value_of

DicomWhere: TypeAlias = Mapping[str, str | int | float]
"""Values that attributes of DICOM must have, by keyword, or by tag as ``"0019,100C"``."""

Values: TypeAlias = tuple[str, ...]
"""One text for each value of an attribute."""

OF_PATIENT = 0x0010
"""The group of attributes whose values name a patient, and so stand in no message."""

_NOTHING = "none"
_SAME = 1e-4  # of a number, such as a direction cosine or a spacing
_MOST_NAMED = 6
MOST_LETTERS = 60
"""Of values that are shown."""


def values(header: Any, keyword: str) -> Values:  # noqa: ANN401 - a pydicom dataset
    """What a header says as text, number by number; nothing where it says nothing or too much."""
    from pydicom.sequence import Sequence

    said = value_of(header, _key(keyword))
    said = getattr(said, "value", said)  # of an element, which a tag gives
    if isinstance(said, Sequence):
        return ()
    if isinstance(said, bytes):  # of a private element, whose kind nobody knows
        said = said.decode("latin-1").strip(" \0").split("\\")
    several = list(said) if isinstance(said, MutableSequence) else [said]
    return () if said is None else tuple(map(str, several))


def _key(keyword: str) -> Any:  # noqa: ANN401 - what pydicom looks up
    """A keyword of DICOM, or a tag that is written as one.

    Raises:
        ConfigError: It is neither.
    """
    from pydicom.datadict import keyword_dict

    if keyword in keyword_dict:
        return keyword
    with suppress(ValueError):
        group, element = (int(part, 16) for part in keyword.strip("()").split(","))
        return (group, element)
    like = get_close_matches(keyword, keyword_dict, n=3)
    remedy = f"did you mean {', '.join(like)}?" if like else "give a keyword such as EchoNumbers"
    msg = f"{keyword!r} is no attribute of DICOM; {remedy}"
    raise ConfigError(msg)


def says(said: Values, wanted: str) -> bool:
    """Whether what is wanted is all that is said, or one of several; ``none`` is nothing said."""
    said = said or (_NOTHING,)
    return _alike(said, tuple(wanted.split("\\"))) or any(_is_same(one, wanted) for one in said)


def _alike(one: Values, other: Values) -> bool:
    """Whether two say the same, numbers up to their rounding."""
    return one == other or (len(one) == len(other) and all(map(_is_same, one, other)))


def _is_same(one: str, other: str) -> bool:
    with suppress(ValueError):
        return one == other or isclose(float(one), float(other), rel_tol=0, abs_tol=_SAME)
    return False


def by_value(slices: Iterable[Slice], keyword: str) -> list[tuple[Values, list[Slice]]]:
    """Slices by what they say, in the order in which it is first said."""
    exactly: dict[Values, list[Slice]] = {}
    for one in slices:
        exactly.setdefault(values(one.header, keyword), []).append(one)
    found: list[tuple[Values, list[Slice]]] = []
    for said, those in exactly.items():
        for other, group in found:
            if _alike(said, other):
                group += those
                break
        else:
            found.append((said, those))
    return found


def listed(slices: Sequence[Slice], keyword: str) -> str:
    """The values of an attribute, and how many slices have each, or which one."""
    parts = by_value(slices, keyword)
    named = []
    for said, those in parts[:_MOST_NAMED]:
        which = those[0].path.name if len(those) == 1 else f"{len(those)} slices"
        named.append(f"{joined(keyword, said)} ({which})")
    if (more := len(parts) - _MOST_NAMED) > 0:
        named.append(f"and {more} more")
    return ", ".join(named)


def joined(keyword: str, said: Values) -> str:
    """Values as DICOM writes them, but those that name a patient."""
    from pydicom.datadict import tag_for_keyword

    if (tag_for_keyword(keyword) or 0) >> 16 == OF_PATIENT:
        return "..."
    return "\\".join(said)[:MOST_LETTERS] or _NOTHING
