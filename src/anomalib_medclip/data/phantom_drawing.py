"""The drawing of phantoms: one slice of a head or an abdomen, with or without lesions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Canvas: TypeAlias = NDArray[np.float64]
"""Square picture of side ``side``; positions and lengths are in halves of it, centre at 0."""


@dataclass(frozen=True)
class Patient:
    """What the slices of one patient have in common.

    Attributes:
        gain: Brightness of the scanner.
        noise: Standard deviation of its noise, of a range of 1.
        tilt: Rotation of the patient in radians.
        shift: Displacement, down and to the right.
        shape: Eight numbers in [-1, 1] that make the anatomy this patient's own.
    """

    gain: float
    noise: float
    tilt: float
    shift: tuple[float, float]
    shape: tuple[float, ...]

    @classmethod
    def draw(cls, random: np.random.Generator) -> "Patient":
        """Draw a patient."""
        down, right = random.uniform(-0.02, 0.02, 2)
        return cls(
            gain=random.uniform(0.4, 1.1),
            noise=random.uniform(0.015, 0.03),
            tilt=random.uniform(-0.2, 0.2),
            shift=(down, right),
            shape=tuple(random.uniform(-1, 1, 8)),
        )


def draw_slice(
    organ: str,
    patient: Patient,
    height: float,
    abnormal: bool,
    side: int,
    random: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draw one slice and the mask of its lesions.

    Args:
        organ: ``"head"`` or ``"liver"``.
        patient: Whose slice.
        height: Position along the body, from -1 to 1.
        abnormal: Whether there are lesions.
        side: Height and width in pixels.
        random: Source of whatever differs from slice to slice.
    """
    canvas, body, tissue = _PLANS[organ](patient, height, side, random)
    canvas = canvas + body * (
        0.05 * clouds(9, side, random) + 0.03 * clouds(side // 4, side, random)
    )
    lesions = np.zeros((side, side), dtype=np.bool_)
    if abnormal:
        canvas, lesions = _add_lesions(canvas, tissue, side, random)
    shading = 1 + 0.25 * np.clip(clouds(3, side, random) / 1.2, -1, 1)
    canvas = patient.gain * random.uniform(0.8, 1.0) * shading * canvas
    canvas = np.abs(canvas + patient.noise * random.standard_normal(canvas.shape))
    return (np.clip(canvas, 0, 1) * 255).astype(np.uint8), lesions


def ellipse(
    side: int,
    centre: tuple[float, float],
    radii: tuple[float, float],
    tilt: float = 0.0,
    edge: float = 0.04,
) -> Canvas:
    """1 inside an ellipse, 0 outside, with a soft edge of this width.

    Args:
        side: Height and width in pixels.
        centre: Down and to the right of the picture's centre.
        radii: Half axes, vertical and horizontal before the tilt.
        tilt: Rotation in radians.
        edge: Width of the edge.
    """
    down, right = np.mgrid[:side, :side] * (2 / (side - 1)) - 1
    y, x = down - centre[0], right - centre[1]
    u = (np.cos(tilt) * y - np.sin(tilt) * x) / radii[0]
    v = (np.sin(tilt) * y + np.cos(tilt) * x) / radii[1]
    inside: Canvas = np.clip(0.5 + (1 - np.hypot(u, v)) * min(radii) / edge, 0, 1)
    return inside


def clouds(cells: int, side: int, random: np.random.Generator) -> Canvas:
    """Smooth noise of about this many cells a side, standard normal at their centres."""
    grid = random.standard_normal((cells, cells)).astype(np.float32)
    return np.array(
        Image.fromarray(grid).resize((side, side), Image.Resampling.BICUBIC), dtype=float
    )


def _paint(canvas: Canvas, where: Canvas, value: float) -> Canvas:
    return canvas + (value - canvas) * where


def _head(
    patient: Patient, height: float, side: int, random: np.random.Generator
) -> tuple[Canvas, Canvas, NDArray[np.bool_]]:
    """A skull-stripped head: brain, ventricles, two cisterns, a calcified pineal gland."""
    size, shape, (down, right) = 1 - 0.2 * height**2, patient.shape, patient.shift
    radii = ((0.8 + 0.05 * shape[0]) * size, (0.65 + 0.05 * shape[1]) * size)
    brain = ellipse(side, (down, right), radii, patient.tilt)
    dark = np.zeros_like(brain)
    wide, lean = 1 + 0.2 * shape[2], 0.3 + 0.1 * shape[3]
    for left in (-1, 1):
        horn = ((0.25 * wide * size), 0.08 * wide)
        place = (down - 0.05, right + 0.12 * left)
        dark = np.maximum(dark, ellipse(side, place, horn, patient.tilt + left * lean, 0.03))
        place = (down + 0.28 + 0.04 * shape[4], right + left * (0.22 + 0.04 * shape[5]))
        cistern = tuple(random.uniform(0.08, 0.13, 2))
        dark = np.maximum(dark, ellipse(side, place, cistern, edge=0.05))
    pineal = ellipse(side, (down + 0.12, right), tuple(random.uniform(0.08, 0.13, 2)), edge=0.05)
    bright = pineal * random.uniform(0.5, 1.0)
    canvas = _paint(_paint(0.55 * brain, dark, 0.15), bright, 0.9)
    return canvas, brain, (brain > 0.95) & (dark < 0.05) & (bright < 0.05)


def _liver(
    patient: Patient, height: float, side: int, random: np.random.Generator
) -> tuple[Canvas, Canvas, NDArray[np.bool_]]:
    """An abdomen: body wall, liver with dark vessels, bright spine and aorta."""
    size, shape, (down, right) = 1 - 0.1 * height**2, patient.shape, patient.shift
    tilt = 0.5 * patient.tilt
    body = ellipse(side, (down, right), ((0.72 + 0.04 * shape[0]) * size, 0.92 * size), tilt)
    inside = ellipse(side, (down, right), ((0.64 + 0.04 * shape[0]) * size, 0.84 * size), tilt)
    place = (down - 0.08, right - 0.2 + 0.04 * shape[1])
    liver = ellipse(side, place, (0.46 + 0.04 * shape[2], 0.55 + 0.04 * shape[3]), 0.3 + tilt)
    liver = liver * inside
    vessels = np.zeros_like(liver)
    for turn in (0.3, 1.1, 2.2):
        along = (0.05, random.uniform(0.16, 0.24))
        start = (place[0] + 0.04 * shape[4], place[1] + 0.1)
        vessels = np.maximum(vessels, ellipse(side, start, along, turn + 0.2 * shape[5], 0.03))
    spine = ellipse(side, (down + 0.42, right), tuple(random.uniform(0.12, 0.15, 2)), edge=0.05)
    aorta = ellipse(side, (down + 0.2, right + 0.08), tuple(random.uniform(0.06, 0.09, 2)))
    canvas = _paint(_paint(0.3 * body, inside, 0.22 + 0.03 * shape[6]), liver, 0.5)
    canvas = _paint(_paint(canvas, vessels, 0.35), np.maximum(spine, 0.8 * aorta), 0.92)
    return canvas, body, (liver > 0.95) & (vessels < 0.05) & (spine + aorta < 0.05)


_PLANS: dict[
    str,
    Callable[[Patient, float, int, np.random.Generator], tuple[Canvas, Canvas, NDArray[np.bool_]]],
] = {"head": _head, "liver": _liver}


def _add_lesions(
    canvas: Canvas, tissue: NDArray[np.bool_], side: int, random: np.random.Generator
) -> tuple[Canvas, NDArray[np.bool_]]:
    """One to three lesions in healthy tissue, each brighter or darker than it.

    Places are tried until nine tenths of a lesion lie in tissue that is still free.
    """
    lesions, free = np.zeros_like(tissue), tissue.copy()
    for _ in range(random.integers(1, 4)):
        spots = np.argwhere(free)
        for _ in range(100):
            centre = tuple(spots[random.integers(len(spots))] * 2 / (side - 1) - 1)
            radius = random.uniform(0.1, 0.2)
            radii = (radius * random.uniform(0.8, 1.0), radius)
            lesion = ellipse(side, centre, radii, random.uniform(0, np.pi), 0.05)
            if free[lesion > 0.5].mean() > 0.9:
                contrast = random.uniform(0.38, 0.52) * random.choice([-1, 1])
                canvas = canvas + contrast * lesion
                lesions |= lesion > 0.5
                free &= lesion <= 0
                break
    return canvas, lesions
