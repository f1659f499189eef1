"""MediCLIP's synthetic anomalies: a normal image becomes a training image with a label."""

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from anomalib_medclip.models.mediclip.tasks import (
    Pixels,
    Task,
    changed_pixels,
    cut_paste,
    gauss_intensity_change,
    identity,
    poisson_paste,
    source,
)

TASKS: Mapping[str, float] = MappingProxyType(
    {"CutPaste": 0.25, "GaussIntensityChange": 0.25, "Source": 0.25, "Identity": 0.25}
)
"""The authors' weights. The paper has no Identity; without it no training image is normal."""

SMALLEST_SIDE = 16
"""Pixels below which a patch cannot be cut from an image."""


class Synthetic(NamedTuple):
    """An image, its label in [0, 1], and the task that made it."""

    image: Pixels
    label: Float[np.ndarray, "side side"]
    task: str


def synthesize(
    image: Pixels,
    sources: Sequence[Pixels],
    random: np.random.Generator,
    tasks: Mapping[str, float] = TASKS,
    poisson: bool = False,
) -> Synthetic:
    """Alter one or two patches of a normal image by a task drawn by chance.

    The label is 1 on the patches, as in the paper. CutPaste's is that of the code,
    ``changed_pixels``; with Poisson blending it includes what changed beside the patches.

    Args:
        image: Grey levels.
        sources: Normal images of the same size for CutPaste; the image may be among them.
        random: The sample's own source of chance, the only one: equal streams, equal results.
        tasks: Weights of the tasks to draw from; their sum does not matter.
        poisson: Blend CutPaste's patches as the paper says, not paste them as the code does.

    Raises:
        ValueError: Images are not grey ``uint8`` squares of one size, or too small; there is no
            source; a task is unknown or has no weight.
    """
    names, weights = task_chances(tasks)
    side = _checked_side(image, sources)
    name = names[random.choice(len(names), p=weights)]
    alter = _task(name, poisson)
    altered, mask = image, np.zeros((side, side), dtype=np.bool_)
    for _ in range(2):
        altered, patch = alter(altered, sources, random)
        mask |= patch.mask(side)
        if random.random() < 0.5:
            break
    pixels = altered.astype(np.uint8)  # truncated, as the authors' loader does
    if name == "CutPaste":
        label = changed_pixels(image, pixels, mask | (pixels != image))
    else:
        label = mask.astype(np.float64)
    return Synthetic(pixels, label, name)


def task_chances(tasks: Mapping[str, float]) -> tuple[tuple[str, ...], Float[np.ndarray, "task"]]:
    """Names of tasks and their probabilities, of sum 1.

    Raises:
        ValueError: A name is unknown, a weight negative or not finite, or none positive.
    """
    weights = np.array([float(weight) for weight in tasks.values()])
    known, valid = set(tasks) <= set(TASKS), np.isfinite(weights).all() and (weights >= 0).all()
    if not (known and valid and weights.sum() > 0):
        msg = (
            f"tasks {dict(tasks)} are not weights of synthesis tasks; give some of "
            f"{', '.join(TASKS)} weights of 0 or more, and one at least a positive weight"
        )
        raise ValueError(msg)
    return tuple(tasks), weights / weights.sum()


def _task(name: str, poisson: bool) -> Task:
    known: dict[str, Task] = {
        "CutPaste": partial(cut_paste, paste=poisson_paste) if poisson else cut_paste,
        "GaussIntensityChange": gauss_intensity_change,
        "Source": source,
        "Identity": identity,
    }
    return known[name]


def _checked_side(image: Pixels, sources: Sequence[Pixels]) -> int:
    if not sources:
        msg = "no source images to cut from; give one normal image or more, such as the support"
        raise ValueError(msg)
    for one in (image, *sources):
        if one.dtype != np.uint8 or one.shape != (len(image), len(image)):
            msg = (
                f"got {one.dtype} of shape {one.shape} beside an image of shape {image.shape}; "
                "give grey uint8 images, all squares of one size"
            )
            raise ValueError(msg)
    if len(image) < SMALLEST_SIDE:
        msg = f"an image of {len(image)} pixels a side is too small; {SMALLEST_SIDE} are needed"
        raise ValueError(msg)
    return len(image)


