"""Values of other people's DICOM headers, made such as DICOM PS3.5 section 6.2 allows.

A name is repaired. A number that names a patient or an order is kept as it is, or left empty: cut
off, it may be that of another one.
"""

import re
from collections.abc import Callable
from datetime import date
from typing import TypeAlias
from unicodedata import category

Normal: TypeAlias = Callable[[str], str]
"""From what a header says, without padding, to what may stand there; empty if nothing may."""

_LONGEST_NAME = 64
"""Characters of each of the at most three writings of a name."""

_PARTS_OF_NAME = 5
_UNDECODED = "\ufffd"  # what stands for bytes that are no letters
_UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+")
_DATE = re.compile(r"(\d{4})([-./]?)(\d\d)\2(\d\d)")
_TIME = re.compile(r"([01]\d|2[0-3])(?::?([0-5]\d)(?::?([0-5]\d|60)(\.\d+)?)?)?")
_SEXES = {"M": "M", "MALE": "M", "F": "F", "FEMALE": "F", "O": "O", "OTHER": "O"}
_TERM = re.compile(r"[A-Z0-9_ ]{1,16}")


def uid(text: str) -> str:
    """A unique identifier, UI.

    Example:
        >>> uid("1.2.840"), uid("1.2.0840"), uid("1." + "2" * 64)
        ('1.2.840', '', '')
    """
    return text if len(text) <= 64 and _UID.fullmatch(text) else ""


def person_name(text: str) -> str:
    r"""A name, PN: without control characters, and each writing cut to its length.

    Example:
        >>> person_name("Doe^Jane\n=a=b=c"), person_name("Doe\\Jane")
        ('Doe^Jane=a=b', 'Doe Jane')
        >>> person_name("a^b^c^d^e^f"), len(person_name("x" * 70))
        ('a^b^c^d^e f', 64)
    """
    text = text.replace("\\", " ").replace(_UNDECODED, "?")
    plain = "".join(one for one in text if category(one)[0] != "C")
    return "=".join(map(_writing, plain.split("=")[:3]))


def _writing(text: str) -> str:
    *first, last = text.split("^", _PARTS_OF_NAME - 1)
    return "^".join([*first, last.replace("^", " ")])[:_LONGEST_NAME].strip()


def identifier(longest: int) -> Normal:
    r"""A number that names something, LO or SH, of so many characters at most.

    Example:
        >>> identifier(4)("A-17"), identifier(4)("A-178"), identifier(4)("A\\B")
        ('A-17', '', '')
    """

    def normal(text: str) -> str:
        is_plain = not any(one in ("\\", _UNDECODED) or category(one)[0] == "C" for one in text)
        return text if is_plain and len(text) <= longest else ""

    return normal


def day(text: str) -> str:
    """A date, DA; dots and dashes of older standards are taken out.

    Example:
        >>> day("1950.01.31"), day("19500131"), day("1950-??"), day("19500231")
        ('19500131', '19500131', '', '')
    """
    found = _DATE.fullmatch(text)
    if not found:
        return ""
    digits = "".join(found.group(1, 3, 4))
    try:
        date.fromisoformat(digits)
    except ValueError:
        return ""
    return digits


def clock(text: str) -> str:
    """A time, TM; colons of older standards are taken out, more than millionths cut off.

    Example:
        >>> clock("13:02:43"), clock("1302"), clock("130243.1234567"), clock("noon")
        ('130243', '1302', '130243.123456', '')
    """
    found = _TIME.fullmatch(text)
    if not found:
        return ""
    hour, minute, second, fraction = (part or "" for part in found.groups())
    return hour + minute + second + fraction[:7]


def sex(text: str) -> str:
    """One of the three terms of Patient's Sex, of letters or words.

    Example:
        >>> sex("male"), sex("F"), sex("?")
        ('M', 'F', '')
    """
    return _SEXES.get(text.upper(), "")


def term(text: str) -> str:
    """A term in capitals, CS.

    Example:
        >>> term("CT"), term("ct"), term("MR/CT")
        ('CT', 'CT', '')
    """
    return text.upper() if _TERM.fullmatch(text.upper()) else ""
