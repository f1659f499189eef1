"""Each printed figure of a table, with ours beside it."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from anomalib_medclip.compare.comparison import ComparisonConfig
from anomalib_medclip.papers.inputs import Missing
from anomalib_medclip.papers.lines import Training, trainings
from anomalib_medclip.papers.tables import PaperTable, Part, Printed, printed_as
from anomalib_medclip.report.rows import Estimate, ReportRow

NOT_RUN = "not run"

CHOSEN_ON_TEST = {
    "AdaCLIP", "BGAD", "IQE-CLIP", "MVFA", "MadCLIP", "MediCLIP", "PatchSVDD", "RegAD", "SimpleNet",
}  # fmt: skip
"""Methods whose authors' code reports the epoch that is best on the test images."""


class Figure(NamedTuple):
    """A figure of ours in percent, with its 95 % interval where there is one."""

    value: float
    low: float | None = None
    high: float | None = None

    def less(self, theirs: float) -> "Figure":
        """How much it is above a printed one; the interval is ours, as of theirs none is known."""
        low, high = (None if one is None else one - theirs for one in (self.low, self.high))
        return Figure(self.value - theirs, low, high)


class Beside(NamedTuple):
    """A printed figure and ours.

    Attributes:
        printed: Theirs.
        model: Name of our model; that of the row where there is none.
        fixed: Ours, of the epoch that was fixed beforehand, or chosen by validation images.
        authors: Ours, of the epoch that is best on the test images, where the method's authors
            choose it so.
        difference: Ours less theirs, in points.
        untrained: Whether ours is of random weights, which means nothing.
        transductive: Whether ours scales images by the whole test set, as an option asks.
        state: ``done``, or why there is no figure of ours.
    """

    printed: Printed
    model: str
    fixed: Figure | None = None
    authors: Figure | None = None
    difference: Figure | None = None
    untrained: bool = False
    transductive: bool = False
    state: str = "done"

    @property
    def chosen_on_test(self) -> bool:
        """Whether the method's authors choose the epoch on the test images."""
        return self.printed.row.partition(",")[0] in CHOSEN_ON_TEST


_Key = tuple[str, str, str, str, int | None]
"""Model, normals, training set, test set and K of a row of ours."""


class _Wanted(NamedTuple):
    """A figure of ours: the row it stands in, and of how many trainings that is."""

    row: _Key
    metric: str
    cells: int


def beside(
    table: PaperTable,
    config: ComparisonConfig,
    rows: Sequence[ReportRow],
    lacking: Missing,
    authors_epoch_choice: bool = False,
) -> list[Beside]:
    """All printed figures of a table, in the order of the paper, with ours.

    Args:
        table: The table.
        config: All of its comparison, whatever is missing.
        rows: What was found.
        lacking: What is missing.
        authors_epoch_choice: Whether the difference is of the epoch that is best on the test
            images, where authors choose it so; else it is of the one that was fixed beforehand.
    """
    planned = trainings(config)
    names = {data: entry.get("published", "") for data, entry in config.data.items()}
    whole = {
        name
        for name, entry in config.models.items()
        if entry["init_args"].get("transductive", False)
    }
    known = {
        (row.model, row.normals, row.trained_on, row.tested_on, row.k_shot): row for row in rows
    }
    found = []
    for cell in table.printed:
        for model in [one for one in config.models if printed_as(one) == cell.row] or [cell.row]:
            own = [one for one in planned if one.model == model]
            parts = [_of_part(part, cell, own, names) for part in table.parts(cell)]
            wanted = [one for part in parts for one in part] if all(parts) else []
            state = _state(wanted, model, config, known, lacking)
            entry = Beside(cell, model, transductive=model in whole, state=state)
            found.append(_filled(entry, wanted, known, authors_epoch_choice))
    return found


def _of_part(
    part: Part, cell: Printed, own: Sequence[Training], names: Mapping[str, str]
) -> list[_Wanted]:
    """Figures of ours that one figure is of; several where we have its set in categories."""
    crossed = cell.setting == "cross-dataset"
    return [
        _Wanted(
            (one.model, one.normals, one.trained_on, tested, one.k_shot), part.metric, one.cells
        )
        for one in own
        for tested in one.tests
        if names[tested] == part.dataset
        and (tested != one.trained_on) == crossed
        and part.trained_on in ("", names[one.trained_on])
        # Of what is learnt from an auxiliary set no K is printed.
        and (one.k_shot == cell.k or (crossed and cell.k is None))
    ]


def _state(
    wanted: Sequence[_Wanted],
    model: str,
    config: ComparisonConfig,
    known: Mapping[_Key, ReportRow],
    lacking: Missing,
) -> str:
    """``done``, or why there is no figure of ours."""
    if model not in config.models:
        return f"{NOT_RUN}: no model"
    if not wanted:
        return f"{NOT_RUN}: {config.models[model].get('note') or 'not planned'}"
    rows = [known[one.row] for one in wanted if one.row in known]
    if any(row.failed for row in rows):
        return "failed"
    if (done := sum(row.draws for row in rows)) < (cells := sum(one.cells for one in wanted)):
        # What is done stays so, even if data or weights have gone since.
        if model in lacking.models:
            return f"{NOT_RUN}: no weights"
        if any(data in lacking.data for one in wanted for data in one.row[2:4]):
            return f"{NOT_RUN}: no data"
        return f"{NOT_RUN} yet" if not done else f"{NOT_RUN} yet: {done} of {cells} trainings are"
    return "done" if all(one.metric in known[one.row].honest for one in wanted) else "undefined"


def _filled(
    entry: Beside,
    wanted: Sequence[_Wanted],
    known: Mapping[_Key, ReportRow],
    authors_epoch_choice: bool,
) -> Beside:
    """An entry with our figures, where there are all that it is of."""
    if entry.state != "done":
        return entry
    fixed = mean([(one.row[3], known[one.row].honest[one.metric]) for one in wanted])
    oracle = [known[one.row].oracle.get(one.metric) for one in wanted]
    looked = [one for one in oracle if one is not None]
    authors = Figure(100 * sum(one.mean for one in looked) / len(oracle)) if all(oracle) else None
    if not entry.chosen_on_test:
        authors, authors_epoch_choice = None, False
    shown = authors if authors_epoch_choice else fixed
    return entry._replace(
        fixed=fixed,
        authors=authors,
        difference=shown and shown.less(entry.printed.value),
        untrained=any(known[one.row].untrained for one in wanted),
    )


def mean(figures: Sequence[tuple[str, Estimate]]) -> Figure:
    """Mean of figures in percent, of several test sets or of one.

    Test sets are other patients, so that the squares of what their figures may be off add up; of
    one test set, such as images and their pixels, what they may be off itself does.

    Args:
        figures: By test set, in [0, 1].

    Example:
        >>> one = Estimate(0.9, 0.87, 0.92, (0.9,))
        >>> [round(number, 2) for number in mean([("brain", one), ("liver", one)])]
        [90.0, 87.88, 91.41]
        >>> [round(number, 2) for number in mean([("brain", one), ("brain", one)])]
        [90.0, 87.0, 92.0]
    """
    value = 100 * sum(one.mean for _, one in figures) / len(figures)
    below: dict[str, float] = defaultdict(float)
    above: dict[str, float] = defaultdict(float)
    for name, one in figures:
        if one.low is None or one.high is None:
            return Figure(value)
        below[name] += one.mean - one.low
        above[name] += one.high - one.mean
    down, up = (100 * math.hypot(*off.values()) / len(figures) for off in (below, above))
    return Figure(value, value - down, value + up)