_MEANING = {
    "CutPaste": "a piece of a normal image, rotated and resized",
    "GaussIntensityChange": "a cloud made brighter or darker",
    "Source": "an ellipse or rectangle magnified from within",
    "Identity": "nothing changed",
}
_NIGHT, _CHALK, _ASH, _EMBER = (16, 17, 20), (238, 238, 232), (150, 152, 158), (255, 122, 48)
_MARGIN, _GAP, _HEADING = 20, 4, 36


def contact_sheet(
    images: Sequence[Pixels],
    sources: Sequence[Pixels] = (),
    tasks: Mapping[str, float] = TASKS,
    seed: int = 0,
    poisson: bool = False,
    panel: int = 192,
) -> Image.Image:
    """Draw what each task makes of some images: the image, the synthetic one, and its label.

    Args:
        images: Grey levels; two or three make a handy sheet.
        sources: What CutPaste cuts from; by default the images.
        tasks: The tasks to show, a row each; those of weight 0 are left out.
        seed: Seed of all draws.
        poisson: As in ``synthesize``.
        panel: Side of a picture on the sheet in pixels.

    Raises:
        ValueError: As ``synthesize``.
    """
    names = [name for name, chance in zip(*task_chances(tasks), strict=True) if chance > 0]
    triple, row = 3 * panel + 2 * _GAP + _MARGIN, panel + _HEADING + _GAP
    size = (_MARGIN + len(images) * triple, len(names) * row + _HEADING)
    sheet = Image.new("RGB", size, _NIGHT)
    for line, name in enumerate(names):
        _write_heading(sheet, name, _MARGIN // 2 + line * row)
        for column, image in enumerate(images):
            random = np.random.default_rng([seed, line, column])
            made = synthesize(image, sources or images, random, {name: 1.0}, poisson)
            panels = _panels(image, made, panel)
            for place, pixels in enumerate(panels):
                left = _MARGIN + column * triple + place * (panel + _GAP)
                sheet.paste(Image.fromarray(pixels), (left, _HEADING + line * row))
    _write_captions(sheet, len(images), panel)
    return sheet


def _write_heading(sheet: Image.Image, name: str, top: int) -> None:
    draw, bold, light = ImageDraw.Draw(sheet), *(ImageFont.load_default(size) for size in (17, 13))
    draw.text((_MARGIN, top + 20), name, _CHALK, bold, anchor="ls")
    after = _MARGIN + draw.textlength(name, bold) + 10
    draw.text((after, top + 20), _MEANING[name], _ASH, light, anchor="ls")


def _write_captions(sheet: Image.Image, count: int, panel: int) -> None:
    """Name the three pictures of each image, below the last row."""
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for number in range(3 * count):
        image, place = divmod(number, 3)
        middle = _MARGIN * (1 + image) + (panel + _GAP) * number - _GAP * image + panel // 2
        word = ("normal", "synthetic", "label")[place]
        draw.text((middle, sheet.height - 22), word, _ASH, font, anchor="mm")


def _panels(
    image: Pixels, made: Synthetic, panel: int
) -> tuple[UInt8[np.ndarray, "panel panel 3"], ...]:
    """The image, the synthetic one, and the latter with its label tinted and outlined."""
    before, after = (_enlarge(one, panel) for one in (image, made.image))
    label = cv2.resize(made.label, (panel, panel), interpolation=cv2.INTER_LINEAR) > 0.5
    marked = after.copy()
    marked[label] = np.rint(0.75 * marked[label] + 0.25 * np.array(_EMBER)).astype(np.uint8)
    outlines, _ = cv2.findContours(label.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    thickness = max(1, panel // 128)
    cv2.drawContours(marked, outlines, -1, _EMBER, thickness, cv2.LINE_AA)
    return before, after, marked


def _enlarge(image: Pixels, panel: int) -> UInt8[np.ndarray, "panel panel 3"]:
    resized = Image.fromarray(image).resize((panel, panel), Image.Resampling.LANCZOS)
    return np.array(resized.convert("RGB"))
