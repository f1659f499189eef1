"""Pictures of many patients, as a table lists them, and what a training on them has to say."""

from types import SimpleNamespace

import numpy as np
from anomalib.engine import Engine
from lightning.pytorch import Callback
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


class Raw(Callback):
    """Scores of each validation as the model gives them, by image."""

    def __init__(self):
        self.validations = []

    def on_validation_start(self, trainer, pl_module):
        del trainer, pl_module
        self.validations.append({})

    def on_validation_batch_end(self, trainer, pl_module, outputs, *_):
        del trainer, pl_module
        scores = zip(outputs.image_path, outputs.pred_score.tolist(), strict=True)
        self.validations[-1] |= dict(scores)


def fit(model, data, home, *callbacks, epochs=2):
    """Train, and return model, trainer, data, raw scores of each validation, and the file."""
    raw = Raw()
    engine = Engine(
        default_root_dir=home, accelerator="cpu", max_epochs=epochs, enable_progress_bar=False,
        enable_model_summary=False, logger=False, callbacks=[raw, *callbacks],
    )  # fmt: skip
    engine.fit(model, datamodule=data)
    return SimpleNamespace(
        model=model, trainer=engine.trainer, data=data, raw=raw.validations,
        file=engine.trainer.checkpoint_callback.best_model_path,
    )  # fmt: skip
