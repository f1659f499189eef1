"""OpenSimplex noise in space, for all points at once.

Kurt Spencer's algorithm, which is in the public domain: points of a lattice say something of what
is nearer to them than the square root of 2. Which of them are asked depends on where in its cell a
point lies, and here that is decided for arrays.
"""

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

Offsets = NDArray[np.int64]
"""Lattice points ``(3, ...)``, from the corner of a cell."""

GRADIENTS = np.array(
    [
        [sign * (11 if axis == longest else 4) for axis, sign in enumerate((x, y, z))]
        for z, y, x in itertools.product((1, -1), (1, -1), (-1, 1))
        for longest in range(3)
    ]
)
"""Where lattice points may point to, in the original's order."""

_SCALE = 103.0
"""What brings the noise to about [-1, 1]."""

_STRETCH, _SQUASH = -1 / 6, 1 / 3
"""Of places to the lattice along the main diagonal, and back."""

_STEP, _SHIFT = 6364136223846793005, 1442695040888963407
"""Of the generator of random numbers modulo 2 ** 64."""


class SimplexNoise:
    """Smooth noise, which follows from a seed.

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

    def __call__(self, x: Values, y: Values, z: Values) -> Values:
        """The noise at points, whose coordinates have shapes that go together."""
        places = np.stack(np.broadcast_arrays(x, y, z)).astype(np.float64)
        stretched = places + _STRETCH * places.sum(axis=0)
        cell = np.floor(stretched)
        inside = stretched - cell
        away = places - cell - _SQUASH * cell.sum(axis=0)
        value = np.zeros(places.shape[1:])
        for offset in _asked(inside):
            distance = away - offset - _SQUASH * offset.sum(axis=0)
            weight = np.maximum(2 - (distance**2).sum(axis=0), 0) ** 4
            value += weight * (self._gradients(cell.astype(np.int64) + offset) * distance).sum(0)
        return value / _SCALE

    def _gradients(self, points: Offsets) -> Offsets:
        """Where lattice points point to."""
        number = np.zeros(points.shape[1:], dtype=np.int64)
        for axis in points:
            number = self.order[(number + axis) & 255]
        return np.moveaxis(GRADIENTS[number % len(GRADIENTS)], -1, 0)


def _asked(inside: Values) -> Iterator[Offsets]:
    """The lattice points that are asked, of points at places ``(3, ...)`` inside a cell.

    A cell is cut into a tetrahedron at its first corner, one at its last, and the octahedron
    between. All corners of the part are asked, and two more points.
    """
    total = inside.sum(axis=0)
    first, last = total <= 1, total >= 2
    for corner in itertools.product((0, 1), repeat=3):
        count = sum(corner)
        is_corner = np.select([first, last], [count <= 1, count >= 2], count in (1, 2))
        yield np.where(is_corner, _column(corner, inside), _FAR)
    pairs = zip(_beside_first(inside), _beside_last(inside), _beside_middle(inside), strict=True)
    for near_first, near_last, near_middle in pairs:
        yield np.where(first, near_first, np.where(last, near_last, near_middle))


_FAR = 9
"""Offset of a lattice point that is too far away to say anything."""


def _column(corner: tuple[int, ...], inside: Values) -> Offsets:
    return np.reshape(corner, (3,) + (1,) * (inside.ndim - 1))


def _axes(order: NDArray[np.int64]) -> list[Offsets]:
    """Unit vectors ``(3, ...)`` of axes ``(3, ...)``, one after the other."""
    return list(np.moveaxis(np.eye(3, dtype=np.int64)[order], -1, 1))


def _ranked(values: Values) -> tuple[list[Offsets], Values]:
    """Unit vectors of axes by their values, the least first, and the second value.

    Of equal ones the earlier axis is first, as in the original; but where the least are of the
    second and the third, its comparisons give the third.
    """
    order = values.argsort(axis=0, kind="stable")
    least, second, _ = np.take_along_axis(values, order, axis=0)
    turned = (least == second) & (order[0] == 1) & (order[1] == 2)
    order[:2] = np.where(turned, order[1::-1], order[:2])
    return _axes(order), second


def _beside_first(inside: Values) -> tuple[Offsets, Offsets]:
    """Two more points beside the tetrahedron at the first corner."""
    (high, middle, low), second = _ranked(-inside)
    corner_is_near = 1 - inside.sum(axis=0) > -second
    return (
        np.where(corner_is_near, high - middle, high + middle),
        np.where(corner_is_near, high - low, high + middle - low),
    )


def _beside_last(inside: Values) -> tuple[Offsets, Offsets]:
    """Two more points beside the tetrahedron at the last corner."""
    (_, middle, high), second = _ranked(inside)
    corner_is_near = 3 - inside.sum(axis=0) < second
    return (
        np.where(corner_is_near, 2 * middle + high, high),
        np.where(corner_is_near, middle + 2 * high, 2 * high),
    )


def _beside_middle(inside: Values) -> tuple[Offsets, Offsets]:
    """Two more points beside the octahedron: of its faces, the two nearest decide.

    An axis stands for two opposite faces: which is nearer is said by the sum of the others.
    """
    x, y, z = inside
    beyond = np.stack([y + z, x + z, x + y]) - 1
    # Of equal ones the first axis, then the third, is the least, as in the original.
    turn = np.array([0, 2, 1])
    order = turn[np.abs(beyond)[turn].argsort(axis=0, kind="stable")]
    least, second, nearest = _axes(order)
    _, second_far, nearest_far = np.take_along_axis(beyond, order, axis=0) > 0
    both, none = second_far & nearest_far, ~(second_far | nearest_far)
    far, near = np.where(nearest_far, nearest, second), np.where(nearest_far, second, nearest)
    one = np.ones_like(least)
    return (
        np.where(both, one, np.where(none, 0 * one, one - 2 * far)),
        np.where(both, 2 * least, np.where(none, one - 2 * least, 2 * near)),
    )


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
        period: Pixels of the first size that are one step of the noise.
    """
    places = np.arange(side, dtype=np.float64)
    periods = (period / 2 ** np.arange(count))[:, None, None]
    sizes = noise(places / periods, places[:, None] / periods, third / periods)
    strength = persistence ** np.arange(count, dtype=np.float64)
    summed: Values = np.tensordot(strength, sizes, axes=1)
    return summed
