"""Which config remakes which table of which paper, and the figures that are printed there."""

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from anomalib_medclip.data.bmad import BMAD_SETS
from anomalib_medclip.errors import UnknownNameError
from anomalib_medclip.files import from_json
from anomalib_medclip.published import published

_OF_PAPERS = re.compile(r"compare/papers/(\w+)_table(\d+)")
_OURS_ALONE = re.compile(r" \([^)]*\)$")
_METRICS = {"image_and_pixel_AUROC": ("image_AUROC", "pixel_AUROC")}
_MEANS = {
    "mean_BMAD": {*BMAD_SETS},
    "mean_cross_dataset": {"ADNI", "CheXpert", "NIHChest", "OCTDL"},
}
"""What printed means are of."""


class Printed(NamedTuple):
    """A printed figure.

    Attributes:
        row: What its row is called; see ``row_name``.
        setting: As ``published`` has it, and so the next.
        dataset: Test set, or ``mean_BMAD``, or ``mean_cross_dataset``.
        trained_on: Training set of a cross-dataset figure; else empty.
        k: K; ``None`` where no image of the target was counted.
        metric: ``image_AUROC``, ``pixel_AUROC``, or ``image_and_pixel_AUROC`` for a mean of both.
        value: Percent.
        spread: Standard deviation, where one is printed.
        protocol: How it was made.
        note: What is odd with it.
    """

    row: str
    setting: str
    dataset: str
    trained_on: str
    k: int | None
    metric: str
    value: float
    spread: float | None
    protocol: str
    note: str


class Part(NamedTuple):
    """What a printed figure is of, or one of those that a printed mean is of."""

    dataset: str
    trained_on: str
    metric: str


class PaperTable:
    """A table of a paper that can be run.

    Attributes:
        name: What the command calls it: ``mvfa-table1``.
        config: The comparison that remakes it.
        paper: The paper, as ``published`` writes it.
        number: Number of the table there.
    """

    def __init__(self, name: str, config: Path, paper: str, number: int) -> None:
        self.name, self.config, self.paper, self.number = name, config, paper, number

    @cached_property
    def printed(self) -> list[Printed]:
        """Its figures, in the order of the paper."""
        cells = published()
        cells = cells[(cells["paper"] == self.paper) & (cells["table"] == self.number)]
        named = cells.assign(row=[*map(row_name, cells["method"], cells["variant"])])
        plain = named[[*Printed._fields]].to_json(orient="records", double_precision=15)
        return [Printed(**cell) for cell in from_json(plain)]

    def parts(self, cell: Printed) -> list[Part]:
        """What a printed figure is of: itself, or all that a printed mean is of.

        A mean is of the figures of its row; where the table prints none, of all sets of BMAD.
        """
        metrics = _METRICS.get(cell.metric, (cell.metric,))
        if cell.dataset not in _MEANS:
            return [Part(cell.dataset, cell.trained_on, cell.metric)]
        row = [
            Part(one.dataset, one.trained_on, one.metric)
            for one in self.printed
            if (one.row, one.setting, one.k) == (cell.row, cell.setting, cell.k)
            and one.dataset in _MEANS[cell.dataset]
            and one.metric in metrics
        ]
        return row or [
            Part(name, "", metric)
            for name, known in BMAD_SETS.items()
            for metric in metrics
            if known.has_masks or metric == "image_AUROC"
        ]


def paper_tables(configs: Mapping[str, Path]) -> dict[str, PaperTable]:
    """Every table that there is a config for, by its name.

    Args:
        configs: The package's configs by name, such as ``compare/papers/mvfa_table1``.
    """
    papers = {re.sub(r"\W", "", paper).lower(): paper for paper in published()["paper"].unique()}
    found = {}
    for match in filter(None, map(_OF_PAPERS.fullmatch, configs)):
        name = f"{match[1]}-table{match[2]}"
        found[name] = PaperTable(name, configs[match[0]], papers[match[1]], int(match[2]))
    return found


def table_named(name: str, tables: Mapping[str, PaperTable]) -> PaperTable:
    """The table of a name.

    Raises:
        UnknownNameError: There is none.
    """
    if name not in tables:
        msg = f"no table {name!r}; choose one of {', '.join(tables)}"
        raise UnknownNameError(msg)
    return tables[name]


def row_name(method: str, variant: str = "") -> str:
    """What a printed row is called: its method and, of an ablation, what is other.

    >>> row_name("MVFA"), row_name("IQE-CLIP", "no LPT")
    ('MVFA', 'IQE-CLIP, no LPT')
    """
    return f"{method}, {variant}" if variant else method


def printed_as(model: str) -> str:
    """The printed row that a model of ours stands beside; words in brackets are ours alone.

    >>> printed_as("MVFA (transductive)")
    'MVFA'
    """
    return _OURS_ALONE.sub("", model)
