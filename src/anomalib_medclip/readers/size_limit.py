"""One limit on the size of what is read, so that a small file cannot take all memory."""

import os
from math import prod
from pathlib import Path

from anomalib_medclip.errors import ConfigError, ImageReadError, WeightsError

LIMIT_VARIABLE = "ANOMALIB_MEDCLIP_MAX_VOXELS"
"""Environment variable with the most voxels that a volume may have, for all commands."""

MOST_VOXELS = 2**29
"""The same by default: a CT of 512 x 512 x 2,000 has fewer. A pixel of a picture counts as three,
one for each colour, so pictures of 178 million pixels are read."""


def check_voxels(path: str | Path, *sides: int, said: str = "") -> None:
    """Refuse what is too large, by its header, before memory is taken for it.

    Args:
        path: What is about to be read.
        *sides: Its sides in voxels.
        said: The rest of a sentence that begins with the path; by default that it is of such sides.

    Raises:
        ConfigError: The limit that is set is no whole number above zero.
        ImageReadError: It has more voxels than the limit.
    """
    most = _most()
    if (count := prod(map(int, sides))) > most:
        said = said or f"is of {' x '.join(f'{side:,}' for side in sides)} voxels"
        msg = (
            f"{path} {said}, {count:,} numbers in all, and at most {most:,} are read; crop "
            f"or reduce it or, where there is memory for it, set {LIMIT_VARIABLE}={count}"
        )
        raise ImageReadError(msg)


def _most() -> int:
    given = os.environ.get(LIMIT_VARIABLE, str(MOST_VOXELS))
    if not given.isdecimal() or not int(given):
        msg = f"{LIMIT_VARIABLE} is {given!r}, and must be a whole number of at least 1"
        raise ConfigError(msg)
    return int(given)


def check_pixels(path: str | Path, width: int, height: int) -> None:
    """Refuse a picture that is too large as a volume of three colours.

    Raises:
        ConfigError: See ``check_voxels``.
        ImageReadError: See ``check_voxels``.
    """
    said = f"is of {width:,} x {height:,} pixels (a whole slide?) in three colours"
    check_voxels(path, width, height, 3, said=said)


def check_parameters(model: str, count: int) -> None:
    """Refuse a model that is too large, before memory is taken for it.

    Eight times as many numbers are allowed as a volume may have, whose memory is as much.

    Args:
        model: What is about to be built.
        count: Its parameters.

    Raises:
        ConfigError: See ``check_voxels``.
        WeightsError: It has more.
    """
    if count > (most := 8 * _most()):
        msg = (
            f"{model} would have {count:,} parameters, and at most {most:,} are made; correct its "
            f"numbers or, where there is memory for it, set {LIMIT_VARIABLE}={-(-count // 8)}"
        )
        raise WeightsError(msg)
