"""Phantoms: synthetic head and liver slices with lesions, patient by patient.

They are for trying things out and for tests: seeded, free to share, and hard enough that neither
brightness nor a blob filter finds the lesions. They say nothing about real patients.
"""

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pandas import DataFrame
from PIL import Image

from anomalib_medclip.data.batch import CLASS_NAMES
from anomalib_medclip.data.datamodule import MedicalDataModule
from anomalib_medclip.data.integrity import with_name

logger = logging.getLogger(__name__)

Organ = Literal["head", "liver"]
Canvas: TypeAlias = NDArray[np.float64]
"""Square picture of side ``side``; positions and lengths are in halves of it, centre at 0."""

_RECIPE = 1
"""To be raised when the drawing changes, so that pictures of an older recipe are not taken."""


class Phantoms(MedicalDataModule):
    """Synthetic slices: every second one of a patient holds one to three lesions.

    Drawn once, as 8-bit PNG files, into a folder named after the options.

    Args:
        root: Folder for the pictures.
        organ: What the slices show.
        k_shot: Number of support images of each class.
        patients: Patients to draw the support from, for validation, and for test.
        slices: Slices a patient, half of them abnormal.
        side: Height and width in pixels.
        seed: Seed of the drawing and of the draw of the support.
        **kwargs: Options of ``MedicalDataModule``.
    """

    has_masks = True

    def __init__(
        self,
        root: Path | str = "datasets/phantoms",
        organ: Organ = "head",
        k_shot: int = 16,
        patients: tuple[int, int, int] = (12, 4, 12),
        slices: int = 8,
        side: int = 112,
        seed: int = 0,
        **kwargs: Any,  # noqa: ANN401 - passed on
    ) -> None:
        super().__init__(k_shot=k_shot, seed=seed, **kwargs)
        self.root = with_name(root)
        self.data_name = self.root.name
        self.category = organ
        self.object_name = organ
        self.patients = dict(zip(("train", "valid", "test"), patients, strict=True))
        self.slices = slices
        self.side = side

    @property
    def folder(self) -> Path:
        """Where the pictures of these options lie."""
        options = [_RECIPE, self.category, self.patients, self.slices, self.side, self.draw_seed]
        digest = hashlib.sha256(json.dumps(options).encode()).hexdigest()
        return self.root / f"{self.category}_{digest[:8]}"

    def prepare_data(self) -> None:
        """Draw the pictures, if they are not there; a folder appears whole or not at all."""
        if self.folder.is_dir():
            return
        count = sum(self.patients.values()) * self.slices
        logger.info("drawing %d phantom slices into %s", count, self.folder)
        self.root.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=self.root))
        random = np.random.default_rng(self.draw_seed)
        for split, patients in self.patients.items():
            for number in range(patients):
                self._draw_patient(partial / split, number, random)
        partial.chmod(0o755)
        try:
            partial.rename(self.folder)
        except OSError:
            shutil.rmtree(partial)
            if not self.folder.is_dir():  # else another process was faster
                raise

    def load_table(self) -> DataFrame:
        """List the slices of all patients."""
        self.prepare_data()
        rows = []
        for mask in sorted(self.folder.glob("*/mask/*.png")):
            split, name = mask.parent.parent, mask.name
            label = int((split / "abnormal" / name).is_file())
            rows.append(
                {
                    "image_path": str(split / CLASS_NAMES[label] / name),
                    "label_index": label,
                    "mask_path": str(mask) if label else "",
                    "group": f"{split.name} {name.split('_')[0]}",
                    "split": split.name,
                }
            )
        return DataFrame(rows)

    def _draw_patient(self, folder: Path, number: int, random: np.random.Generator) -> None:
        patient = Patient.draw(random)
        abnormal = random.permutation(np.arange(self.slices) % 2 == 1)
        for index, height in enumerate(np.linspace(-0.7, 0.7, self.slices)):
            pixels, lesions = draw_slice(
                self.category, patient, float(height), bool(abnormal[index]), self.side, random
            )
            word = CLASS_NAMES[int(abnormal[index])]
            for kind, picture in ((word, pixels), ("mask", lesions.astype(np.uint8) * 255)):
                path = folder / kind / f"{number:03d}_{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(path)


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
