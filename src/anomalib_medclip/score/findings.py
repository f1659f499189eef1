"""What a report says of a volume, of what ``scores.json`` says of it."""

from collections.abc import Mapping
from typing import Any

from anomalib_medclip.data.slice_places import in_the_series
from anomalib_medclip.data.slicing import Sliced
from anomalib_medclip.score.dicom_report import Findings, Measurement, Statement
from anomalib_medclip.score.summary import words_of

_YES: dict[Any, str] = {True: "yes", False: "no"}


def findings_of(
    record: Mapping[str, Any],
    threshold: Mapping[str, Any],
    sliced: Sliced,
    worst: int,
) -> Findings:
    """What there is to report.

    Args:
        record: As ``summary`` gives it.
        threshold: What it is ``from``.
        sliced: The volume, cut.
        worst: Of how many slices to report the score, the worst first.
    """
    rows = sorted(record["slices"], key=lambda row: -row["score"])[:worst]
    numbers = [
        Measurement("score", "Anomaly score of the volume", record["score"]),
        Measurement("mean", "Mean anomaly score of the slices", record["mean"]),
        Measurement("slices", "Number of slices that were scored", len(record["slices"])),
    ]
    numbers += _of_verdict(record["verdict"])
    for row in rows:
        if (place := in_the_series(sliced, row["slice"])) is not None:
            meaning = "Anomaly score of a slice"
            numbers.append(Measurement("slice-score", meaning, row["score"], slice=place))
    listed = "; ".join(f"slice {row['slice']}: {row['score']:.3f}" for row in rows)
    words = [
        Statement("verdict", "Verdict of the model", words_of(record)),
        Statement("score-is", "What the score is of", record["aggregation"]["score_is"]),
        Statement("threshold-from", "Where the threshold is from", threshold["from"]),
        *_of_verdict_in_words(record["verdict"]),
        Statement("worst-slices", "Slices with the highest scores", listed),
    ]
    return Findings(words, numbers)


def _of_verdict(verdict: Mapping[str, Any]) -> list[Measurement]:
    """Numbers of a verdict, those that there are."""
    known = verdict["threshold"] or {}
    p, unlike = verdict["p_value"] or {}, verdict["unlike"] or {}
    alarms = " among normal patients"
    numbers = [
        ("threshold", "Threshold of the scores", known.get("value")),
        ("p-value", f"Share of such scores{alarms}", p.get("value")),
        ("p-smallest", "Smallest share that can be", p.get("smallest")),
        ("probability", "Probability that the patient is abnormal", verdict["probability"]),
        ("prevalence", "Share of abnormal patients it is for", verdict["prevalence"]),
        ("distance", "Distance from images the model was made with", unlike.get("distance")),
        ("distance-limit", "Distance beyond which nothing is decided", unlike.get("limit")),
    ]
    return [Measurement(*one) for one in numbers if one[2] is not None]


def _of_verdict_in_words(verdict: Mapping[str, Any]) -> list[Statement]:
    """What was decided about, how sure that is, and why something is not there."""
    known, p, unlike = (verdict[name] or {} for name in ("threshold", "p_value", "unlike"))
    said = [
        ("level", "What was decided about", verdict["level"]),
        ("threshold-error", "How often the threshold is wrong", known.get("words")),
        ("threshold-holds", "Whether the threshold holds what was asked", known.get("holds")),
        ("p-approximate", "Whether the share is approximate", p.get("is_approximate")),
        ("no-probability", "Why there is no probability", verdict["no_probability"]),
        ("abstains", "Whether the images are too unlike", unlike.get("abstains")),
        ("unlike-error", "How often that is wrong", unlike.get("words")),
        ("no-unlike", "Why strange images cannot be told", verdict["no_unlike"]),
    ]
    return [
        Statement(code, meaning, _YES.get(value, value))
        for code, meaning, value in said
        if value is not None
    ]
