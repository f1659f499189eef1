"""What a picture file holds, as its own header says, before anything is made of it."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class DamageError(ValueError):
    """What is wrong with the bytes of a picture file, as the end of a sentence about it."""


class Stored(NamedTuple):
    """The numbers of one picture.

    Attributes:
        numbers: Greys or places in a palette, ``(row, column)``, or red, green and blue,
            ``(row, column, 3)``; uint8 where a channel has at most 8 bits without a sign.
        bits: Of a channel.
        palette: Red, green and blue of each number, ``(number, 3)``, in 0 to 255.
        alpha: How opaque each pixel is, ``(row, column)``, where the file says so.
        inverted: Whether the largest number is black.
        lossy: Whether its compression has changed the numbers.
        orientation: That of EXIF and TIFF, 1 to 8; any other number means 1.
    """

    numbers: NDArray[Any]
    bits: int = 8
    palette: NDArray[np.uint8] | None = None
    alpha: NDArray[Any] | None = None
    inverted: bool = False
    lossy: bool = False
    orientation: int = 1

    @property
    def is_deep(self) -> bool:
        """Whether its numbers need a policy: they have a sign, or more than 8 bits."""
        return self.bits > 8 or self.numbers.dtype != np.uint8

    @property
    def white(self) -> int:
        """The largest number of so many bits without a sign."""
        return int(2**self.bits - 1)

    def upright(self) -> "Stored":
        """The same as viewers show it: turned as the file's orientation asks."""
        numbers = _turned(self.numbers, self.orientation)
        alpha = None if self.alpha is None else _turned(self.alpha, self.orientation)
        return self._replace(numbers=numbers, alpha=alpha, orientation=1)

    def as_bytes(self) -> NDArray[np.uint8]:
        """Of a picture that is not deep, the greys or colours in 0 to 255."""
        if self.palette is not None:
            return self.palette[self.numbers]
        shown = self.white - self.numbers if self.inverted else self.numbers
        return (shown * (255 // self.white)).astype(np.uint8)


def _turned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Pixels ``(row, column, ...)`` so that the first is at the top left."""
    if orientation in (5, 6, 7, 8):  # rows of the file are columns of the picture
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
