"""Inputs read ahead, scored in full batches, and written behind, each folder whole."""

import logging
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from anomalib_medclip.components.threshold import LEARNT_FROM
from anomalib_medclip.data.slicing import Sliced, cut
from anomalib_medclip.errors import (
    IntensityError,
    MaskError,
    MedclipError,
    OutputError,
)
from anomalib_medclip.files import A_FOLDER, fault_of
from anomalib_medclip.provenance import without_folders
from anomalib_medclip.readers.picture import read_image
from anomalib_medclip.score.anew import decide_anew, decided_otherwise
from anomalib_medclip.score.batches import SliceScores, Stack, in_batches, resized_slices
from anomalib_medclip.score.dicom_images import Maker
from anomalib_medclip.score.dicom_out import DicomResults
from anomalib_medclip.score.findings import findings_of
from anomalib_medclip.score.inferencer import Inferencer
from anomalib_medclip.score.inputs import Input
from anomalib_medclip.score.model_files import slicing_from
from anomalib_medclip.score.montage import draw_montage, view_of, worst_slices
from anomalib_medclip.score.nifti_out import slices_to_score, write_nifti
from anomalib_medclip.score.prefetch import ahead
from anomalib_medclip.score.record import (
    ScoreSettings,
    describe_model,
    kept_result,
    provenance,
    whole_folder,
    write_scores,
)
from anomalib_medclip.score.summary import Row, row_of, summary, words_of

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Job(Stack):
    """An input that was read, on its way through the model.

    Attributes:
        one: The input.
        made_with: As ``provenance`` gives it.
        source: The volume, cut, or the picture ``(3, row, column)``.
        dicom: What is written of a DICOM series as DICOM, unless nobody wants it.
    """

    one: Input
    made_with: dict[str, Any]
    source: Sliced | Tensor
    dicom: DicomResults | None = None


