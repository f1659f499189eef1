"""What is known of a cell that was run, and of a comparison that was planned.

Fields have the names, and stand in the order, that the JSON files have them in. A field has a
default where a cell that failed, or a former version, has none: ``None`` is what nobody knows.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy.typing as npt

from anomalib_medclip.compare.dataset_result import DatasetResult
from anomalib_medclip.compare.typed_json import from_plain
from anomalib_medclip.provenance import NOTICE

Arrays = dict[str, npt.NDArray[Any]]
"""Pictures and maps of a cell, by name."""


@dataclass(frozen=True, kw_only=True)
class PlannedCell:
    """A cell as it was asked for; see ``grid.Cell``."""

    key: str
    model: str
    kind: str
    normals: str
    data: str
    tests: tuple[str, ...]
    k_shot: int | None
    draw: int
    seed: int
    note: str
    keeps: tuple[str, ...]
    model_config: dict[str, Any]
    data_configs: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Determinants:
    """What a cell's findings depend on besides its options: SHA-256 and versions.

    Attributes:
        versions: Of packages.
        package: SHA-256 of this package's code.
        shared_features: Whether cells share features, which are computed one image at a time.
        data: SHA-256 of each of the data, by name.
        code: SHA-256 of the code of models and data.
        files: SHA-256 of the files that options name, by the words that name them.
    """

    versions: dict[str, str]
    package: str
    shared_features: bool | None = None
    data: dict[str, str]
    code: tuple[str, ...]
    files: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class TrainingFacts:
    """What was done in a training.

    Attributes:
        untrained: Whether the backbone has random weights where trained ones belong.
        epochs: Epochs trained.
        own_epochs: Epochs that the model trains unless told otherwise; ``None`` if unknown.
        epoch: The epoch that was tested, from 1.
        epoch_choice: What chose it, ``last`` or ``validation``.
        learns_abnormal: Whether the model learns from abnormal images, too.
        support: By class, how many images and patients it has, and how many of unknown patients.
        trained_on: Number of training images, or of those compared with where nothing trains.
        threshold_from: Which images the threshold was found on.
        threshold_rates: Sensitivity and specificity of the threshold on these; ``None`` if
            undefined.
        zero_shot: Whether the data have no support.
        words: What the prompts say, where other words than the method's own were asked for.
    """

    untrained: bool
    epochs: int
    own_epochs: int | None = None
    epoch: int | None = None
    epoch_choice: str | None = None
    learns_abnormal: bool | None = None
    support: dict[str, dict[str, int]]
    trained_on: int
    threshold_from: str
    threshold_rates: dict[str, float | None] | None = None
    zero_shot: bool | None = None
    words: dict[str, Any] | None = None

    @property
    def tested_epoch(self) -> int:
        """The epoch that was tested, which was the last where nothing else is said."""
        return self.epochs if self.epoch is None else self.epoch


@dataclass(frozen=True, kw_only=True)
class MeasuredCost:
    """Seconds and megabytes (1e6 bytes); a cell that failed has been measured in part.

    Attributes:
        started: When the cell was begun, in ISO format.
        seconds: What it took in all.
        machine: Processor and cores.
        train_seconds: What training took, without what is only recorded.
        threshold_seconds: What cross-fitting of the threshold took.
        learnt_mb: What training changed or added.
        model_mb: Parameters and buffers, frozen ones included.
        seconds_per_image: Median of a few passes.
        features_from_cache: Images whose frozen features another cell had computed.
        device: What it was trained and timed on.
    """

    started: str
    seconds: float
    machine: str | None = None
    train_seconds: float | None = None
    threshold_seconds: float | None = None
    learnt_mb: float | None = None
    model_mb: float | None = None
    seconds_per_image: float | None = None
    features_from_cache: int | None = None
    device: str | None = None


@dataclass(frozen=True, kw_only=True)
class CellError:
    """What a cell raised, and the last words of its log, if it lived to keep them."""

    type: str
    message: str
    traceback: str
    log: str | None = None


_NOT_OF_ALL = frozenset({
    "facts", "words", "tests", "error", "explain", "log", "machine", "train_seconds",
    "threshold_seconds", "learnt_mb", "model_mb", "seconds_per_image", "features_from_cache",
    "device",
})  # fmt: skip
"""What a file leaves out where there is none of it; elsewhere it says ``null``."""


@dataclass(frozen=True, kw_only=True)
class CellRecord:
    """What is known of a cell that was run.

    Attributes:
        key: Of the cell.
        cell: What was asked for.
        determined_by: What its findings depend on.
        status: ``done`` or ``failed``.
        facts: What was done in its training.
        tests: What was found on each test set; nothing where it failed.
        error: What it raised.
        measured: What it cost.
    """

    key: str
    cell: PlannedCell
    determined_by: Determinants
    status: str
    facts: TrainingFacts | None = None
    tests: tuple[DatasetResult, ...] = ()
    error: CellError | None = None
    measured: MeasuredCost

    @classmethod
    def of_plain(cls, plain: object) -> "CellRecord":
        """A record from what its file holds.

        Raises:
            ValueError: It is no record.
        """
        return from_plain(cls, plain, "the record")

    def as_plain(self) -> dict[str, Any]:
        """What its file holds."""
        return asdict(self, dict_factory=_without_nothing)


def _without_nothing(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {k: v for k, v in items if k not in _NOT_OF_ALL or v not in (None, ())}


@dataclass(frozen=True, kw_only=True)
class ComparisonGrid:
    """All cells there are to be, and how they were asked for.

    Attributes:
        notice: What the figures are for.
        title: Heading of the report.
        command: The words of the command.
        versions: Of Python and of packages.
        published: What papers call the data, by name.
        cells: In the order in which they are run.
    """

    notice: str = NOTICE
    title: str
    command: str
    versions: dict[str, str]
    published: dict[str, str]
    cells: tuple[PlannedCell, ...]

    @classmethod
    def of_plain(cls, plain: object) -> "ComparisonGrid":
        """A grid from what its file holds.

        Raises:
            ValueError: It is no grid.
        """
        return from_plain(cls, plain, "the grid")

    def as_plain(self) -> dict[str, Any]:
        """What its file holds."""
        return asdict(self)
