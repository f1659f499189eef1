"""MediCLIP's four synthesis tasks: cut and paste, change of intensity, deformation, and nothing.

A task draws one patch and alters it; each of its deterministic parts is a function of its own, so
that the authors' draws can be replayed. Images are grey and square, in grey levels of 0 to 255;
places are (row, column). Where paper and code part, this is the code.
"""

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import cv2
import numpy as np
from jaxtyping import Bool, Float, Num, UInt8
from scipy import ndimage

from anomalib_medclip.models.mediclip.masks import (
    Patch,
    Shape,
    SideRange,
    draw_perlin,
    draw_shape,
    place,
    rotation_matrix,
)

Pixels: TypeAlias = UInt8[np.ndarray, "side side"]
Grey: TypeAlias = Num[np.ndarray, "side side"]
"""``uint8``, or floats in the same range after a change of intensity."""

BARELY_CHANGED = 1 - math.exp(-1 / (2 * 0.2**2))
"""Label of a pixel that rose by a single grey level: 0.99999627."""


Task: TypeAlias = Callable[[Grey, Sequence[Pixels], np.random.Generator], tuple[Grey, Patch]]
"""From an image, the images to cut from, and a source of chance to an altered copy."""


def identity(
    image: Grey, sources: Sequence[Pixels], random: np.random.Generator
) -> tuple[Grey, Patch]:
    """The image itself and an empty patch."""
    del sources, random
    return image, Patch(np.zeros((0, 0), dtype=np.bool_), (0, 0))


def gauss_intensity_change(
    image: Grey, sources: Sequence[Pixels], random: np.random.Generator
) -> tuple[Grey, Patch]:
    """Brighten or darken a cloud by a smooth texture; the result is not rounded.

    The paper adds scaled noise inside a sharp outline; the code stretches it, and softens the edge.
    """
    del sources
    side = len(image)
    patch = place(draw_perlin(SideRange.of(side, 0.3, 0.8), random), side, random)
    noise = random.standard_normal((side, side))
    strength = random.choice([-1.0, 1.0]) * random.uniform(0.4, 0.6)
    texture = intensity_texture(noise, random.choice([4.0, 7.0]), strength)
    return add_texture(image, patch, texture, random.uniform(1.0, 4.0)), patch


def intensity_texture(
    noise: Float[np.ndarray, "side side"], sigma: float, strength: float
) -> Float[np.ndarray, "side side"]:
    """Clouds from 0 to ``strength``.

    Args:
        noise: Numbers of which the sign is used.
        sigma: Standard deviation of the smoothing in pixels.
        strength: Largest change, in parts of the whole range of grey.
    """
    clouds = ndimage.gaussian_filter((noise >= 0).astype(np.float64), sigma)
    low, high = clouds.min(), clouds.max()
    texture: Float[np.ndarray, "side side"] = (clouds - low) / (high - low) * strength
    return np.clip(texture, -1, 1)


def add_texture(
    image: Grey, patch: Patch, texture: Float[np.ndarray, "side side"], edge: float
) -> Float[np.ndarray, "side side"]:
    """Add a texture inside a patch, less of it near the outline.

    Args:
        image: Grey levels.
        patch: Where.
        texture: Change in parts of the whole range of grey.
        edge: Standard deviation of the edge in pixels.
    """
    weight = ndimage.gaussian_filter(patch.outline.astype(np.float64), edge)
    before = image[patch.box] / 255
    inside = np.clip(before + texture[patch.box] * weight, 0, 1) * 255
    altered = image.astype(np.float64)
    altered[patch.box][patch.outline] = inside[patch.outline]
    return altered


def source(
    image: Grey, sources: Sequence[Pixels], random: np.random.Generator
) -> tuple[Grey, Patch]:
    """Magnify what lies around a point, out to the border of an ellipse or rectangle."""
    del sources
    side = len(image)
    shape = draw_shape(side, SideRange.of(side, 0.2, 0.6), random)
    patch = place(shape.mask(), side, random)
    inside = np.argwhere(patch.outline)
    centre = inside[random.integers(len(inside))]
    # Paper: uniform in alpha, not in its logarithm.
    alpha = 2 ** random.uniform(0.5, 2.0)
    return deform(image, patch, source_mapping(shape, centre, alpha)), patch


def source_mapping(
    shape: Shape, centre: Num[np.ndarray, "2"], alpha: float
) -> Float[np.ndarray, "2 height width"]:
    """Places in the box from which a magnification takes its pixels.

    Args:
        shape: What bounds the magnified region; the border of its box is left alone.
        centre: Pixel that stays where it is.
        alpha: Strength; 1 changes nothing.
    """
    outline = shape.mask()
    outline[[0, -1]] = outline[:, [0, -1]] = False
    outline[tuple(centre)] = False
    mapping = np.indices(outline.shape).astype(np.float64)
    start = np.asarray(centre, dtype=np.float64)
    away = mapping[:, outline] - start[:, None]
    distance = np.sqrt((away**2).sum(axis=0))
    directions = away / distance
    # A pixel inside is no farther than the border; for one on it, rounding could say so.
    reach = np.fmax(shape.reach(start, directions), distance)
    nearer = distance**alpha / reach ** (alpha - 1)
    mapping[:, outline] = start[:, None] + directions * nearer
    return mapping


def deform(image: Grey, patch: Patch, mapping: Float[np.ndarray, "2 height width"]) -> Grey:
    """Resample the box of a patch by cubic splines."""
    altered = image.copy()
    altered[patch.box] = ndimage.map_coordinates(image[patch.box], mapping, mode="nearest")
    return altered


