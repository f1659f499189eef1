"""Which pictures of a folder are the slices of one volume, and in which order, by their names.

A name is made of words and numbers. Slices of one stack have the same words, dates among them, and
one number that varies, or several that rise and fall together; what differs otherwise is of several
stacks, which are never mixed.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import NamedTuple, TypeAlias

from anomalib_medclip.errors import VolumeError
from anomalib_medclip.readers.left_out import LeftOut

Numbers: TypeAlias = tuple[Decimal, ...]

_YEAR, _MONTH, _DAY = r"(?:19|20)\d\d", r"(?:0[1-9]|1[0-2])", r"(?:0[1-9]|[12]\d|3[01])"
_DATE = re.compile(
    rf"(?<!\d)(?:{_YEAR}([-_. ]?){_MONTH}\1{_DAY}|{_DAY}([-_. ]){_MONTH}\2{_YEAR})(?!\d)"
)
_AS_WORD = str.maketrans("0123456789", "abcdefghij")

_WHOLE = r"\d+"
_DECIMAL = rf"(?:(?<!\d[.,])\d+[.,]\d+(?![.,]?\d)|{_WHOLE})"
_CLEAR_SIGN = (
    r"(?:(?<![^_=(\[])|(?<=[xyz])(?<![a-z][xyz])|(?<=pos)|(?<=position)|(?<=loc)|(?<=location))"
    r"[-+]"
)
"""One that no hyphen is: first in a name, behind another gap, or behind the word for a place."""
_ANY_SIGN = r"(?<!\d)[-+]"
_READINGS = tuple(
    tuple(re.compile(f"(?:{sign})?{number}") for number in (_WHOLE, _DECIMAL))
    for sign in (_CLEAR_SIGN, _ANY_SIGN)
)
"""How numbers may be written; hyphens are signs only where names make no stack otherwise."""

_REMEDY = "number its slices 1, 2, 3"


class Stack(NamedTuple):
    """The slices of a volume.

    Attributes:
        paths: The pictures, in their order.
        columns: The numbers of their names that vary, in the same order, each in a column of its
            own; of a single picture, all.
        left_out: Pictures beside them, and why.
    """

    paths: list[Path]
    columns: tuple[Numbers, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    def gap(self) -> int | None:
        """Behind which slice one is missing: no number of the names goes on in even steps."""
        gaps = [_gap(column) for column in self.columns]
        return None if None in gaps or not gaps else gaps[0]


def first_unlike(one: Stack, other: Stack) -> tuple[Path | None, Path | None] | None:
    """The first slices of two stacks that are not of one place; nothing, if all are.

    The numbers of one vary as those of the other do, which may have more that vary.
    """
    fewer, more = sorted(({*one.columns}, {*other.columns}), key=len)
    if len(one.paths) == len(other.paths) and fewer <= more and bool(fewer) == bool(more):
        return None
    rows = (
        [(path, {c[i] for c in stack.columns}) for i, path in enumerate(stack.paths)]
        for stack in (one, other)
    )
    pairs = list(zip_longest(*rows, fillvalue=(None, None)))
    unlike = [pair for pair in pairs if not _fit(*(numbers for _, numbers in pair))]
    (ours, _), (theirs, _) = (unlike or pairs)[0]
    return ours, theirs


def _fit(one: set[Decimal] | None, other: set[Decimal] | None) -> bool:
    return one is not None and other is not None and (one <= other or other <= one)


def stack_of(folder: Path, pictures: Sequence[Path]) -> Stack:
    """Put the pictures of a folder in the order of the numbers in their names.

    A picture without a number beside others that have some, such as ``thumb.png``, is left out.

    Args:
        folder: Where they lie, for error messages.
        pictures: In any order.

    Raises:
        VolumeError: They are of several stacks, or their order is not known.
    """
    slices, left_out = _numbered(pictures)
    if not slices:
        return Stack([])
    for of_signs in _READINGS:
        found = [stack for one in of_signs if (stack := _read(slices, one))]
        orders = {tuple(stack.paths) for stack in found}
        if len(orders) > 1:  # such as 1.8, 1.9, 1.10, which are no decimal numbers
            found = [stack for stack in found if stack.gap() is None]
        if len(orders) > 1 and len(found) != 1:
            first, other = (min(orders)[i].name for i in (0, 1))
            msg = f"numbers in the names of {folder} may be decimal or not, as in {first} and "
            raise VolumeError(msg + f"{other}; {_REMEDY}")
        if found:
            return found[0]._replace(left_out=left_out)
    return _refuse(folder, slices)


def _numbered(pictures: Sequence[Path]) -> tuple[list[Path], tuple[LeftOut, ...]]:
    """What may be a slice, by name, and single pictures without a number beside them."""
    numbered = [path for path in pictures if re.search(r"\d", path.stem)]
    words = {_letters(_name(path)) for path in numbered}
    others = sorted(set(pictures) - set(numbered))
    bare = [path for path in others if _letters(_name(path)) not in words]
    if len(bare) >= len(numbered):
        bare = []  # which are no exceptions
    said = "has no number in its name, as the slices beside it have"
    left_out = tuple(LeftOut(path, said, "number it if it is a slice") for path in bare)
    return sorted(set(pictures) - set(bare)), left_out


def _letters(name: str) -> str:
    return "".join(filter(str.isalpha, name))


def _name(path: Path) -> str:
    return unicodedata.normalize("NFC", path.stem).casefold()


def _names(slices: Sequence[Path]) -> list[str]:
    """Their names, with dates as words, where all have one."""
    names = [_name(path) for path in slices]
    if all(map(_DATE.search, names)):
        return [_DATE.sub(lambda date: date[0].translate(_AS_WORD), name) for name in names]
    return names


def _numbers(name: str, reading: re.Pattern[str]) -> Numbers:
    return tuple(Decimal(number.replace(",", ".")) for number in reading.findall(name))


def _read(slices: Sequence[Path], reading: re.Pattern[str]) -> Stack | None:
    """The stack that they are, with numbers read in one way; none if they are several."""
    names = _names(slices)
    if len({tuple(reading.split(name)) for name in names}) > 1:
        return None
    numbers = [_numbers(name, reading) for name in names]
    varying = [i for i, column in enumerate(zip(*numbers, strict=True)) if len({*column}) > 1]
    if len(slices) == 1:
        return Stack([*slices], tuple((number,) for number in numbers[0]))
    if not varying:
        return None
    order = sorted(range(len(slices)), key=lambda i: numbers[i][varying[0]])
    columns = tuple(tuple(numbers[i][j] for i in order) for j in varying)
    if not all(_is_monotonic(column) for column in columns):
        return None
    return Stack([slices[i] for i in order], columns)


def _is_monotonic(column: Numbers) -> bool:
    return len({(later > earlier) - (later < earlier) for earlier, later in pairwise(column)}) == 1


def _gap(column: Numbers) -> int | None:
    """Behind which number one is missing; positions may be rounded."""
    steps = [abs(later - earlier) for earlier, later in pairwise(column)]
    if not steps:
        return None
    last = Decimal(1).scaleb(min(_exponent(number) for number in column))
    rounding = last if last < 1 and 10 * last <= min(steps) else 0
    return next((i for i, step in enumerate(steps) if step - min(steps) > rounding), None)


def _exponent(number: Decimal) -> int:
    return int(number.as_tuple().exponent)


def _refuse(folder: Path, slices: Sequence[Path]) -> Stack:
    """Say how many stacks there are, or why there is no order.

    Raises:
        VolumeError: Always.
    """
    known: dict[tuple[object, ...], Path] = {}
    whole = _READINGS[0][0]
    for path, name in zip(slices, _names(slices), strict=True):
        key = (*whole.split(name), *_numbers(name, whole))
        if (other := known.setdefault(key, path)) != path:
            msg = f"{other} and {path} have the same numbers in their names; number the slices"
            raise VolumeError(msg)
    stacks = min((_stacks(slices, one) for both in _READINGS for one in both), key=len)
    stacks.sort(key=len, reverse=True)
    if len(stacks) == len(slices) and len({*map(_letters, _names(slices))}) == 1:
        one, two = (path.name for path in slices[:2])
        msg = f"several numbers vary in the names of {folder}, as in {one} and {two}, each in "
        raise VolumeError(msg + f"an order of its own; {_REMEDY}")
    named = [f"{one[0].name} ({len(one)} of {len(slices)})" for one in stacks[:3]]
    more = f" and {len(stacks) - 3} more" if len(stacks) > 3 else ""
    msg = (
        f"{folder} holds {len(stacks)} stacks of pictures, by their names, such as "
        f"{', '.join(named)}{more}; give each stack a folder, and take out what is no slice"
    )
    raise VolumeError(msg)


def _stacks(slices: Sequence[Path], reading: re.Pattern[str]) -> list[list[Path]]:
    """The stacks that they are, with numbers read in one way."""
    of_words: dict[tuple[str, ...], dict[Path, Numbers]] = defaultdict(dict)
    for path, name in zip(slices, _names(slices), strict=True):
        of_words[tuple(reading.split(name))][path] = _numbers(name, reading)
    return [stack for named in of_words.values() for stack in _divided(named, reading)]


def _divided(named: Mapping[Path, Numbers], reading: re.Pattern[str]) -> list[list[Path]]:
    """Stacks of the same words, told apart by the numbers that have the fewest values."""
    if _read([*named], reading):
        return [[*named]]
    values = [len({*column}) for column in zip(*named.values(), strict=True)]
    if max(values, default=1) == 1:  # as of 1.1 and 1.10
        return [[path] for path in named]
    key = min((i for i, count in enumerate(values) if count > 1), key=lambda i: values[i])
    groups: dict[Decimal, dict[Path, Numbers]] = defaultdict(dict)
    for path, numbers in named.items():
        groups[numbers[key]][path] = numbers
    return [stack for group in groups.values() for stack in _divided(group, reading)]
