"""The worst misses and false alarms of a test, on one sheet to be looked at."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from anomalib_medclip.pictures.sheet import draw_sheet
from anomalib_medclip.pictures.view import View
from anomalib_medclip.provenance import NOTICE

WORST_SHEET, WORST_TABLE = "worst_cases.png", "worst_cases.csv"
"""Names in a run's folder."""

COLUMNS = ("number", "kind", "image", "pred_score")
"""Of the table: a row for each picture of the sheet, in its order."""

MOST = 9
"""Of each kind: a sheet of 18 pictures at most, however many images are tested."""


class WorstCase(NamedTuple):
    """An image on the wrong side of the threshold.

    Attributes:
        path: Of the image.
        view: How it is drawn.
    """

    path: str
    view: View

    @property
    def order(self) -> tuple[bool, float, str]:
        """Misses first, the lowest score before others; then false alarms, the highest first."""
        missed, score = self.view.verdict == "missed", self.view.score or 0.0
        return not missed, score if missed else -score, self.path


class WorstCases:
    """Keeps the worst of each kind, and no more pictures than these in memory.

    Attributes:
        tested: How many images were added.
        misses, false_alarms: How many of them were wrong in either way.
    """

    def __init__(self) -> None:
        self.kept: list[WorstCase] = []
        self.tested = self.misses = self.false_alarms = 0

    def add(self, path: str, view: View) -> None:
        """Count an image, and keep it if it is among the worst."""
        self.tested += 1
        if view.verdict in ("missed", "false alarm"):
            self.misses += view.verdict == "missed"
            self.false_alarms += view.verdict == "false alarm"
            self.kept = _worst([*self.kept, WorstCase(path, view)])

    def join(self, others: "Iterable[WorstCases]") -> "WorstCases":
        """Those of several processes together."""
        joined = WorstCases()
        for one in others:
            joined.tested += one.tested
            joined.misses += one.misses
            joined.false_alarms += one.false_alarms
            joined.kept += one.kept
        joined.kept = _worst(joined.kept)
        return joined

    @property
    def heading(self) -> str:
        """How many there are, and what of them is shown."""
        misses = f"{self.misses} miss{'es' * (self.misses != 1)}"
        alarms = f"{self.false_alarms} false alarm{'s' * (self.false_alarms != 1)}"
        shown = len(self.kept)
        more = f"; the worst {shown}" if shown < self.misses + self.false_alarms else ""
        return f"{misses} and {alarms} among {self.tested} test images{more}. {NOTICE}"

    def draw(self, path: Path, threshold: float | None) -> None:
        """Write the sheet as PNG; without a wrong image it says so.

        Args:
            path: The file.
            threshold: Of pixels; ``None`` where none is known.
        """
        views = [case.view for case in self.kept]
        draw_sheet(views, self.heading, threshold).save(path, compress_level=6)

    def rows(self) -> list[dict[str, Any]]:
        """What is on the sheet, in its order."""
        cells = ((case.view.verdict, case.path, case.view.score) for case in self.kept)
        return [dict(zip(COLUMNS, (i, *row), strict=True)) for i, row in enumerate(cells, 1)]


def _worst(cases: list[WorstCase]) -> list[WorstCase]:
    ordered = sorted(cases, key=lambda case: case.order)
    misses = [case for case in ordered if case.view.verdict == "missed"]
    alarms = [case for case in ordered if case.view.verdict != "missed"]
    return misses[:MOST] + alarms[:MOST]
