"""Whole numbers larger than float32 can hold, for graphs of runtimes that compute in nothing else.

Such a number is a list of tensors, its digits, the least one first. Products of two digits, and
sums of a few of these, are exact in float32.
"""

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

BASE = 2.0**11

Number: TypeAlias = list[Tensor]


def digits(whole: Tensor) -> Number:
    """The two digits of whole numbers from 0 to 2^22, and beyond that as far as float32 goes."""
    number = whole.float()
    high = (number / BASE).floor()
    return [number - high * BASE, high]


def carried(number: Sequence[Tensor], more: int = 0) -> Number:
    """The same number, with each digit but the last in [0, ``BASE``).

    Args:
        number: With digits of any size, and either sign.
        more: How many digits to add.
    """
    found, carry = [], torch.zeros_like(number[0])
    for digit in places(number, 0, len(number) + more)[:-1]:
        full = digit + carry
        carry = (full / BASE).floor()
        found.append(full - carry * BASE)
    return [*found, carry if more else number[-1] + carry]


def times(one: Number, other: Number) -> Number:
    """The product, whose digits are not yet carried."""
    found = [torch.zeros_like(one[0] * other[0])] * (len(one) + len(other) - 1)
    for at, digit in enumerate(one):
        for place, factor in enumerate(other, at):
            found[place] = found[place] + digit * factor
    return found


def places(number: Sequence[Tensor], low: int, count: int) -> Number:
    """A number times ``BASE`` to the power of ``low``, with so many digits."""
    zero = torch.zeros_like(number[0])
    return [*[zero] * low, *number, *[zero] * (count - low - len(number))]


def value(number: Number) -> Tensor:
    """The number in float32, with a relative error of its rounding."""
    found = number[-1]
    for digit in number[-2::-1]:
        found = found * BASE + digit
    return found
