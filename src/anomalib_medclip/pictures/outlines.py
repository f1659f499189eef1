"""Outlines of masks: truth solid, prediction dashed, each of its colour, dark at both sides."""

from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

Colour = tuple[int, int, int]
Line = Literal["solid", "dashed"]

TRUTH: Colour = (0, 229, 255)
"""Cyan: of the truth, whose line is solid."""

PREDICTION: Colour = (255, 225, 77)
"""Yellow, of the prediction, whose line is dashed. Blue against yellow is what nearly all who are
colour-blind tell apart, and neither is among the colours around the threshold."""

_CASING: Colour = (16, 18, 22)
_DASH, _GAP = 6, 4  # pixels


def resized_mask(
    mask: Bool[np.ndarray, "row column"], width: int, height: int
) -> Bool[np.ndarray, "height width"]:
    """A mask of another size; of a smaller one, every pixel that has any of it: none gets lost."""
    shrinks = width < mask.shape[1] or height < mask.shape[0]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST
    return cv2.resize(mask.astype(np.float32), (width, height), interpolation=how) > 0


def draw_outline(
    image: UInt8[np.ndarray, "row column 3"],
    mask: Bool[np.ndarray, "row column"],
    colour: Colour,
    line: Line,
    thickness: int = 1,
) -> None:
    """Draw the edge of a mask, its own outermost pixels, into an image of the same size."""
    edges, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    if not edges:
        return
    stroke: UInt8[np.ndarray, "row column"] = np.zeros(mask.shape, np.uint8)
    for edge in edges:
        points = edge[:, 0]
        shown = np.arange(len(points)) % (_DASH + _GAP) < _DASH
        points = points[shown] if line == "dashed" else points
        stroke[points[:, 1], points[:, 0]] = 1
    if thickness > 1:
        wider = cv2.dilate(stroke, np.ones((thickness, thickness), np.uint8))
        stroke = wider.astype(np.uint8)
    casing = cv2.dilate(stroke, np.ones((3, 3), np.uint8)).astype(bool) & (stroke == 0)
    image[casing] = (0.4 * image[casing] + 0.6 * np.array(_CASING)).astype(np.uint8)
    image[stroke > 0] = colour
