"""Which row is the best of its test set and K, where patients and draws support that."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from anomalib_medclip.errors import MetricError
from anomalib_medclip.metrics.clustered import FEWEST_DRAWS, clear_best, difference, enough
from anomalib_medclip.report.evidence import Samples, count_patients
from anomalib_medclip.report.rows import ReportRow
from anomalib_medclip.report.runs import CellRun

Setup = tuple[str, str, int | None]
"""Training set, test set and K: rows of the same compete."""

MARKED = ("image_AUROC", "image_AP", "image_F1", "pixel_AUROC", "pixel_AP", "pixel_AUPRO")
"""Figures in which a row may be the best. Sensitivity alone is had by calling all abnormal; and of
the calibration error, patients do not say how sure it is."""

_FEW = 20
"""Patients below which the page says how close methods may lie to be told apart."""


def setup_of(row: ReportRow) -> Setup:
    """What decides which rows compete."""
    return row.trained_on, row.tested_on, row.k_shot


def mark_best(
    rows: Sequence[ReportRow],
    runs: Sequence[Sequence[CellRun]],
    samples: Sequence[Samples],
    incomplete: Collection[Setup],
) -> list[ReportRow]:
    """The same rows, ``best`` filled in, and ``caveats`` that concern a whole comparison added.

    Rows of the same training set, test set and K compete, methods, baselines and trivial ones
    alike; those without K among themselves. The best mean is marked only where it beats *every*
    other row, on the same images and draws, by patients and draws (``clustered.difference``, p <
    0.05). Nothing is marked of one row alone, while cells are missing, of fewer than 4 draws (but
    where there is no support to draw), of fewer than 5 patients of a class, or where a row has
    random weights or a training of fewer epochs than the model's own.

    Args:
        rows: Of the table.
        runs: The finished cells behind each.
        samples: Draws and influences of each.
        incomplete: Setups of which cells have failed or were not run.
    """
    marks: list[set[str]] = [set() for _ in rows]
    told: list[tuple[str, ...]] = [row.caveats for row in rows]
    for setup in dict.fromkeys(map(setup_of, rows)):
        places = [place for place, row in enumerate(rows) if setup_of(row) == setup]
        if len(places) < 2:
            continue
        if setup in incomplete:
            told_of_all = ["Cells of this comparison failed or were not run: no best is marked."]
        elif any(rows[place].untrained or rows[place].cut for place in places):
            told_of_all = ["Random weights, or a training cut short: no best is marked."]
        else:
            for metric in MARKED:
                rivals = [place for place in places if metric in rows[place].honest]
                winner = _winner(rivals, rows, runs, samples, metric)
                if winner is not None:
                    marks[winner].add(metric)
            told_of_all = list(_reach([rows[place] for place in places], places, runs, samples))
        for place in places:
            told[place] += tuple(told_of_all)
    return [
        replace(row, best=frozenset(mark), caveats=caveats)
        for row, mark, caveats in zip(rows, marks, told, strict=True)
    ]


def _winner(
    rivals: Sequence[int],
    rows: Sequence[ReportRow],
    runs: Sequence[Sequence[CellRun]],
    samples: Sequence[Samples],
    metric: str,
) -> int | None:
    if not all(metric in samples[place] for place in rivals):
        return None
    if not _of_same_images([runs[place] for place in rivals]):
        return None
    found = [samples[place][metric].sample for place in rivals]
    without_support = all(_is_zero_shot(rows[place]) for place in rivals)
    draws = 1 if without_support else FEWEST_DRAWS
    if not all(enough(sample, draws) for sample in found):
        return None
    try:
        winner = clear_best(found)
    except MetricError:  # pixels of other patients, too few of them
        return None
    return None if winner is None else rivals[winner]


def _is_zero_shot(row: ReportRow) -> bool:
    return row.k_shot is None and row.normals == "support"


def _of_same_images(rivals: Sequence[Sequence[CellRun]]) -> bool:
    """Whether all have the same draws, and each draw the same images."""
    images: dict[int, tuple[object, ...]] = {}
    for runs in rivals:
        for run in runs:
            own = run.test.images
            tested = own.name, own.patient, own.label
            if tested != images.setdefault(run.draw, tested):
                return False
    return len({frozenset(run.draw for run in runs) for runs in rivals}) <= 1


def _reach(
    rows: Sequence[ReportRow],
    places: Sequence[int],
    runs: Sequence[Sequence[CellRun]],
    samples: Sequence[Samples],
) -> Iterator[str]:
    """Of few patients, how far apart methods have to be to be told apart."""
    patients = min(count_patients(runs[place]) for place in places)
    known = [
        (row.honest["image_AUROC"].mean, samples[place]["image_AUROC"].sample)
        for row, place in zip(rows, places, strict=True)
        if "image_AUROC" in samples[place]
    ]
    if not 0 < patients < _FEW or len(known) < 2:
        return
    best, *others = (sample for _, sample in sorted(known, key=lambda one: -one[0]))
    try:
        gaps = [difference(best, other) for other in others]
    except MetricError:  # not on the same images
        return
    half = max(((gap.high - gap.low) / 2 for gap in gaps if gap.p_value < 1), default=0.0)
    if not half:  # no patient moves any difference
        return
    yield (
        f"{patients} patients cannot tell apart methods whose image AUROC is closer than "
        f"{100 * half:.0f} points (half of the widest interval of a difference)."
    )
