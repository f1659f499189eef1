"""Pictures of many patients, as a table lists them: some have several, some are unknown."""

import numpy as np
from PIL import Image

from anomalib_medclip.data import MedicalFolder

SIDE = 32


def patients(split, normal=0, abnormal=0, images=(1,), unknown=()):
    """Rows ``(split, patient, label)``; patients have as many images as ``images`` says in turn.

    Of an abnormal patient the first image is abnormal, and the others are normal.
    """
    for label, count in enumerate((normal, abnormal)):
        for number in range(count):
            for image in range(images[number % len(images)]):
                yield split, f"{split}-{label}-{number}", label if image == 0 else 0
    for label in unknown:
        yield split, "", label


def square(random, patient, label):
    """Noise with a square that is brighter, often little, and its mask."""
    del patient
    pixels, lesion = random.normal(90, 12, (SIDE, SIDE)), np.zeros((SIDE, SIDE), bool)
    top, left = random.integers(2, 18, 2)
    lesion[top : top + 12, left : left + 12] = label
    pixels[lesion] += random.uniform(0, 90)
    return pixels.clip(0, 255).astype(np.uint8), lesion


def write_cohort(root, rows, seed=0, draw=square):
    """A picture of each row, drawn with ``draw(random, patient, label)``, and ``table.csv``."""
    random, lines = np.random.default_rng(seed), ["image,label,mask,patient,split"]
    for number, (split, patient, label) in enumerate(rows):
        pixels, lesion = draw(random, patient, label)
        paths = f"images/{number}.png", f"masks/{number}.png"
        for path, drawn in zip(paths, (pixels, lesion.astype(np.uint8) * 255), strict=True):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(drawn).save(root / path)
        lines.append(f"{paths[0]},{label},{paths[1] if label else ''},{patient},{split}")
    (root / "table.csv").write_text("\n".join(lines) + "\n")
    return root


def cohort_data(root, **options):
    """A datamodule of what ``write_cohort`` has written, split as its rows say."""
    usual = {"split_column": "split", "mask_column": "mask", "train_batch_size": 4}
    return MedicalFolder(
        table=root / "table.csv", patient_column="patient", object_name="phantom", num_workers=0,
        **{**usual, **options},
    )  # fmt: skip
