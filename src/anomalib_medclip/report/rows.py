"""What the modules of the report hand to one another."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Estimate(NamedTuple):
    """A figure over draws and seeds: its mean, 95 % interval, and the values it is of.

    ``low`` and ``high`` are ``None`` where nothing supports an interval; ``source`` says over what
    it is: ``patients and draws``, of a single draw ``patients``, or nothing. ``patients`` is how
    many were tested, where an interval is over them.
    """

    mean: float
    low: float | None
    high: float | None
    values: tuple[float, ...]
    source: str = ""
    patients: int | None = None

    @property
    def says_nothing(self) -> bool:
        """Whether the interval of a share is all that a share can be, to a tenth of a percent."""
        known = None not in (self.low, self.high, self.patients)
        return known and (self.low or 0) < 0.0005 and (self.high or 0) > 0.9995


@dataclass(frozen=True)
class ReportRow:
    """One line of the table: a model on one test set, for one K.

    Attributes:
        model: Name in the config.
        normals: ``support``, or ``train`` for a baseline that was given all normal images.
        kind: ``method``, ``baseline`` or ``trivial``.
        note: What the config says of the model, such as that its backbone is untrained.
        untrained: Whether its backbone has random weights.
        cut: How far its training was cut short, in words; empty if it was not.
        trained_on: Name of the data it learnt from.
        tested_on: Name of the data it was tested on.
        k_shot: K; ``None`` for all normal images, and zero-shot.
        draws: Number of draws and seeds that were finished.
        failed: Number of those that failed.
        honest: By metric of ``columns.METRICS``: fixed or validation-chosen epoch. Absent if
            undefined.
        oracle: By metric: the epoch that was best on the test images, the published practice.
        gap: By metric: oracle less honest, draw by draw.
        best: Metrics (honest) in which the row is the best of its test set and K, and patients and
            draws support it.
        epoch: What chose the honest epoch, in words; nothing where there is one epoch.
        learns_abnormal: Whether it learns from abnormal images, too.
        published: Cells of ``anomalib_medclip.published`` of the same method, set and K, as dicts.
        cost: Medians of ``columns.COSTS``, by name.
        keys: Keys of the records.
        caveats: What has to be said with its intervals, in sentences.
        aggregated: How images become one score of a volume or patient, in words, if records say.
        decided: Where patients and volumes become abnormal, how often that is wrong, and whether
            p-values and probabilities are known, in sentences of draws, likewise.
    """

    model: str
    normals: str
    kind: str
    note: str
    untrained: bool
    trained_on: str
    tested_on: str
    k_shot: int | None
    draws: int
    failed: int
    honest: dict[str, Estimate]
    oracle: dict[str, Estimate]
    gap: dict[str, Estimate]
    best: frozenset[str] = frozenset()
    cut: str = ""
    epoch: str = ""
    learns_abnormal: bool = False
    published: tuple[dict[str, Any], ...] = ()
    cost: dict[str, float] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()
    aggregated: tuple[str, ...] = ()
    decided: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Name of the row among those of one test set and K.

        A dagger marks a backbone with random weights: its figures mean nothing.
        """
        learnt = ", zero-shot" if self.k_shot is None else ""
        if self.normals == "train":
            learnt = ", all normals"
        other = f", from {self.trained_on}" if self.trained_on != self.tested_on else ""
        return f"{self.model}{'†' if self.untrained else ''}{learnt}{other}"

    @property
    def label_with_k(self) -> str:
        """Name of the row among those of one test set."""
        return self.label if self.k_shot is None else f"{self.label}, K = {self.k_shot}"

    @property
    def estimates(self) -> dict[str, dict[str, Estimate]]:
        """Its figures by protocol, and in these by metric."""
        return {"honest": self.honest, "oracle": self.oracle, "gap": self.gap}


def model_label(model: str, normals: str) -> str:
    """Name of a model in the page; it says so where a baseline was given all normal images."""
    return f"{model}, all normals" if normals == "train" else model


class Chart(NamedTuple):
    """A figure of the page.

    Attributes:
        name: Identifier in the page, such as ``gap_heads``.
        section: Which section it stands in: ``gap``, ``curves``, ``calibration``, ``shots``,
            ``cost`` or ``explain``.
        title: Heading.
        caption: What it shows and how to read it, in one or two sentences.
        alt: The same figures in words, for those who cannot see it.
        figure: plotly figure as JSON holds it: ``data`` and ``layout``.
    """

    name: str
    section: str
    title: str
    caption: str
    alt: str
    figure: dict[str, Any]
