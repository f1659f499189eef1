"""The outlines of MediCLIP's synthetic anomalies: clouds of noise, ellipses and rectangles.

What is drawn by chance and what follows from it are functions apart, so that the authors' draws can
be replayed. Numbers are those of the authors' code; lengths are in pixels, axes (row, column).
"""

import math
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float

Outline = Bool[np.ndarray, "height width"]
"""True on the patch, in the smallest box around it."""


class SideRange(NamedTuple):
    """Shortest and longest side of a patch."""

    shortest: int
    longest: int

    @classmethod
    def of(cls, side: int, low: float, high: float) -> "SideRange":
        """The range that these fractions make of an image's side, never below three pixels."""
        shortest = max(3, round(low * side))
        return cls(shortest, max(shortest + 1, round(high * side)))


def draw_perlin(sides: SideRange, random: np.random.Generator) -> Outline:
    """Draw the outline of a cloud that fills a fifth of its box or more."""
    height, width = (int(n) for n in random.integers(*sides, size=2))
    while True:
        angles = random.uniform(0, 2 * math.pi, (2, 2))
        mask = perlin_mask(rotate(perlin_noise(angles, (height, width)), random.uniform(-90, 90)))
        if mask.mean() >= 0.2:
            return mask


def perlin_noise(
    angles: Float[np.ndarray, "2 2"], size: tuple[int, int]
) -> Float[np.ndarray, "height width"]:
    """Perlin noise of a single lattice cell, in [-1, 1].

    Args:
        angles: Directions of the gradients at the cell's corners in radians, from the rows' axis.
        size: Height and width.
    """
    # Each corner's ramp, gradient times offset, is a product of a column and a row.
    (rows, down), (columns, right) = (_blend(n) for n in size)
    ramps = (rows * down) @ np.cos(angles) @ columns.T
    ramps += rows @ np.sin(angles) @ (columns * right).T
    noise: Float[np.ndarray, "height width"] = math.sqrt(2) * ramps
    return noise


def _blend(
    length: int,
) -> tuple[Float[np.ndarray, "length 2"], Float[np.ndarray, "length 2"]]:
    """Weight of, and offset from, the two ends of a cell at each pixel of an axis."""
    place = np.arange(length) / length
    fade = place**3 * (place * (6 * place - 15) + 10)
    return np.stack([1 - fade, fade], axis=1), np.stack([place, place - 1], axis=1)


def rotate(
    values: Float[np.ndarray, "height width"], degrees: float
) -> Float[np.ndarray, "height width"]:
    """Rotate about the centre of the box, bilinear, 0 from outside."""
    height, width = values.shape
    to_input = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(values, to_input, (width, height), flags=flags))


def perlin_mask(noise: Float[np.ndarray, "height width"]) -> Outline:
    """Where noise is high."""
    return noise > 0.3


class Shape(NamedTuple):
    """An ellipse or a rectangle, sheared and rotated about the centre of its box.

    Attributes:
        round: Whether it is an ellipse.
        sides: Height and width before the matrix.
        matrix: From the upright shape to the image.
    """

    round: bool
    sides: tuple[int, int]
    matrix: Float[np.ndarray, "2 2"]

    @property
    def box(self) -> tuple[int, int]:
        """Height and width of the box around the shape; both are odd."""
        corners = np.abs(self.matrix) @ ((np.array(self.sides) - 1) / 2)
        height, width = 2 * np.ceil(corners).astype(int) + 1
        return int(height), int(width)

    def mask(self) -> Outline:
        """True on pixels whose centres lie inside or on the border."""
        places = self.upright(np.indices(self.box) - self.centre[:, None, None])
        if self.round:
            return (places**2).sum(axis=0) <= 1
        return np.abs(places).max(axis=0) <= 1

    @property
    def centre(self) -> Float[np.ndarray, "2"]:
        """Position in the box, a whole number of pixels."""
        return (np.array(self.box) - 1) / 2

    def upright(self, places: Float[np.ndarray, "2 *some"]) -> Float[np.ndarray, "2 *some"]:
        """Vectors in units of the upright shape's half sides."""
        halves = np.diag(np.array(self.sides) / 2)
        return np.tensordot(np.linalg.inv(self.matrix @ halves), places, axes=1)

    def reach(
        self, start: Float[np.ndarray, "2"], directions: Float[np.ndarray, "2 *some"]
    ) -> Float[np.ndarray, "*some"]:
        """Distance from a place inside to the border.

        Args:
            start: Position in the box.
            directions: Vectors of length 1.
        """
        ahead, aside = self.upright(directions), self.upright(start - self.centre)
        if not self.round:
            aside = aside.reshape(2, *[1] * (ahead.ndim - 1))
            with np.errstate(divide="ignore"):  # sides that are never met lie at infinity
                return np.min((np.copysign(1, ahead) - aside) / ahead, axis=0)
        square, mixed = (ahead**2).sum(axis=0), np.tensordot(aside, ahead, axes=1)
        root = np.sqrt(mixed**2 + square * (1 - aside @ aside))
        distance: Float[np.ndarray, "*some"] = (root - mixed) / square
        return distance


def draw_shape(side: int, sides: SideRange, random: np.random.Generator) -> Shape:
    """Draw an ellipse or, as often, a rectangle, whose box is no longer than the longest side.

    Args:
        side: Height and width of the image.
        sides: Bounds of the shape's sides; many shapes end at the lower one.
        random: Source of chance.
    """
    lengths = (0.03 + random.gamma(2.0, 0.1, 2)) * side
    height, width = (int(n) for n in np.clip(lengths, *sides))
    down, right = random.normal(0.0, 0.2, 2)
    angle = random.uniform(-math.pi / 2, math.pi / 2)
    matrix = rotation_matrix(angle) @ np.array([[1.0, down], [right, 1.0]])
    shape = Shape(bool(random.random() < 0.5), (height, width), matrix)
    while (excess := max(shape.box) / sides.longest) > 1:
        shape = shape._replace(matrix=shape.matrix / excess)
    return shape


def rotation_matrix(angle: float) -> Float[np.ndarray, "2 2"]:
    """Matrix that turns (row, column) vectors by an angle in radians."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.array([[cosine, -sine], [sine, cosine]])


class Patch(NamedTuple):
    """The outline of an anomaly and where its box lies in the image."""

    outline: Outline
    corner: tuple[int, int]

    @property
    def box(self) -> tuple[slice, slice]:
        """Rows and columns of the box."""
        (top, left), (height, width) = self.corner, self.outline.shape
        return slice(top, top + height), slice(left, left + width)

    def mask(self, side: int) -> Bool[np.ndarray, "side side"]:
        """The outline in the whole image."""
        mask = np.zeros((side, side), dtype=np.bool_)
        mask[self.box] = self.outline
        return mask


def place(outline: Outline, side: int, random: np.random.Generator) -> Patch:
    """Put an outline anywhere in the image, each place with equal chance."""
    top, left = (int(random.integers(side - n + 1)) for n in outline.shape)
    return Patch(outline, (top, left))
