"""Another rule for results that are there: decided by it from their scores, without the model."""

from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np

from anomalib_medclip.decisions.decisions import Asked, Decisions
from anomalib_medclip.decisions.familiarity import Unlike
from anomalib_medclip.decisions.thresholds import Rule
from anomalib_medclip.errors import ConfigError, ResultsError
from anomalib_medclip.files import read_json
from anomalib_medclip.score.dicom_out import REPORT
from anomalib_medclip.score.record import kept_result, whole_folder, write_scores
from anomalib_medclip.score.summary import Row, of_verdict


def decided_otherwise(folder: Path, made_with: dict[str, Any]) -> dict[str, Any] | None:
    """The scores that lie in a folder, if they differ in nothing but what was asked of them."""
    try:
        found: dict[str, Any] = read_json(folder / "scores.json")
        before, settings = found["provenance"], found["provenance"]["settings"]
        asked = {"asked": made_with["settings"]["asked"]}
        same = {**before, "settings": {**settings, **asked}} == made_with != before
    except (OSError, ValueError, KeyError, TypeError):
        return None  # of which ``kept_result`` says what is wrong
    return found if same else None


def decide_anew(
    folder: Path, made_with: dict[str, Any], decisions: Decisions, asked: Asked, unfit: str
) -> Row:
    """Decide by what is asked now, and write it; scores, maps and sheet stay as they are.

    Args:
        folder: A result, of which ``decided_otherwise`` gives the record.
        made_with: As ``provenance`` gives it now.
        decisions: Those of the model that it was scored with.
        asked: What is wanted now.
        unfit: As of ``Decisions.verdict``.

    Raises:
        ResultsError: Its scores do not say all that was decided by, so that deciding as then would
            give something else: areas are not among them. Or there is a report of it.
    """
    kept = decided_otherwise(folder, made_with)
    record = kept and _decided_anew(kept, decisions, asked, unfit)
    if record is None or (folder / REPORT).is_file():
        why = f"{REPORT} says so" if record else "its scores do not tell all that it needs"
        msg = f"{folder} was decided otherwise, and {why}; give --overwrite to score it again"
        raise ResultsError(msg)

    def check() -> None:
        if not decided_otherwise(folder, made_with):
            kept_result(folder, made_with)

    with whole_folder(folder, check) as aside:
        for file in folder.iterdir():
            copyfile(file, aside / file.name)
        write_scores(aside, record, made_with)
    return record


def _decided_anew(record: Row, decisions: Decisions, asked: Asked, unfit: str) -> Row | None:
    """``None`` if by what was asked then it would not be decided as it was."""
    try:
        before = record["provenance"]["settings"]["asked"]
        rule = before["rule"] and Rule(**before["rule"])
        asked_then = Asked(rule, before["insist"], before["prevalence"])
        then = _decided(record, decisions, asked_then, unfit)
    except (AttributeError, KeyError, TypeError, ValueError, ConfigError):
        return None
    return _decided(record, decisions, asked, unfit) if then == record else None


def _decided(record: Row, decisions: Decisions, asked: Asked, unfit: str) -> Row:
    said, scores = record["verdict"], [row["score"] for row in record["slices"]]
    unlike = said["unlike"] and Unlike(*(said["unlike"][name] for name in Unlike._fields))
    areas = np.full(len(scores), np.nan)  # not known
    found = decisions.verdict(
        said["level"], scores, areas, asked, unlike, unfit, said["no_unlike"] or ""
    )
    return {**record, **of_verdict(found)}
