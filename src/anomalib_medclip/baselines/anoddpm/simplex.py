"""OpenSimplex noise in two and three dimensions, for all points at once.

Kurt Spencer's algorithm, which is in the public domain, adds what the lattice points nearer than
the square root of 2 have to say. Implementations find these by cases, point by point; here all
lattice points of a cell and around it are asked, and those too far away say nothing.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

_STEP, _SHIFT = 6364136223846793005, 1442695040888963407
"""Of the generator of random numbers modulo 2 ** 64."""


class Kind(NamedTuple):
    """What differs with the number of dimensions.

    Attributes:
        gradients: Where lattice points may point to, in the original's order.
        of_number: Which of them a number from 0 to 255 means.
        scale: What brings the noise to about [-1, 1].
        stretch: Of places to the lattice, along the main diagonal.
        squash: Of the lattice to places.
    """

    gradients: NDArray[np.int64]
    of_number: NDArray[np.int64]
    scale: float
    stretch: float
    squash: float


_NUMBERS = np.arange(256)

PLANE = Kind(
    gradients=np.array(
        [[5, 2], [2, 5], [-5, 2], [-2, 5], [5, -2], [2, -5], [-5, -2], [-2, -5]],
    ),
    of_number=_NUMBERS // 2 % 8,
    scale=47.0,
    stretch=(1 / math.sqrt(3) - 1) / 2,
    squash=(math.sqrt(3) - 1) / 2,
)

SPACE = Kind(
    gradients=np.array(
        [
            [sign * (11 if axis == longest else 4) for axis, sign in enumerate((x, y, z))]
            for z, y, x in itertools.product((1, -1), (1, -1), (-1, 1))
            for longest in range(3)
        ]
    ),
    of_number=_NUMBERS % 24,
    scale=103.0,
    stretch=-1 / 6,
    squash=1 / 3,
)


class SimplexNoise:
    """Smooth noise in about [-1, 1], which follows from a seed.

    Args:
        seed: Of 64 bits, with a sign.

    Attributes:
        order: The numbers from 0 to 255 as the seed orders them.
    """

    def __init__(self, seed: int) -> None:
        numbers = list(range(256))
        self.order = np.zeros(256, dtype=np.int64)
        for _ in range(3):
            seed = _next(seed)
        for place in range(255, -1, -1):
            seed = _next(seed)
            chosen = (seed + 31) % (place + 1)
            self.order[place], numbers[chosen] = numbers[chosen], numbers[place]

    def __call__(self, *coordinates: Values) -> Values:
        """The noise at points.

        Args:
            coordinates: Two or three arrays, of shapes that go together.
        """
        kind = PLANE if len(coordinates) == 2 else SPACE
        places = np.stack(np.broadcast_arrays(*coordinates)).astype(np.float64)
        stretched = places + kind.stretch * places.sum(axis=0)
        cell = np.floor(stretched)
        inside = places - cell - kind.squash * cell.sum(axis=0)
        value = np.zeros(places.shape[1:])
        for offset in itertools.product((-1, 0, 1, 2), repeat=len(coordinates)):
            step = np.reshape(offset, (-1,) + (1,) * value.ndim)
            away = inside - step - kind.squash * sum(offset)
            weight = np.maximum(2 - (away**2).sum(axis=0), 0) ** 4
            gradients = self._gradients(cell.astype(np.int64) + step, kind)
            value += weight * (gradients * away).sum(axis=0)
        return value / kind.scale

    def _gradients(self, points: NDArray[np.int64], kind: Kind) -> Values:
        """Where lattice points ``(dimension, ...)`` point to, of the same shape."""
        number = np.zeros(points.shape[1:], dtype=np.int64)
        for axis in points:
            number = self.order[(number + axis) & 255]
        return np.moveaxis(kind.gradients[kind.of_number[number]], -1, 0)


def _next(seed: int) -> int:
    """The next number of the generator, of 64 bits with a sign."""
    unsigned = (seed * _STEP + _SHIFT) % 2**64
    return unsigned - 2**64 if unsigned >= 2**63 else unsigned


def octaves(
    noise: SimplexNoise,
    side: int,
    third: float,
    count: int = 6,
    persistence: float = 0.8,
    period: float = 64.0,
) -> Values:
    """A square picture of noise of several sizes, each half as wide as the one before.

    Args:
        noise: Where it comes from.
        side: Of the picture in pixels.
        third: The third coordinate.
        count: Sizes.
        persistence: How strong each size is, compared with the one before.
        period: Pixels of the first size that are one step of the lattice.
    """
    places = np.arange(side, dtype=np.float64)
    periods = [period / 2**octave for octave in range(count)]
    parts = [
        persistence**octave
        * noise(places[None, :] / one, places[:, None] / one, np.float64(third) / one)
        for octave, one in enumerate(periods)
    ]
    return np.sum(parts, axis=0)
