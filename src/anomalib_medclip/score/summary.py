"""What ``scores.json`` and the table of all inputs say of an input."""

from collections.abc import Mapping
from typing import Any

from anomalib_medclip.decisions.decisions import Decisions, Verdict
from anomalib_medclip.score.batches import SliceScores
from anomalib_medclip.score.dicom_out import lacking

Row = dict[str, Any]


def summary(found: SliceScores, verdict: Verdict, decisions: Decisions, *, flat: bool) -> Row:
    """Scores of the slices, and what is decided about them together.

    Args:
        found: What the model says of each slice.
        verdict: What it decides.
        decisions: By what.
        flat: Whether the input is the same everywhere, so that its score means nothing.
    """
    labels = [None] * len(found.numbers) if found.labels is None else found.labels.int().tolist()
    triples = zip(found.numbers, found.scores.tolist(), labels, strict=True)
    rows = [{"slice": number, "score": score, "label": label} for number, score, label in triples]
    about = decisions.aggregation, decisions.aggregated
    return {
        **of_verdict(verdict),
        "worst": float(found.scores.max()),
        "mean": float(found.scores.double().mean()),
        "flat": flat,
        "aggregation": {"score_is": about[0].words, "why": about[1] or None},
        "slices": rows,
    }


def of_verdict(verdict: Verdict) -> Row:
    """What a record has of what was decided."""
    plain = verdict.as_plain()
    return {"score": plain["score"], "label": plain["label"], "verdict": plain}


def row_of(record: Row, status: str) -> Row:
    """A row of the table, of a record that has come back from JSON, too."""
    numbers = {name: record[name] for name in ("score", "worst", "mean", "label", "flat")}
    verdict = record["verdict"]
    said = {name: verdict[name] for name in _SAID}
    parts = [
        (verdict[name] or {}, columns)
        for name, columns in (("threshold", _THRESHOLD), ("p_value", _P), ("unlike", _UNLIKE))
    ]
    said |= {name: part.get(key) for part, columns in parts for name, key in columns.items()}
    lacks = {"error": reason} if (reason := lacking(record)) else {}
    return {**numbers, **said, **lacks, "slices": len(record["slices"]), "status": status}


_SAID = ("level", "probability", "prevalence", "no_verdict", "no_probability", "no_unlike")
_THRESHOLD = {"threshold": "value", "threshold_holds": "holds"}
_P = {"p_value": "value", "p_smallest": "smallest", "p_is_approximate": "is_approximate"}
_UNLIKE = {"abstains": "abstains", "distance": "distance", "distance_limit": "limit"}
"""Columns of the table, by fields of a verdict."""


def words_of(record: Mapping[str, Any]) -> str:
    """The verdict of a record, for a log and a report."""
    verdict = record["verdict"]
    label, p = record["label"], verdict["p_value"]
    words = f"no verdict ({verdict['no_verdict']})" if label is None else _LABELS[label]
    if label is not None and not verdict["threshold"]["holds"]:
        words += f", insisted ({verdict['threshold']['words']})"
    if verdict["probability"] is not None:
        words += f", probability {verdict['probability']:.2f}"
        words += f" where {100 * verdict['prevalence']:g} % are abnormal"
    if p:
        mark, ending = "about " if p["is_approximate"] else "", "s" * (p["patients"] > 1)
        words += f", p {mark}{p['value']:.3f}, with {p['patients']} normal patient{ending} at least"
        words += f" {p['smallest']:.3f}"
    return words


_LABELS = ("normal", "abnormal")
