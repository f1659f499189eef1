"""Records become rows: means, intervals, both protocols, and the papers' figures beside them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any, NamedTuple

from pandas import DataFrame

from anomalib_medclip.compare.cell_record import (
    CellRecord,
    ComparisonGrid,
    PlannedCell,
    TrainingFacts,
)
from anomalib_medclip.data.batch import CLASS_NAMES
from anomalib_medclip.files import from_json
from anomalib_medclip.published import published
from anomalib_medclip.report.best import Setup, mark_best
from anomalib_medclip.report.columns import COSTS, METRICS, protocols_of
from anomalib_medclip.report.decided import decided
from anomalib_medclip.report.evidence import Samples, caveats, estimate, samples_of
from anomalib_medclip.report.rows import Estimate, ReportRow
from anomalib_medclip.report.runs import CellRun, by_draw, runs_on

_KINDS = ("method", "baseline", "trivial")
_EPOCHS = {"last": "last epoch", "validation": "best epoch on the validation images"}
_PRINTED_AS = {"cflow": "cflowad", "reversedistillation": "rd4ad"}
"""Classes of anomalib that the papers call otherwise."""


_Setup = tuple[str, str, str, int | None]
"""Model, kind of training, training set and K of a cell."""


class _Line(NamedTuple):
    """What the cells of a row have in common."""

    model: str
    normals: str
    kind: str
    trained_on: str
    tested_on: str
    k_shot: int | None


def summarise(grid: ComparisonGrid, records: Sequence[CellRecord]) -> list[ReportRow]:
    """Rows of the table, methods first, then baselines, then trivial ones, each as in the config.

    A row takes the draws and seeds of one model, data, test set and K; a cell that failed counts in
    ``failed`` of its rows. Honest figures, but the calibration error, have an interval over the
    patients tested and the draws of the support (``metrics.clustered``), the seeds of a draw
    averaged before; oracle figures have none, as of their epochs no scores are kept. A figure that
    is undefined in every cell is absent.

    Args:
        grid: What was planned; ``published`` in it names the sets as the papers do.
        records: Finished and failed cells.

    Raises:
        UnknownNameError: ``published`` of the grid names a set that no paper has.
    """
    zero_shot = {_setup(one.cell) for one in records if one.facts and one.facts.zero_shot}
    groups: dict[_Line, list[CellRecord]] = {}
    for record in records:
        for line in _lines(record.cell, zero_shot):
            groups.setdefault(line, []).append(record)
    order = _order([*grid.cells, *(record.cell for record in records)])
    names = {data: name for data, name in grid.published.items() if name}
    tested = {name for cell in grid.cells for name in cell.tests}  # of others no figure is printed
    tables = {data: published(dataset=name) for data, name in names.items() if data in tested}
    rows, runs, samples = [], [], []
    for line in sorted(groups, key=order):
        found = groups[line]
        is_zero_shot = _setup(found[0].cell) in zero_shot
        printed = _published(line, is_zero_shot, found[0].cell, names, tables)
        runs.append(runs_on(line.tested_on, found))
        samples.append(samples_of(runs[-1], list(METRICS)))
        rows.append(_row(line, found, runs[-1], printed, samples[-1], is_zero_shot))
    return mark_best(rows, runs, samples, _incomplete(grid, records, zero_shot))


def _incomplete(
    grid: ComparisonGrid, records: Sequence[CellRecord], zero_shot: set[_Setup]
) -> set[Setup]:
    """Comparisons of which cells have failed or were not run."""
    done = {record.key for record in records if record.status == "done"}
    return {
        (line.trained_on, line.tested_on, line.k_shot)
        for cell in (*grid.cells, *(record.cell for record in records))
        if cell.key not in done
        for line in _lines(cell, zero_shot)
    }


def _setup(cell: PlannedCell) -> _Setup:
    """What decides whether a cell is zero-shot; one that failed does not know by itself."""
    return cell.model, cell.normals, cell.data, cell.k_shot


def _lines(cell: PlannedCell, zero_shot: set[_Setup]) -> list[_Line]:
    k = None if _setup(cell) in zero_shot or cell.normals == "train" else cell.k_shot
    return [
        _Line(cell.model, cell.normals, cell.kind, cell.data, tested, k) for tested in cell.tests
    ]


def _order(cells: Sequence[PlannedCell]) -> Callable[[_Line], tuple[float, ...]]:
    """Sort key: kinds, then models, normals and data as the config has them, then K."""
    models, normals, data = (
        list(dict.fromkeys(names))
        for names in (
            (cell.model for cell in cells),
            (cell.normals for cell in cells),
            (cell.data for cell in cells),
        )
    )
    tests = list(dict.fromkeys(name for cell in cells for name in cell.tests))

    def key(line: _Line) -> tuple[float, ...]:
        return (
            _KINDS.index(line.kind),
            models.index(line.model),
            normals.index(line.normals),
            data.index(line.trained_on),
            tests.index(line.tested_on),
            float("inf") if line.k_shot is None else line.k_shot,
        )

    return key


def _row(
    line: _Line,
    records: Sequence[CellRecord],
    runs: Sequence[CellRun],
    printed: tuple[dict[str, Any], ...],
    samples: Samples,
    zero_shot: bool,
) -> ReportRow:
    facts = [run.facts for run in runs]
    choices = dict.fromkeys(fact.epoch_choice for fact in facts if fact.epochs > 1)
    return ReportRow(
        **line._asdict(),
        note=_note(records[0].cell.note, facts),
        untrained=any(fact.untrained for fact in facts),
        cut=_cut(facts),
        draws=len(runs),
        failed=sum(record.status == "failed" for record in records),
        honest=_estimates(runs, "honest", samples),
        oracle=_estimates(runs, "oracle", {}),
        gap=_estimates(runs, "gap", {}),
        learns_abnormal=any(fact.learns_abnormal for fact in facts),
        epoch=" or ".join(_EPOCHS.get(choice, choice) for choice in choices if choice),
        published=printed,
        cost=_cost(runs),
        keys=tuple(record.key for record in records),
        caveats=tuple(caveats(runs, samples, zero_shot)),
        aggregated=tuple(dict.fromkeys(r.test.aggregated for r in runs if r.test.aggregated)),
        decided=decided(runs),
    )


def _note(said: str, facts: Sequence[TrainingFacts]) -> str:
    """What the config says of the model and, where they are not its own, what its prompts say."""
    words = next((fact.words for fact in facts if fact.words), {})
    states = (f"{word}: {', '.join(words[word])}" for word in CLASS_NAMES if word in words)
    return "; ".join(filter(None, (said, *states)))


def _cut(facts: Sequence[TrainingFacts]) -> str:
    """How far a training was cut short, by the numbers of epochs, in words."""
    cut = [(fact.epochs, own) for fact in facts if (own := fact.own_epochs or 0) > fact.epochs]
    return " or ".join(f"{epochs} of {own} epochs" for epochs, own in dict.fromkeys(cut))


def _estimates(runs: Sequence[CellRun], protocol: str, samples: Samples) -> dict[str, Estimate]:
    found = {}
    for metric in METRICS:
        values = list(by_draw(runs, protocol, metric).values())
        if values and protocol in protocols_of(metric):
            found[metric] = estimate(values, samples.get(metric))
    return found


def _cost(runs: Sequence[CellRun]) -> dict[str, float]:
    measured = [asdict(run.record.measured) for run in runs]
    found = {one.name: [m[one.name] for m in measured] for one in COSTS}
    known = {name: [v for v in values if v is not None] for name, values in found.items()}
    return {name: float(median(values)) for name, values in known.items() if values}


def _published(
    line: _Line,
    zero_shot: bool,
    cell: PlannedCell,
    names: Mapping[str, str],
    tables: Mapping[str, DataFrame],
) -> tuple[dict[str, Any], ...]:
    """Printed cells of the same method, set, K and kind of training, ablations left out."""
    if line.tested_on not in tables:
        return ()
    table = tables[line.tested_on]
    name = _plain(cell.model_config["class_path"].rsplit(".", 1)[-1])
    settings, source = ["few-shot", "few-normal-shot"], ""
    if zero_shot:
        settings = ["zero-shot"]
    elif line.trained_on != line.tested_on:
        settings, source = ["cross-dataset"], names.get(line.trained_on, "unknown")
    elif line.normals == "train":
        settings = ["full-shot"]
    k = table["k"].isna() if line.k_shot is None else table["k"].eq(line.k_shot).fillna(False)
    same = table["method"].map(_plain).eq(_PRINTED_AS.get(name, name)) & k
    same &= table["variant"].eq("") & table["setting"].isin(settings)
    chosen = table[same.astype(bool) & table["trained_on"].eq(source)]
    return tuple(from_json(chosen.to_json(orient="records", double_precision=15)))


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
