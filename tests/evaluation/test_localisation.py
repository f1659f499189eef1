"""Figures of pixels and lesions of a test, against those of the metrics that they come from."""

import pytest
import torch
from anomalib.data import ImageBatch

from anomalib_medclip.compare.dataset_result import PatientInfluence
from anomalib_medclip.components.processors import RankPreservingPostProcessor
from anomalib_medclip.data.batch import MedicalBatch
from anomalib_medclip.evaluation.localisation import (
    LESION_FIGURES,
    SEVERAL_PROCESSES,
    Localisation,
    MapBatch,
)
from anomalib_medclip.metrics.lesion_wise import LesionWise
from anomalib_medclip.metrics.ranked import AUPRO, AUROC

SIDE, SLICES, PATIENTS = 12, 3, 8
TOO_FEW_LESIONS = "too few patients: lesions of 1 are outlined, and 5 are needed"


def threshold_at(value):
    post = RankPreservingPostProcessor()
    post._pixel_threshold.fill_(value)
    return post


def batch_of(patient, ill):
    """The slices of a volume, in any order of their numbers, with a lesion through two of them."""
    random = torch.Generator().manual_seed(patient)
    masks = torch.zeros(SLICES, SIDE, SIDE, dtype=torch.bool)
    masks[:2, 2:6, 2:6] = ill
    maps = torch.rand(SLICES, SIDE, SIDE, generator=random)
    maps[0] += masks[0] * torch.rand(1, generator=random)  # of the lesion one slice shows
    maps[2, 9:, 9:] += 0.4  # a mark on no lesion
    order = [1, 2, 0] if patient % 2 else [0, 1, 2]
    return MedicalBatch(
        image=torch.zeros(SLICES, 3, SIDE, SIDE), anomaly_map=maps[order], gt_mask=masks[order],
        image_path=[f"P{patient}/ct.nii.gz/axial_{at:03d}.png" for at in order],
        gt_label=masks[order].any(dim=(1, 2)),
    )  # fmt: skip


@pytest.fixture(scope="module")
def batches():
    return [batch_of(patient, ill=patient < 6) for patient in range(PATIENTS)]


def added(batches, whole=True):
    """Localisation of batches, and the metric that has seen them, too."""
    found, overlap = Localisation(), AUPRO(fields=["anomaly_map", "gt_mask"])
    ranked = AUROC(fields=["anomaly_map", "gt_mask"], scores_of=overlap)
    for number, batch in enumerate(batches):
        overlap.update(batch)
        ranked.update(batch)
        volume = f"P{number}/ct.nii.gz" if whole else ""
        found.add(MapBatch.of(batch, [f"P{number}"] * SLICES, [volume] * SLICES))
    known = {"pixel_AUROC": float(ranked.compute()), "pixel_AUPRO": float(overlap.compute())}
    return found, known, overlap


def test_lesions_are_counted_through_the_slices_of_a_volume(batches):
    found, known, overlap = added(batches)
    figures = found.figures(known, overlap, threshold_at(1.0))
    direct = LesionWise()
    for number, batch in enumerate(batches):
        places = [int(path[-7:-4]) for path in batch.image_path]
        names = [f"P{number}"] * SLICES
        direct.add(batch.anomaly_map, batch.gt_mask, names, names, places)
    expected = direct.figures(1.0)
    assert expected.lesions == 6  # and not 12, one a slice
    for name, field in LESION_FIGURES.items():
        one = getattr(expected, field)
        assert figures.found[name].value == pytest.approx(one.value), name
        assert (figures.found[name].low, figures.found[name].high) == pytest.approx(
            (one.interval.low, one.interval.high)
        )
    assert figures.froc["1.0"] == pytest.approx(expected.froc[1.0].value)
    assert {"pixel_AUROC", "lesion_Sensitivity", "pixel_Dice"} <= set(figures.influences)
    for influence in figures.influences.values():  # as records of a comparison hold them
        assert PatientInfluence.of(influence).value == influence.value
    apart, known, overlap = added(batches, whole=False)
    apart = apart.figures(known, overlap, threshold_at(1.0))
    assert apart.found["lesion_Sensitivity"].value < figures.found["lesion_Sensitivity"].value


