"""What a report says of a volume, of what ``scores.json`` says of it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from anomalib_medclip.data.slicing import Sliced
from anomalib_medclip.score.dicom_report import Findings, Measurement, Statement

_SAME_PLACE = 0.01  # of the distance of slices


def findings_of(
    record: Mapping[str, Any],
    threshold: Mapping[str, Any],
    verdict: str,
    sliced: Sliced,
    worst: int,
) -> Findings:
    """What there is to report.

    Args:
        record: ``score`` and ``mean`` of the volume, and a row with ``slice`` and ``score`` of each
            of its ``slices``.
        threshold: Its ``value``, ``None`` if none is known, and what it is ``from``.
        verdict: The label in words.
        sliced: The volume, cut.
        worst: Of how many slices to report the score, the worst first.
    """
    rows = sorted(record["slices"], key=lambda row: -row["score"])[:worst]
    numbers = [
        Measurement("score", "Anomaly score of the volume", record["score"]),
        Measurement("mean", "Mean anomaly score of the slices", record["mean"]),
        Measurement("slices", "Number of slices that were scored", len(record["slices"])),
    ]
    if threshold["value"] is not None:
        numbers.append(Measurement("threshold", "Threshold of the scores", threshold["value"]))
    for row in rows:
        if (place := _in_the_series(sliced, row["slice"])) is not None:
            meaning = "Anomaly score of a slice"
            numbers.append(Measurement("slice-score", meaning, row["score"], slice=place))
    listed = "; ".join(f"slice {row['slice']}: {row['score']:.3f}" for row in rows)
    words = [
        Statement("verdict", "Verdict of the model", verdict),
        Statement("threshold-from", "Where the threshold is from", threshold["from"]),
        Statement("worst-slices", "Slices with the highest scores", listed),
    ]
    return Findings(words, numbers)


def _in_the_series(sliced: Sliced, number: int) -> int | None:
    """Which slice of the series a slice of the cut is; none, if it was cut across several."""
    across = np.linalg.inv(sliced.affine) @ sliced.picture_affine  # (row, column, slice) to indices
    row, column, step, start = across[0]
    place = step * number + start
    is_one = max(abs(row), abs(column), abs(place - round(place))) < _SAME_PLACE
    return round(place) if is_one else None
