"""What a test finds, image by image and as figures, while it goes through the batches."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from anomalib.data import ImageBatch
from anomalib.metrics import Evaluator
from lightning import LightningModule, Trainer
from pandas import DataFrame, Series, concat
from torch import Tensor

from anomalib_medclip.components.processors import placed
from anomalib_medclip.components.threshold import has_threshold
from anomalib_medclip.data.few_shot import patients
from anomalib_medclip.decisions.decisions import Decisions
from anomalib_medclip.decisions.reference import Level
from anomalib_medclip.evaluation.figures import (
    CHOSEN_ON_TEST,
    Figures,
    at_threshold,
    figures,
    rank_metrics,
)
from anomalib_medclip.evaluation.levels import (
    TOO_FEW,
    Found,
    ImageAnswers,
    UnitScores,
    figures_of,
    levels_of,
    of_few,
)
from anomalib_medclip.evaluation.localisation import Localisation, MapBatch
from anomalib_medclip.metrics.calibration import CalibrationError
from anomalib_medclip.metrics.influence import Influence
from anomalib_medclip.metrics.ranked import AUPRO
from anomalib_medclip.metrics.raw import raw


def identities(table: DataFrame) -> Series:
    """A pseudonym of the patient of each row, the same in every draw and every comparison.

    A volume whose patient is unknown, or an image by itself, is its own.

    Anyone who has a list of names can compute theirs and compare: the records, which hold them, are
    to stay inside as the names do. The report has none of them.
    """
    known = patients(table)
    if "volume" in table:
        known = known.where((table["group"] != "") | (table["volume"] == ""), table["volume"])
    return known.map(lambda name: hashlib.sha256(name.encode()).hexdigest()[:12])


class _Row(NamedTuple):
    """What a test says of an image; see ``ImageAnswers``."""

    path: str
    label: int
    score: float
    raw_score: float
    halved: float
    called: bool | None
    area: float | None


class Outcome(NamedTuple):
    """What was found in a test.

    Attributes:
        figures: Every figure by name, however few patients it is of.
        found: Those of images, volumes, patients and pixels with their intervals.
        images: What was said of every image, in the order of the test.
        levels: Scores of images, of volumes if there are any, and of patients.
        aggregated: How images become one score of a volume or patient, and why so.
        influences: Of every patient on the figures of pixels and lesions, where they are known.
        froc: Share of lesions found by false positives per patient; empty without lesions.
    """

    figures: Figures
    found: dict[str, Found]
    images: ImageAnswers
    levels: dict[Level, UnitScores]
    aggregated: str
    influences: dict[str, Influence]
    froc: dict[str, float]

    @property
    def honest(self) -> Figures:
        """Figures but those whose threshold is chosen on the test labels.

        A mean over draws is of all of them; what a single run shows is ``found``.
        """
        return {k: v for k, v in self.figures.items() if k not in CHOSEN_ON_TEST}


class Findings(Evaluator):
    """anomalib's evaluator, which keeps what it finds in float64 and image by image.

    Args:
        val_metrics: What is found on validation images, by which an epoch may be chosen.
        more_metrics: What is found besides on test images.

    Attributes:
        result: What was found, once a test has ended.
    """

    def __init__(self, val_metrics: Sequence[Any] = (), more_metrics: Sequence[Any] = ()) -> None:
        image: dict[str, Any] = {"fields": ["pred_score", "gt_label"], "prefix": "image_"}
        self.of_test: list[Any] = [*rank_metrics(), CalibrationError(**image), *more_metrics]
        super().__init__(list(val_metrics), self.of_test)
        self.start()

    def __getstate__(self) -> dict[str, Any]:
        """Without what was found, which names images and does not go into exports."""
        return self.__dict__ | {
            "result": None, "_batches": {}, "_known": None, "_maps": {}, "_localisation": None,
        }  # fmt: skip

    def start(self) -> None:
        """Forget what was found."""
        self.result: Outcome | None = None
        self._batches: dict[int, list[list[_Row]]] = {}
        self._known: DataFrame | None = None
        self._maps: dict[int, list[MapBatch]] = {}
        self._localisation: Localisation | None = None
        for metric in self.of_test:
            metric.reset()

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self.start()
        self._calls = has_threshold(pl_module.post_processor)
        self._known = _table(loaders_of(trainer))
        self._localisation = Localisation()

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - as Lightning passes it
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add the images of a batch."""
        super().on_test_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)
        found = list(self._rows(batch, f"{dataloader_idx}.{batch_idx}", pl_module.post_processor))
        self._batches.setdefault(dataloader_idx, []).append(found)
        known = self._of([row.path for row in found])
        maps = MapBatch.of(batch, known["patient"].tolist(), known["volume"].tolist())
        if maps is not None:
            self._maps.setdefault(dataloader_idx, []).append(maps)
            if trainer.world_size == 1:
                self._localise(dataloader_idx, None)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute all figures; nothing is logged, whose float32 would round them."""
        batches = []
        for number, loader in enumerate(loaders_of(trainer)):
            batches += self.of_all(self._batches.get(number, []), loader)
            self._localise(number, loader)
        images = self._scored([row for batch in batches for row in batch])
        # A model of anyone's making may know nothing of it.
        decisions: Decisions | None = getattr(pl_module, "decisions", None)
        levels = levels_of(images, decisions)
        images = images._replace(called=levels["image"].called)
        known = figures(self.of_test) | at_threshold(images.called, images.labels)
        overlap = next(metric for metric in self.of_test if isinstance(metric, AUPRO))
        alone = overlap if trainer.world_size == 1 else None
        assert self._localisation is not None  # since the test began
        localised = self._localisation.figures(known, alone, pl_module.post_processor)
        found = localised.found
        for level, scored in levels.items():
            found |= figures_of(level, scored, known)
        found |= dict(_of_few(known, found))
        self.result = Outcome(
            figures={name: one.value for name, one in found.items()} | known,
            found=found,
            images=images,
            levels=levels,
            aggregated=_aggregation_in_words(decisions or Decisions()),
            influences=localised.influences,
            froc=localised.froc,
        )
        self._batches, self._known, self._localisation = {}, None, None

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the scores go, which exports would hold; what was found is in ``result``."""
        del trainer, pl_module
        for metric in self.of_test:
            metric.reset()

    def of_all(self, own: list[Any], loader: object) -> list[Any]:
        """What all processes have found of the batches of a loader; here there is one process."""
        del loader
        return own

    def _localise(self, number: int, loader: object) -> None:
        """Take maps that were kept into account, in several processes those of all."""
        assert self._localisation is not None  # while a test runs
        for one in self.of_all(self._maps.pop(number, []), loader):
            self._localisation.add(one)

    def _rows(self, batch: ImageBatch, number: str, post: Any) -> Iterator[_Row]:  # noqa: ANN401
        kept = raw(batch)  # nothing, if another post-processor has placed the scores already
        given, own = (cast("Tensor", one.pred_score).cpu() for one in (batch, kept or batch))
        halved = given.double() if kept is None else placed(post, own)
        scores, raw_scores, halves = (one.flatten().tolist() for one in (given, own, halved))
        labels = cast("Tensor", batch.gt_label).flatten().bool().tolist()
        paths = batch.image_path or [f"{number}.{place}" for place in range(len(scores))]
        said, masks = batch.pred_label if self._calls else None, batch.pred_mask
        called = [None] * len(scores) if said is None else said.flatten().bool().tolist()
        areas = [None] * len(scores) if masks is None else _areas(masks)
        columns = zip(paths, labels, scores, raw_scores, halves, called, areas, strict=True)
        for path, label, *others in columns:
            yield _Row(str(path), int(label), *others)

    def _of(self, paths: list[str]) -> DataFrame:
        """Patient, by a pseudonym, and volume of each image; who is unknown is his own."""
        assert self._known is not None  # while a test runs
        found = self._known.reindex(paths, fill_value="").rename_axis("image_path").reset_index()
        return found.assign(patient=identities(found))

    def _scored(self, rows: Sequence[_Row]) -> ImageAnswers:
        called = [row.called for row in rows if row.called is not None]
        areas = [row.area for row in rows if row.area is not None]
        known = self._of([row.path for row in rows])
        return ImageAnswers(
            paths=[row.path for row in rows],
            patients=known["patient"].tolist(),
            volumes=known["volume"].tolist(),
            labels=[row.label for row in rows],
            scores=[row.score for row in rows],
            raw_scores=[row.raw_score for row in rows],
            halved=np.array([row.halved for row in rows], dtype=np.float64),
            called=called if len(called) == len(rows) else None,
            areas=areas if len(areas) == len(rows) else None,
            unknown=int((known["group"] == "").sum()),
            of_ill=(known["of_ill"] == "True").tolist(),
        )


