"""One input after another: read, scored, and its folder of results written whole."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from anomalib_medclip.data.slicing import Sliced, cut
from anomalib_medclip.errors import IntensityError, MaskError, MedclipError
from anomalib_medclip.imaging import read_image
from anomalib_medclip.inferencer import Inferencer
from anomalib_medclip.score.dicom_out import THRESHOLD, write_dicom
from anomalib_medclip.score.inputs import Input
from anomalib_medclip.score.montage import Panel, draw_montage
from anomalib_medclip.score.record import (
    Settings,
    describe_model,
    kept_result,
    provenance,
    whole_folder,
    write_scores,
)
from anomalib_medclip.score.volume import (
    Report,
    SliceScores,
    score_slices,
    slices_to_score,
    write_nifti,
)

logger = logging.getLogger(__name__)


class Scorer:
    """Scores inputs with one model, and writes a folder of results for each.

    Args:
        model: A checkpoint or an exported model.
        out: Folder of all results.
        inferencer: The model, opened.
        settings: How to score.
        organ: Labels of organs to crop to: a file, or a folder of files named as the inputs are.
        overwrite: Whether to score again what has a result already.

    Raises:
        MaskError: There are organs, but it is not said which of their labels to crop to.
    """

    def __init__(
        self,
        model: Path,
        out: Path,
        inferencer: Inferencer,
        settings: Settings,
        organ: Path | None = None,
        overwrite: bool = False,
    ) -> None:
        if organ is not None and not settings.slicing.organ_labels:
            msg = f"{organ} holds organs, but not which to crop to; give --organ-labels"
            raise MaskError(msg)
        self.out = out
        self.inferencer = inferencer
        self.settings = settings
        self.organ = organ
        self.overwrite = overwrite
        self.about_model = describe_model(model, inferencer)

    def score(self, one: Input, report: Report = lambda done, total: None) -> dict[str, Any]:
        """Score one input, unless it has the very result already.

        Args:
            one: What to score.
            report: Told after each batch of slices.

        Returns:
            Its row in the table of all inputs: ``status`` is scored, kept or failed; what failed
            has an ``error``, and leaves no folder.
        """
        row: dict[str, Any] = {"input": one.where, "name": one.name}
        try:
            record, status = self._result(one, report)
        except (MedclipError, OSError) as error:
            logger.error("%s: %s", one.where, error)
            return {**row, "status": "failed", "error": str(error)}
        names = ("score", "mean", "label", "flat")
        numbers = {name: record[name] for name in names}
        return {**row, **numbers, "slices": len(record["slices"]), "status": status}

    def _result(self, one: Input, report: Report) -> tuple[dict[str, Any], str]:
        folder, organ = self.out / one.name, self._organ_of(one)
        made_with = provenance(self.about_model, one.files, self.settings, organ)
        if not self.overwrite and (kept := kept_result(folder, made_with)):
            logger.info("%s: %s holds its result already", one.where, folder)
            return kept, "kept"
        with whole_folder(folder) as aside:
            try:
                if one.kind == "picture":
                    record = self._picture(one, aside)
                else:
                    record = self._volume(one, organ, aside, report)
            except IntensityError as error:
                if self.inferencer.intensity is None:
                    msg = f"{error}; for this command, by --intensity"
                    raise IntensityError(msg) from error
                raise
            write_scores(aside, {"input": one.where, **record}, made_with)
        words = "abnormal" if record["label"] else "normal"
        logger.info("%s: score %.3f, %s; see %s", one.where, record["score"], words, folder)
        return record, "scored"

    def _organ_of(self, one: Input) -> Path | None:
        """The organs of an input, if there are; of a series they are named as its folder."""
        if self.organ is None or one.kind == "picture" or not self.organ.is_dir():
            return None if one.kind == "picture" else self.organ
        name = Path(one.where).name
        return self.organ / (name if one.kind == "nifti" else f"{name}.nii.gz")

    def _volume(
        self, one: Input, organ: Path | None, folder: Path, report: Report
    ) -> dict[str, Any]:
        settings, source = self.settings, one.files[0]
        sliced = cut(
            source if one.kind == "nifti" else one.files,
            self.inferencer.intensity,
            settings.slicing,
            organ=organ,
            uneven=settings.uneven,
        )
        numbers = slices_to_score(sliced.shown, settings.slices, settings.slicing.slices)
        found = score_slices(self.inferencer, sliced.images, numbers, settings.batch_size, report)
        record = _summary(found, flat=_is_flat(sliced.images, one))
        voxels = sliced.restore(found.maps)
        like = source if one.kind == "nifti" else None
        write_nifti(folder / "map.nii.gz", voxels, sliced.affine, like)
        if one.kind == "series" and settings.dicom:
            method = self.inferencer.origin["method"] or "anomaly detection"
            any_above = write_dicom(folder, one.files, voxels, method, settings.uneven)
            above = "segmentation.dcm" if any_above else f"none: no voxel is above {THRESHOLD}"
            record["segmentation"] = above
        draw_montage(folder / "montage.png", _worst(sliced, found, settings.worst), sliced.aspect)
        return record

    def _picture(self, one: Input, folder: Path) -> dict[str, Any]:
        image = read_image(one.files[0], self.inferencer.intensity).as_subclass(Tensor)
        found = self.inferencer.score(image[None])
        heat = found.full_maps[0].numpy()
        Image.fromarray(heat).save(folder / "map.tiff")
        panel = Panel(image.permute(1, 2, 0).numpy(), heat, f"score {float(found.scores[0]):.3f}")
        draw_montage(folder / "montage.png", [panel])
        slices = SliceScores((0,), found.scores, found.labels, found.full_maps)
        return _summary(slices, flat=_is_flat(image, one))


def _summary(found: SliceScores, *, flat: bool) -> dict[str, Any]:
    """Scores of the slices, and of the volume: that of its worst slice."""
    triples = zip(found.numbers, found.scores.tolist(), found.labels.tolist(), strict=True)
    rows = [
        {"slice": number, "score": score, "label": int(label)} for number, score, label in triples
    ]
    return {
        "score": float(found.scores.max()),
        "mean": float(found.scores.double().mean()),
        "label": int(found.labels.any()),
        "flat": flat,
        "slices": rows,
    }


def _is_flat(images: Tensor, one: Input) -> bool:
    flat = bool(images.min() == images.max())
    if flat:
        logger.warning("%s is the same everywhere; its score means nothing", one.where)
    return flat


def _worst(sliced: Sliced, found: SliceScores, count: int) -> list[Panel]:
    """The slices with the highest scores, the highest first."""
    order = np.argsort(-found.scores.numpy(), kind="stable")[:count].tolist()
    worst = [(found.numbers[index], float(found.scores[index])) for index in order]
    return [
        Panel(
            sliced.images[number].numpy(),
            found.maps[number].numpy(),
            f"slice {number}: {score:.3f}",
        )
        for number, score in worst
    ]
