"""A trained model is tested on each of its sets, and what is worth keeping is kept."""

from collections.abc import Mapping
from typing import Any

from anomalib.engine import Engine
from anomalib.models.components.base import AnomalibModule

from anomalib_medclip.compare import pictures
from anomalib_medclip.compare.cell_record import Arrays, TrainingFacts
from anomalib_medclip.compare.dataset_result import (
    DatasetResult,
    ImageScores,
    KeptExplanation,
    KeptPictures,
    KnownPatients,
    LostLesions,
    PatientInfluence,
)
from anomalib_medclip.compare.evaluator import GalleryFindings
from anomalib_medclip.compare.explanation import explain
from anomalib_medclip.compare.grid import Cell
from anomalib_medclip.compare.oracle import oracle_of
from anomalib_medclip.data.datamodule import MedicalDataModule
from anomalib_medclip.data.lesions import count_lesions, total
from anomalib_medclip.evaluation.figures import Figures
from anomalib_medclip.evaluation.findings import Outcome, identities


def evaluate(
    cell: Cell,
    model: AnomalibModule,
    engine: Engine,
    tested: Mapping[str, MedicalDataModule],
    after_epochs: Mapping[str, Mapping[int, Figures]],
    facts: TrainingFacts,
) -> tuple[tuple[DatasetResult, ...], Arrays]:
    """Test a model on each of some data.

    Args:
        cell: The cell.
        model: Its model, trained.
        engine: What trained it.
        tested: The data, by name.
        after_epochs: Figures after other epochs, by name of the data and epoch.
        facts: What was done in the training.

    Returns:
        What was found on each, and the arrays that this names.
    """
    results: list[DatasetResult] = []
    arrays: Arrays = {}
    for number, (name, data) in enumerate(tested.items()):
        engine.test(model=model, datamodule=data)
        model.to(engine.trainer.strategy.root_device)  # Lightning takes off it what it has tested
        findings = model.evaluator
        assert isinstance(findings, GalleryFindings)  # which the cell gave it
        found = findings.result
        assert found is not None  # as it was tested
        gallery, explanation, kept = _kept(cell, model, data, findings, f"test{number}_")
        others, epoch = after_epochs[name], facts.tested_epoch
        result = DatasetResult(
            data=name,
            object_name=data.object_name,
            has_masks=data.has_masks,
            lesions=_lost_lesions(data),
            honest=found.honest,
            images=_image_scores(found, data),
            patients=_known_patients(data),
            levels={name: one for name, one in found.levels.items() if name != "image"},
            aggregated=found.aggregated,
            froc=found.froc,
            influence={k: PatientInfluence.of(v) for k, v in found.influences.items()},
            pixel_curves=findings.curves,
            gallery=gallery,
            explain=explanation,
            **oracle_of(found.figures, epoch, others, facts.epochs)._asdict(),
        )
        results.append(result)
        arrays |= kept
    return tuple(results), arrays


def _image_scores(found: Outcome, data: MedicalDataModule) -> ImageScores:
    """Scores in the order of the data's table."""
    table = data.test_data.samples
    images, called = found.images, found.images.called
    place = {path: at for at, path in enumerate(images.paths)}
    order = [place[path] for path in table["image_path"]]
    return ImageScores(
        name=tuple(pictures.relative_paths(table)),
        patient=tuple(identities(table).factorize(sort=True)[0].tolist()),
        label=tuple(table["label_index"].astype(int).tolist()),
        score=tuple(images.scores[at] for at in order),
        raw_score=tuple(images.raw_scores[at] for at in order),
        called=None if called is None else tuple(int(called[at]) for at in order),
    )


def _known_patients(data: MedicalDataModule) -> KnownPatients:
    table = data.test_data.samples
    _, known = identities(table).factorize(sort=True)
    return KnownPatients(known_as=tuple(known), unknown=int((table["group"] == "").sum()))


def _lost_lesions(data: MedicalDataModule) -> LostLesions | None:
    """How many lesions the test masks outline, and how many are lost at the model's size."""
    test: Any = data.test_data
    resize = test.augmentations
    if not data.has_masks or resize is None:
        return None
    found = total(count_lesions(lesion, resize) for lesion in test.lesions())
    height, width = test[0].image.shape[-2:]
    return LostLesions(size=(height, width), **found)


def _kept(
    cell: Cell,
    model: AnomalibModule,
    data: MedicalDataModule,
    findings: GalleryFindings,
    prefix: str,
) -> tuple[KeptPictures | None, KeptExplanation | None, Arrays]:
    """What a cell keeps to look at after a test: pictures, explanations, their arrays."""
    if "pictures" not in cell.keeps:
        return None, None, {}
    kept, arrays = pictures.keep(data, findings.maps, prefix)
    if "explanations" not in cell.keeps:
        return kept, None, arrays
    shown: list[Any] = [data.test_data[index] for index in kept.image]
    explanation = explain(model, shown, data.support_data, cell.seed)
    if explanation is None:
        return kept, None, arrays
    found, more = explanation.as_record(f"{prefix}explain", kept.image)
    return kept, found, arrays | more
