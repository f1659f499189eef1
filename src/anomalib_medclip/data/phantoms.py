"""Phantoms: synthetic head and liver slices with lesions, patient by patient.

They are for trying things out and for tests: seeded, free to share, and hard enough that neither
brightness nor a blob filter finds the lesions. They say nothing about real patients.
"""

import hashlib
import logging
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pandas import DataFrame
from PIL import Image

from anomalib_medclip.data.batch import CLASS_NAMES
from anomalib_medclip.data.datamodule import MedicalDataModule
from anomalib_medclip.data.integrity import with_name
from anomalib_medclip.data.phantom_drawing import Patient, draw_slice
from anomalib_medclip.files import as_json

logger = logging.getLogger(__name__)

Organ = Literal["head", "liver"]
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
    stacks = True

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
        digest = hashlib.sha256(as_json(options).encode()).hexdigest()
        return self.root / f"{self.category}_{digest[:8]}"

    def prepare_data(self) -> None:
        """Draw the pictures, if they are not there; a folder appears whole or not at all."""
        if self.folder.is_dir():
            return
        count = sum(self.patients.values()) * self.slices
        logger.info("drawing %d phantom slices into %s", count, self.folder)
        self.root.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(self.draw_seed)
        with tempfile.TemporaryDirectory(dir=self.root) as temporary:
            partial = Path(temporary) / self.folder.name
            for split, patients in self.patients.items():
                for number in range(patients):
                    self._draw_patient(partial / split, number, random)
            try:
                partial.rename(self.folder)
            except OSError:
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
