"""A config becomes cells, each named by everything that determines what it finds."""

import hashlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from anomalib_medclip.baselines.common.baseline import Baseline
from anomalib_medclip.baselines.trivial import TrivialMixin
from anomalib_medclip.compare.cell_record import Determinants, PlannedCell
from anomalib_medclip.compare.comparison import (
    ComparisonConfig,
    DataEntry,
    ModelEntry,
    find_class,
)
from anomalib_medclip.compare.named_files import (
    Options,
    check_lists,
    code_of,
    code_of_package,
    for_k,
    named_files,
)
from anomalib_medclip.data.config import build_data
from anomalib_medclip.data.datamodule import MedicalDataModule
from anomalib_medclip.data.fingerprint import Digests, check_unchanged, fingerprint
from anomalib_medclip.errors import DataChangedError
from anomalib_medclip.files import as_json
from anomalib_medclip.provenance import versions
from anomalib_medclip.training.method import ClipMethod


def _trivial(name: str) -> ModelEntry:
    return {"class_path": f"anomalib_medclip.baselines.{name}", "init_args": {}}


TRIVIAL = {
    "mean intensity": _trivial("MeanIntensity"),
    "image size": _trivial("ImageSize"),
}
"""What no method should lose to."""


@dataclass(frozen=True)
class Cell:
    """One training, tested on one set or several.

    Attributes:
        model: Name in the config.
        kind: ``method``, ``baseline`` or ``trivial``.
        normals: What a model that wants normal images only is given: ``support`` or ``train``.
        data: Name of the data it learns from.
        tests: Names of the data it is tested on.
        k_shot: Support images of each class; ``None`` where the data are zero-shot.
        draw: Seed of the draw of the support.
        seed: Seed of the model.
        note: What the config says of the model.
        keeps: What is kept besides figures: ``pictures``, ``explanations``.
        model_config: ``class_path``, ``init_args``, ``max_epochs``, ``image_size`` and
            ``record_every``.
        data_configs: ``class_path`` and ``init_args`` of each of the data, by name.
        determined_by: Fingerprints of data, code and files, and versions of packages.
    """

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
    model_config: Options
    data_configs: dict[str, Options]
    determined_by: Determinants

    @property
    def key(self) -> str:
        """Sixteen hexadecimal digits of all of it but the words for people."""
        told = {k: v for k, v in asdict(self).items() if k not in ("note", "kind")}
        text = as_json(told, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def planned(self) -> PlannedCell:
        """As the record and the grid hold it."""
        plain = asdict(self)
        del plain["determined_by"]
        return PlannedCell(key=self.key, **plain)


Progress = Callable[[Iterable[Any], int], Iterable[Any]]


def plan_cells(
    config: ComparisonConfig,
    explain: bool = False,
    progress: Progress = lambda items, _: items,
    known: Digests | None = None,
) -> list[Cell]:
    """All cells of a comparison, the cheap ones first.

    Args:
        config: What is asked for.
        explain: Whether the first draw of the largest K keeps what its scores come from.
        progress: Passes an iterator on and shows how far the reading of files is.
        known: Files that were read already; it is added to, for ``CellSettings``.

    Raises:
        ConfigError: Data name a table or list that is not there.
        MedclipError: Data cannot be read.
    """
    sources = _Sources(config, progress, {} if known is None else known)
    models = {**(TRIVIAL if config.trivial else {}), **config.models}
    cells = [
        replace(cell, keeps=_kept(cell, config, explain))
        for name, entry in models.items()
        for trained in config.tests or config.data
        if trained in entry.get("data", [trained])
        for cell in _cells(name, entry, trained, sources)
    ]
    order = {"trivial": 0, "baseline": 1, "method": 2}
    return sorted(cells, key=lambda cell: order[cell.kind])


def _kept(cell: Cell, config: ComparisonConfig, explain: bool) -> tuple[str, ...]:
    if cell.draw != 0 or cell.seed != config.seeds[0]:
        return ()
    explained = explain and cell.k_shot in (None, max(config.k_shot))
    return ("pictures", "explanations") if explained else ("pictures",)


class _Seen(NamedTuple):
    """What planning wants to know of some data."""

    fingerprint: str
    zero_shot: bool
    has_normals: bool
    """Whether there are normal images for training besides the support."""
    splits: frozenset[tuple[str, str]]
    """Split of each image."""


class _Sources:
    """Data of the grid, looked at once for each draw."""

    def __init__(self, config: ComparisonConfig, progress: Progress, known: Digests) -> None:
        self.config = config
        # Shared features are computed one image at a time, which may round the last digit.
        shared, package = config.feature_cache > 0, code_of_package()
        self.ours: dict[str, Any] = {
            "versions": versions(),
            "package": package,
            "shared_features": shared,
        }
        self._progress = progress
        self.known = known
        self._seen: dict[tuple[str, int], _Seen] = {}

    def look(self, name: str, draw: int) -> _Seen:
        """What there is to know of some data, for one draw."""
        if (name, draw) not in self._seen:
            data = build_data(self.options(name, min(self.config.k_shot), draw), name)
            table = data.complete(data.load_table())
            normal = bool(((table["split"] == "train") & (table["label_index"] == 0)).any())
            splits = frozenset(zip(table["image_path"], table["split"], strict=True))
            digest = fingerprint(data, self.known, self._progress)
            self._seen[name, draw] = _Seen(digest, data.zero_shot, normal, splits)
        return self._seen[name, draw]

    def options(
        self, name: str, k_shot: int | None, draw: int, normals: str = "support"
    ) -> Options:
        """Class and options of some data, for one K and draw.

        Raises:
            ConfigError: They name a table or list that is not there, or want K where there is none.
        """
        entry = self.config.data[name]
        check_lists(for_k(entry["init_args"], k_shot), name)
        return data_options(entry, k_shot, draw, normals)

    def draws(self, name: str, k_shot: int) -> range:
        """Seeds of the draws of some data: one, if no draw would change support or splits."""
        listed = self.config.data[name]["init_args"].get("support_list") is not None
        seeds = range(self.config.draws_of(k_shot))
        alike = listed and len({self.look(name, seed).splits for seed in seeds}) == 1
        return range(1) if alike or self.look(name, 0).zero_shot else seeds


def data_options(
    entry: DataEntry, k_shot: int | None, draw: int = 0, normals: str = "support"
) -> Options:
    """Class and options of some data, for one K and draw, as far as the class knows these.

    Raises:
        ConfigError: They want K where there is none.
    """
    known = inspect.signature(find_class(entry)).parameters
    any_other = any(one.kind is one.VAR_KEYWORD for one in known.values())
    asked = {"k_shot": k_shot, "seed": draw, "normals": normals}
    given = {k: v for k, v in asked.items() if v is not None and (k in known or any_other)}
    written: Options = for_k(entry["init_args"], k_shot)
    return {"class_path": entry["class_path"], "init_args": {**written, **given}}


def _cells(name: str, entry: ModelEntry, trained: str, sources: _Sources) -> Iterator[Cell]:
    kind, options = _model(entry)
    seeds = sources.config.seeds[: 1 if kind == "trivial" else None]
    for normals in normals_of(entry):
        for k_shot, draw in _draws(trained, normals, sources):
            tests = tuple((sources.config.tests or {}).get(trained, [trained]))
            names = dict.fromkeys((trained, *tests))
            configs = {one: sources.options(one, k_shot, draw) for one in names}
            configs[trained] = sources.options(trained, k_shot, draw, normals)
            given = {**options, "init_args": for_k(options["init_args"], k_shot)}
            determined = Determinants(
                **sources.ours,
                data={one: sources.look(one, draw).fingerprint for one in names},
                code=tuple(code_of(map(find_class, (given, *configs.values())), sources.known)),
                files=named_files(given, configs.values(), sources.known),
            )
            for seed in seeds:
                yield Cell(
                    name, kind, normals, trained, tests, k_shot, draw, seed,
                    entry.get("note", ""), (), given, configs, determined,
                )  # fmt: skip


def _draws(trained: str, normals: str, sources: _Sources) -> Iterator[tuple[int | None, int]]:
    """K and draw of each cell; all normal images are of one K, zero-shot data know none."""
    config, seen = sources.config, sources.look(trained, 0)
    if normals == "train" and (seen.zero_shot or not seen.has_normals):
        return
    once = seen.zero_shot or normals == "train"
    for k_shot in [min(config.k_shot)] if once else config.k_shot:
        for draw in sources.draws(trained, k_shot):
            yield None if seen.zero_shot else k_shot, draw


def _model(entry: ModelEntry) -> tuple[str, Options]:
    """Kind and options of a model."""
    options = {
        "class_path": entry["class_path"],
        "init_args": entry["init_args"],
        "max_epochs": entry.get("max_epochs"),
        "image_size": entry.get("image_size"),
        "record_every": entry.get("record_every", 1),
    }
    kinds = {"baseline": Baseline, "method": ClipMethod, "trivial": TrivialMixin}
    found = [kind for kind, base in kinds.items() if issubclass(find_class(options), base)]
    return (*found, "baseline")[0], options


def normals_of(entry: ModelEntry) -> Sequence[str]:
    """Which normal images a model is given, each a cell; where its entry does not say, by its kind.

    A baseline that learns from normal images alone has use for all of them.
    """
    kind, options = _model(entry)
    # anomalib's models do not say, and learn from normal images.
    alone = kind == "baseline" and not getattr(find_class(options), "wants_abnormal", False)
    return entry.get("normals", ["support", "train"] if alone else ["support"])


def check_inputs(cell: Cell, data: Mapping[str, MedicalDataModule], known: Digests) -> None:
    """Refuse to go on with images, labels or files other than those the cell is named by.

    Args:
        cell: The cell.
        data: Its data, by name.
        known: What was read already, as when it was planned; it is added to.

    Raises:
        DataChangedError: Something has changed; it names the file.
    """
    before = cell.determined_by.files
    now = named_files(cell.model_config, cell.data_configs.values(), known)
    for word in sorted({*before, *now}):
        if before.get(word) != now.get(word):
            msg = (
                f"{word} has changed since the comparison was planned; leave it alone while the "
                "comparison runs, and start that again"
            )
            raise DataChangedError(msg)
    for name, one in data.items():
        check_unchanged(one, cell.determined_by.data[name], known, name)