def loaders_of(trainer: Trainer) -> list[Any]:
    """Those of a test."""
    loaders: Any = trainer.test_dataloaders
    return loaders if isinstance(loaders, list) else [loaders]


def _table(loaders: Iterable[Any]) -> DataFrame:
    """What is known of the images of these: patient and volume; nobody's data need say so."""
    tables = [getattr(getattr(loader, "dataset", None), "samples", None) for loader in loaders]
    known = [one for one in tables if isinstance(one, DataFrame) and "image_path" in one]
    columns = ["image_path", "group", "volume", "of_ill"]
    nothing = DataFrame(columns=columns, dtype=str)
    whole = [one.reindex(columns=columns, fill_value="").astype(str) for one in known]
    return concat([nothing, *whole]).drop_duplicates("image_path").set_index("image_path")


def _aggregation_in_words(decisions: Decisions) -> str:
    reason = decisions.aggregated or "fixed, since the model knows no patients to choose by"
    return f"{decisions.aggregation.words}, {reason}"


def _areas(masks: Tensor) -> list[float]:
    """Share of each image that is called abnormal."""
    shares: list[float] = masks.flatten(1).as_subclass(Tensor).cpu().double().mean(dim=1).tolist()
    return shares


def _of_few(known: Figures, found: Mapping[str, Found]) -> Iterator[tuple[str, Found]]:
    """Other figures, where those of the same place say that patients are too few."""
    for name in sorted(known.keys() - found.keys() - set(CHOSEN_ON_TEST)):
        of_ranks = found.get(f"{name.partition('_')[0]}_AUROC")
        if of_ranks and of_ranks.words.startswith(TOO_FEW):
            yield name, of_few(known[name], of_ranks.words)