def test_batches_in_another_order_change_nothing(batches):
    one, other = (
        found.figures(known, overlap, threshold_at(1.0)).found
        for found, known, overlap in (added(batches), added([*batches[:6][::-1], *batches[6:]]))
    )
    for name, figure in one.items():
        assert other[name].value == pytest.approx(figure.value), name


def test_without_a_threshold_of_pixels_there_is_the_curve_alone(batches):
    found, known, overlap = added(batches)
    figures = found.figures(known, overlap, RankPreservingPostProcessor()).found
    assert figures["lesion_FROC"].value is not None
    for name in LESION_FIGURES.keys() - {"lesion_FROC"}:
        assert figures[name].value is None
        assert "no threshold of pixels is known" in figures[name].words


def test_without_masks_there_is_nothing_and_it_is_said(batches):
    batch = ImageBatch(image=batches[0].image, anomaly_map=batches[0].anomaly_map)
    assert MapBatch.of(batch, ["P0"] * SLICES, [""] * SLICES) is None
    figures = Localisation().figures({"pixel_AUROC": None}, None, threshold_at(1.0))
    assert {one.words for one in figures.found.values()} == {"no lesion is outlined"}
    assert (figures.influences, figures.froc) == ({}, {})


def test_lesions_of_few_patients_have_no_interval(batches):
    found, known, overlap = added(batches[3:])  # of three with lesions
    for name, one in found.figures(known, overlap, threshold_at(1.0)).found.items():
        if name == "lesion_FalsePositives":  # of all five
            assert one.low is not None
            continue
        assert one.low is None, name
        assert one.words == "too few patients: lesions of 3 are outlined, and 5 are needed"


def test_of_few_patients_a_share_that_seems_certain_is_none_and_the_word(batches):
    batch = batches[3]  # with a lesion
    found = Localisation()
    lesion = batch.gt_mask.float()
    found.add(MapBatch.of(batch, ["P3"] * SLICES, ["ct"] * SLICES)._replace(maps=lesion))
    known = {"pixel_AUROC": 1.0, "pixel_AP": 0.0, "pixel_AUPRO": 0.9}
    figures = found.figures(known, None, threshold_at(0.5)).found
    for name in ("lesion_Sensitivity", "lesion_FalsePositives", "pixel_Dice", "lesion_Dice"):
        assert figures[name].value is None, name
        assert figures[name].words == TOO_FEW_LESIONS
    assert (figures["pixel_AUROC"].value, figures["pixel_AUROC"].words) == (None, TOO_FEW_LESIONS)
    assert figures["pixel_AP"].value is None
    assert figures["pixel_AUPRO"].value == 0.9
    marks = torch.zeros_like(lesion)
    marks[0, :2, :2] = 1  # one false alarm of one patient, which is no share
    found = Localisation()
    found.add(MapBatch.of(batch, ["P3"] * SLICES, ["ct"] * SLICES)._replace(maps=marks))
    figures = found.figures(known, None, threshold_at(0.5)).found
    assert figures["lesion_FalsePositives"].value == 1
    assert figures["lesion_Sensitivity"].value is None


def test_in_several_processes_figures_of_ranks_have_no_interval_and_it_is_said(batches):
    found, known, _ = added(batches)
    figures = found.figures(known, None, threshold_at(1.0)).found
    assert figures["pixel_AUROC"].words == SEVERAL_PROCESSES
    assert figures["lesion_Sensitivity"].low is not None


def test_pixels_of_which_nobody_knows_are_of_no_lesion(batches):
    batch = batches[0]
    ignored = torch.zeros_like(batch.gt_mask)
    ignored[:, 9:, 9:] = True  # where the mark on no lesion is
    known = MedicalBatch(**{
        name: getattr(batch, name) for name in ("image", "anomaly_map", "gt_mask", "image_path")
    }, ignored=ignored)  # fmt: skip
    counts = []
    for one in (batch, known):
        found = Localisation()
        for patient in range(5):
            found.add(MapBatch.of(one, [f"P{patient}"] * SLICES, ["ct"] * SLICES))
        figures = found.figures({"pixel_AUROC": None}, None, threshold_at(1.2)).found
        counts.append(figures["lesion_FalsePositives"].value)
    assert counts[1] < counts[0]
