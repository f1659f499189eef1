"""Where patients and volumes become abnormal, how often that is wrong, and what else is known."""

from collections.abc import Iterator, Sequence

from anomalib_medclip.evaluation.levels import UnitScores
from anomalib_medclip.report.runs import CellRun


def decided(runs: Sequence[CellRun]) -> tuple[str, ...]:
    """A sentence of each draw and level; what all draws say alike is said once.

    Nothing is said of records of former versions, which do not know.
    """
    said: dict[str, list[str]] = {}
    for run in runs:
        for sentence in _of_run(run):
            said.setdefault(sentence, []).append(_draw(run))
    count = len(runs)
    return tuple(
        f"{sentence}." if len(draws) == count > 1 else f"{', '.join(draws)}: {sentence}."
        for sentence, draws in said.items()
    )


def _draw(run: CellRun) -> str:
    return f"draw {run.record.cell.draw}, seed {run.record.cell.seed}"


def _of_run(run: CellRun) -> Iterator[str]:
    """Patients and volumes in one sentence where they are the same."""
    levels: dict[str, list[str]] = {}
    for level in ("patient", "volume"):
        if level in run.test.levels and (words := _of_level(run.test.levels[level])):
            levels.setdefault(words, []).append(f"{level}s")
    for words, named in levels.items():
        yield f"{' and '.join(named)} {words}"


def _of_level(scored: UnitScores) -> str:
    known = scored.grounds
    if known is None:
        return ""
    where = "have no threshold"
    if scored.threshold is not None:
        where = f"are called abnormal above {scored.threshold:.3f}, by {known.rule}"
    words = filter(None, (where, scored.words, known.p_words, known.probability_words))
    return "; ".join(words)
