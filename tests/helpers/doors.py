"""What becomes of one file wherever this package is given it.

The doors are training (the data set of a data module), ``check``, ``slice``, ``score``,
``Inferencer`` and anomalib's prediction. Each is opened as its command opens it, without what
comes after reading.
"""

from collections import defaultdict
from pathlib import Path
from types import NoneType, SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from anomalib.data import PredictDataset
from PIL import Image
from torch.utils.data import DataLoader

from anomalib_medclip import Inferencer
from anomalib_medclip.components.processors import MedicalPreProcessor
from anomalib_medclip.data import image_checks
from anomalib_medclip.data.checks import check_data
from anomalib_medclip.data.slice_tree import cut_tree
from anomalib_medclip.errors import ImageReadError, MedclipError, SupportError
from anomalib_medclip.score.record import ScoreSettings
from anomalib_medclip.score.scorer import Scorer

LISTED = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
"""Endings that anomalib lists for prediction."""


class Outcome(NamedTuple):
    """What a door makes of a file: numbers in [0, 1], or an error, by its class and words."""

    numbers: Any = None
    error: tuple[str, str] | None = None

    @classmethod
    def of(cls, read, *given):
        try:
            return cls(np.asarray(read(*given)))
        except MedclipError as error:
            return cls.refusal(error)

    @classmethod
    def refusal(cls, error):
        return cls(error=(type(error).__name__, str(error)))

    def is_that_of(self, other, atol=0.0):
        if self.error or other.error:
            return self.error == other.error
        return self.numbers.shape == other.numbers.shape and bool(
            np.allclose(self.numbers, other.numbers, rtol=0, atol=atol)
        )


# --- training and check


def train(data):
    """By path, what training has of each image, and where a lesion is, ``(row, column)``."""
    table = data.complete(data.list_images())
    images = data._dataset(table if "split" in table else table.assign(split="test"))
    found, lesions = {}, {}
    for number, path in enumerate(images.samples["image_path"]):
        found[path] = Outcome.of(lambda n=number: images[n].image)
        lesions[path] = Outcome.of(lambda n=number: images[n].gt_mask)
    return found, lesions


def check(data):
    """The same of ``check``; what keeps an image or its mask from being read, in its place."""
    found, lesions = {}, {}
    look, count = image_checks.look_at_pixels, data.read_lesion

    def looked(path, image):
        found[path] = Outcome(np.asarray(image))
        return look(path, image)

    def counted(row):
        lesions[row["image_path"]] = Outcome(np.asarray(count(row), dtype=np.uint8))
        return lesions[row["image_path"]].numbers > 0

    with (
        patch.object(image_checks, "look_at_pixels", looked),
        patch.object(data, "read_lesion", counted),
    ):
        report = check_data(data)
    for problem in report.problems:
        if problem.severity == "error" and not isinstance(problem.cause, SupportError | NoneType):
            found.setdefault(problem.file, Outcome.refusal(problem.cause))
        elif problem.error is ImageReadError and problem.cause is None:  # as training says it
            said = f"{problem.file} {problem.problem}; {problem.remedy}"
            found.setdefault(problem.file, Outcome.refusal(ImageReadError(said)))
    return found, lesions


# --- score, Inferencer, prediction


class Reading(Scorer):
    """``score`` that keeps what it has read, and writes nothing."""

    def _read(self, one):
        try:
            job = super()._read(one)
        except MedclipError as error:
            self.outcomes[one.where] = Outcome.refusal(error)
            raise
        self.outcomes[one.where] = Outcome(np.asarray(getattr(job.source, "images", job.source)))
        return job

    def _write(self, job):
        return {"status": "scored"}


def score(inputs, model, out):
    """By place below what was given, what ``score`` reads: images, or grey slices."""
    scorer = Reading(model.path, out, model.inferencer, ScoreSettings())
    scorer.outcomes = {}
    scorer.score(inputs)
    for row in scorer.rows.values():
        assert (row["status"] == "failed") == bool(scorer.outcomes[row["input"]].error)
    return scorer.outcomes


def infer(paths, model):
    """By path, what ``Inferencer`` gives its model."""
    given = []

    def kept(images):
        given[:] = [np.asarray(images[0])]
        return images

    def answered(images):
        none, maps = torch.zeros(len(images)), torch.zeros(len(images), 2, 2)
        return SimpleNamespace(scores=none, labels=None, maps=maps, areas=none, vectors=None)

    def predicted(path):
        model.inferencer.predict(path)
        return given[0]

    inferencer = model.inferencer
    with patch.object(inferencer, "resize", kept), patch.object(inferencer, "answer", answered):
        return {str(path): Outcome.of(predicted, path) for path in paths}


class Model:
    """A model that is opened once, and reads by one policy after the other."""

    def __init__(self, path):
        self.path, self.inferencer = Path(path), Inferencer(path)

    def reading(self, intensity):
        self.inferencer.intensity = intensity
        return self


def predict(paths, intensity, side):
    """By path, what anomalib's prediction gives a model of such a side; its own errors, too.

    anomalib opens a file before this package is asked: what it cannot open is refused by
    ``on_exception``, as it does while Lightning predicts.
    """
    return {
        str(path): Outcome.of(_predicted, path, MedicalPreProcessor(side, intensity))
        for path in paths
        if path.suffix.lower() in LISTED
    }


def _predicted(path, processor):
    loader = DataLoader(PredictDataset(path), collate_fn=PredictDataset.collate_fn.fget(None))
    trainer = SimpleNamespace(
        predict_dataloaders=[loader],
        predicting=True,
        _signal_connector=SimpleNamespace(teardown=lambda: None),
    )
    module = SimpleNamespace(device="cpu")
    try:
        [batch] = loader
    except Exception as error:  # Pillow's own
        processor.on_exception(trainer, module, error)
        raise
    processor.on_predict_batch_start(trainer, module, batch, 0)
    return batch.image[0]


# --- volumes


def stacked(slices):
    """By the path of a volume, its slices ``(slice, row, column)``; what is refused, as it is."""
    volumes = defaultdict(list)
    found = {}
    for path, outcome in slices.items():
        folder, _, name = path.rpartition("/")
        if outcome.error:
            found[path] = outcome
        else:
            volumes[folder].append((name, outcome.numbers[0]))
    return found | {
        folder: Outcome(np.stack([grey for _, grey in sorted(named)]))
        for folder, named in volumes.items()
    }


def sliced(data, out):
    """By the path of a volume, the pictures that ``slice`` writes of it."""
    tree = cut_tree(data, out, bits=16)
    named = defaultdict(list)
    for path in sorted(tree.folder.glob("*/*/img/*.png")):
        named[path.stem[: -len("_000")]].append(np.asarray(Image.open(path)) / 65535)
    found = {}
    for case in data.cases():
        if words := tree.failed.get(case.image.relative_to(data.root).as_posix()):
            found[str(case.image)] = Outcome(error=("", words))
        else:
            found[str(case.image)] = Outcome(np.stack(named[case.patient]))
    return found