class Scorer:
    """Scores inputs with one model, and writes a folder of results for each.

    Args:
        model: A checkpoint or an exported model.
        out: Folder of all results.
        inferencer: The model, opened.
        settings: How to score.
        organ: Labels of organs to crop to: a file, or a folder of files named as the inputs are.
        overwrite: Whether to score again what has a result already.
        workers: Threads that read ahead while the model computes; one more then writes what is
            scored. 0 for none; results are the same.

    Attributes:
        rows: What has become of each input so far, by its name; a row of the table of all inputs.
            ``status`` is scored, kept or failed; what failed has an ``error``, and no folder.

    Raises:
        MaskError: There are organs, but it is not said which of their labels to crop to.
    """

    def __init__(
        self,
        model: Path,
        out: Path,
        inferencer: Inferencer,
        settings: ScoreSettings,
        organ: Path | None = None,
        overwrite: bool = False,
        workers: int = 0,
    ) -> None:
        if organ is not None and not settings.slicing.organ_labels:
            msg = f"{organ} holds organs, but not which to crop to; give --organ-labels"
            raise MaskError(msg)
        self.out = out
        self.inferencer = inferencer
        self.settings = settings
        self.organ = organ
        self.overwrite = overwrite
        self.workers = workers
        self.about_model = describe_model(model, inferencer)
        self._threshold_from = self.about_model["threshold"]["from"]
        if self._threshold_from.startswith(LEARNT_FROM):
            logger.warning("the threshold of %s is from %s", model, self._threshold_from)
        self.rows: dict[str, Row] = {}

    def score(
        self,
        inputs: Iterable[Input],
        ended: Callable[[], None] = lambda: None,
        report: Callable[[Job], None] = lambda job: None,
    ) -> None:
        """Score inputs, but those that have the very result already; ``rows`` gets one of each.

        If it is stopped, say from the keyboard, results that are being written are finished, and
        no others are begun.

        Args:
            inputs: What to score.
            ended: Told whenever an input has its row, by any thread.
            report: Told after each batch, of the input it ended in.

        Raises:
            OutputError: The disk of the results is full; no other input is begun.
        """
        read, write = (partial(self._tried, step, ended) for step in (self._read, self._write))
        with closing(ahead(read, inputs, self.workers)) as found:
            jobs = (job for job in found if job is not None)
            scored = in_batches(
                self.inferencer.answer,
                jobs,
                self.settings.batch_size,
                report,
                shared=self.inferencer.shares_batches,
            )
            with closing(ahead(write, scored, min(1, self.workers))) as written:
                for _ in written:
                    pass

    def _tried(
        self, step: Callable[[Any], Job | Row], ended: Callable[[], None], given: Input | Job
    ) -> Job | None:
        """What a step makes of an input; none once it has its row."""
        one = given.one if isinstance(given, Job) else given
        try:
            made = step(given)
        except OutputError:  # which is of all inputs
            raise
        except (MedclipError, OSError) as error:
            logger.error("%s: %s", one.where, error)
            folders = (one.files[0].parent, self.out, self.organ or self.out)
            made = {"status": "failed", "error": without_folders(str(error), *folders)}
        if isinstance(made, Job):
            return made
        about = {"input": one.where, "name": one.name, "threshold_from": self._threshold_from}
        self.rows[one.name] = {**about, **made}
        ended()
        return None

    def _read(self, one: Input) -> Job | Row:
        organ = self._organ_of(one)
        made_with = provenance(self.about_model, one.files, self.settings, organ)
        if not self.overwrite and decided_otherwise(self.out / one.name, made_with):
            return self._decide_anew(one, made_with)
        if kept := self._kept(one, made_with):
            logger.info("%s: %s holds its result already", one.where, self.out / one.name)
            return row_of(kept, "kept")
        try:
            if one.kind == "picture":
                return self._picture(one, made_with)
            return self._volume(one, made_with, organ)
        except IntensityError as error:
            if self.inferencer.intensity is None:
                msg = f"{error}; for this command, by --intensity"
                raise IntensityError(msg) from error
            raise

    def _kept(self, one: Input, made_with: dict[str, Any]) -> dict[str, Any] | None:
        """The very result of an input, if it is there and to be kept; another one is refused."""
        return None if self.overwrite else kept_result(self.out / one.name, made_with)

    def _decide_anew(self, one: Input, made_with: dict[str, Any]) -> Row:
        unfit = "" if one.kind == "picture" else self._other_cut()
        asked, folder = self.settings.asked, self.out / one.name
        record = decide_anew(folder, made_with, self.inferencer.decisions, asked, unfit)
        logger.info("%s: decided anew, %s; see %s", one.where, words_of(record), folder)
        return row_of(record, "kept")

    def _organ_of(self, one: Input) -> Path | None:
        """The organs of an input, if there are; of a series they are named as its folder."""
        if self.organ is None or one.kind == "picture" or fault_of(self.organ) is not A_FOLDER:
            return None if one.kind == "picture" else self.organ
        name = Path(one.where).name.removesuffix(".dcm")
        return self.organ / (name if one.kind == "nifti" else f"{name}.nii.gz")

    def _volume(self, one: Input, made_with: dict[str, Any], organ: Path | None) -> Job:
        settings = self.settings
        dicom = DicomResults(one.where) if one.kind == "series" and settings.dicom else None
        sliced = cut(
            one.files[0] if one.kind == "nifti" else one.files,
            self.inferencer.intensity,
            settings.slicing,
            organ=organ,
            uneven=settings.uneven,
            dicom_where=settings.dicom_where,
            on_headers=dicom.check if dicom else None,
        )
        numbers = slices_to_score(sliced.shown, settings.slices, settings.slicing.slices)
        resized = resized_slices(self.inferencer.resize, sliced.images, numbers)
        images = self.inferencer.send(resized)
        shape = tuple(sliced.images.shape)
        return Job(tuple(numbers), shape, images, one, made_with, sliced, dicom)

    def _picture(self, one: Input, made_with: dict[str, Any]) -> Job:
        image = read_image(one.files[0], self.inferencer.intensity).as_subclass(Tensor)
        images = self.inferencer.send(self.inferencer.resize(image[None]).as_subclass(Tensor))
        return Job((0,), (1, *image.shape[1:]), images, one, made_with, image)

    def _write(self, job: Job) -> Row:
        one, source, found = job.one, job.source, job.scores()
        images = source.images if isinstance(source, Sliced) else source
        model, asked, is_volume = self.inferencer, self.settings.asked, isinstance(source, Sliced)
        verdict = model.decide(
            found.scores, found.areas, found.vectors, is_volume=is_volume, asked=asked,
            unfit=self._other_cut() if is_volume else "",
        )  # fmt: skip
        flat = _is_flat(images, one)
        record = {"input": one.where, **summary(found, verdict, model.decisions, flat=flat)}
        with whole_folder(self.out / one.name, lambda: self._kept(one, job.made_with)) as aside:
            if isinstance(source, Sliced):
                record |= self._write_volume(job, source, record, found, aside)
            else:
                self._write_picture(source, found, aside)
            write_scores(aside, record, job.made_with)
        words, folder = words_of(record), self.out / one.name
        logger.info("%s: score %.3f, %s; see %s", one.where, record["score"], words, folder)
        return row_of(record, "scored")

    def _other_cut(self) -> str:
        """In what volumes are cut otherwise than in training, if they are."""
        settings, trained = self.settings, self.inferencer.slicing
        if trained is None:  # on pictures, of whose making nobody knows
            return ""
        slices = settings.slices or settings.slicing.slices
        ours = replace(settings.slicing, slices=slices).as_plain()
        theirs = slicing_from(trained, settings.slicing.transforms).as_plain()
        others = sorted(name for name in ours if ours[name] != theirs[name])
        return f"volumes are cut otherwise than in training ({', '.join(others)})" if others else ""

    def _write_volume(
        self, job: Job, sliced: Sliced, record: Row, found: SliceScores, folder: Path
    ) -> dict[str, Any]:
        """Write map, sheet and DICOM; what else there is to say of them."""
        worst = self.settings.worst
        voxels = sliced.restore(found.maps)
        like = sliced.headers[0] if job.one.kind == "nifti" else None
        write_nifti(folder / "map.nii.gz", voxels, sliced.affine, like)
        known = self.inferencer.has_pixel_threshold
        views = worst_slices(sliced, found, worst, known)
        draw_montage(folder / "montage.png", views, has_threshold=known)
        if job.dicom is None:
            return {}
        findings = findings_of(record, job.made_with["threshold"], sliced, worst)
        method = self.inferencer.origin["method"] or "anomaly detection"
        maker = Maker.of(method, job.made_with)
        job.dicom.write(folder, voxels, findings, maker, has_threshold=known)
        return job.dicom.record()

    def _write_picture(self, image: Tensor, found: SliceScores, folder: Path) -> None:
        """Write map and sheet."""
        heat = found.maps[0].numpy()
        Image.fromarray(heat).save(folder / "map.tiff")
        known = self.inferencer.has_pixel_threshold
        view = view_of("", image.permute(1, 2, 0), found, 0, found.maps[0], known)
        draw_montage(folder / "montage.png", [view], has_threshold=known)


def _is_flat(images: Tensor, one: Input) -> bool:
    flat = bool(images.min() == images.max())
    if flat:
        logger.warning("%s is the same everywhere; its score means nothing", one.where)
    return flat