Paste: TypeAlias = Callable[[Pixels, Patch, UInt8[np.ndarray, "height width"]], Pixels]
"""From an image, a patch and what is to fill its box to an altered copy."""


def hard_paste(image: Pixels, patch: Patch, content: UInt8[np.ndarray, "height width"]) -> Pixels:
    """Replace the pixels of a patch, as the authors' code does."""
    altered = image.copy()
    altered[patch.box][patch.outline] = content[patch.outline]
    return altered


def poisson_paste(
    image: Pixels, patch: Patch, content: UInt8[np.ndarray, "height width"]
) -> Pixels:
    """Paste the gradients of a patch, as the paper says, so that there is no seam.

    OpenCV solves for the whole rectangle around the outline, so pixels beside it change too; those
    that do so by its rounding error, two grey levels or less, are put back.
    """
    ring = 2  # around the box, because OpenCV cuts masks that touch the border of its images
    rows, columns = (slice(s.start, s.stop + 2 * ring) for s in patch.box)
    around = cv2.cvtColor(np.pad(image, ring, mode="edge")[rows, columns], cv2.COLOR_GRAY2BGR)
    filling = cv2.cvtColor(np.pad(content, ring, mode="edge"), cv2.COLOR_GRAY2BGR)
    outline = np.pad(patch.outline.astype(np.uint8) * 255, ring)
    left, top, width, height = cv2.boundingRect(outline)
    if min(width, height) < 3:  # OpenCV cannot blend so little
        return hard_paste(image, patch, content)
    centre = (left + width // 2, top + height // 2)
    cloned = cv2.seamlessClone(filling, around, outline, centre, cv2.NORMAL_CLONE)
    blended = np.asarray(cloned)[ring:-ring, ring:-ring, 0]
    moved = cv2.absdiff(blended, image[patch.box]) > 2
    return hard_paste(image, Patch(patch.outline | moved, patch.corner), blended)


def cut_paste(
    image: Pixels,
    sources: Sequence[Pixels],
    random: np.random.Generator,
    paste: Paste = hard_paste,
) -> tuple[Pixels, Patch]:
    """Paste a piece of a normal image, rotated and resized, into a cloud."""
    side = len(image)
    patch = place(draw_perlin(SideRange.of(side, 0.1, 0.6), random), side, random)
    donor = sources[int(random.integers(len(sources)))]
    turn = rotation_matrix(random.uniform(-math.pi / 4, math.pi / 4))
    growth = 1 + random.exponential(0.1)
    largest = 0.8 * side / np.ptp(_corners(turn, patch.outline.shape), axis=1).max()
    matrix = turn * min(growth if random.random() < 0.5 else 1 / growth, largest)
    _, size = crop_box(matrix, patch.outline.shape)
    crop = donor[place(np.ones(size, dtype=np.bool_), side, random).box]
    content = np.clip(warp_crop(crop, matrix, patch.outline.shape), donor.min(), donor.max())
    return paste(image, patch, content), patch


def crop_box(
    matrix: Float[np.ndarray, "2 2"], size: tuple[int, ...]
) -> tuple[Float[np.ndarray, "2"], tuple[int, int]]:
    """What a patch needs of its source: where the patch's corner falls, and height and width.

    Args:
        matrix: From the patch to the source.
        size: Height and width of the patch.
    """
    corners = _corners(matrix, size)
    low, high = np.floor(corners.min(axis=1)), np.ceil(corners.max(axis=1))
    height, width = (high - low).astype(int)
    return -low, (int(height), int(width))


def _corners(matrix: Float[np.ndarray, "2 2"], size: tuple[int, ...]) -> Float[np.ndarray, "2 4"]:
    height, width = size
    corners: Float[np.ndarray, "2 4"] = matrix @ np.array([[0, 0, height, height], [0, width] * 2])
    return corners


def warp_crop(
    crop: UInt8[np.ndarray, "crop_height crop_width"],
    matrix: Float[np.ndarray, "2 2"],
    size: tuple[int, ...],
) -> UInt8[np.ndarray, "height width"]:
    """Sample a crop by cubic splines, black outside it."""
    offset, _ = crop_box(matrix, size)
    warped: UInt8[np.ndarray, "height width"]
    warped = ndimage.affine_transform(crop, matrix, offset=offset, output_shape=size)
    return warped


def changed_pixels(
    before: Pixels, after: Pixels, mask: Bool[np.ndarray, "side side"]
) -> Float[np.ndarray, "side side"]:
    """CutPaste's label: which pixels of the patches differ, holes filled.

    0 where nothing changed, as where black is pasted on black, ``BARELY_CHANGED`` where the image
    rose by one grey level, else 1. Gaps of a pixel are closed, which may add some beside the mask.
    """
    rise = after - before  # of unsigned numbers: a fall becomes large, and counts as change
    levels = (rise > 0).astype(np.uint8) + (rise > 1)
    levels[~mask] = 0
    parts, _ = ndimage.label(mask)
    for box in ndimage.find_objects(parts):
        closed = cv2.morphologyEx(levels[box], cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
        levels[box] = _fill(closed >= 1) + _fill(closed >= 2)
    return np.array([0.0, BARELY_CHANGED, 1.0])[levels]


def _fill(region: Bool[np.ndarray, "height width"]) -> UInt8[np.ndarray, "height width"]:
    """1 on a region and on what it keeps from the border of the box, diagonal steps included."""
    free = np.pad(region, 1).astype(np.uint8)
    cv2.floodFill(free, None, (0, 0), 2, flags=8)
    return (free[1:-1, 1:-1] != 2).astype(np.uint8)
