"""Where data, lists and weights of a table lie, which are missing, and where to request them."""

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from anomalib_medclip.compare.comparison import (
    ComparisonConfig,
    DataEntry,
    ModelEntry,
    find_class,
)
from anomalib_medclip.compare.grid import data_options
from anomalib_medclip.compare.named_files import for_k
from anomalib_medclip.data.config import build_data
from anomalib_medclip.data.datamodule import MedicalDataModule
from anomalib_medclip.data.integrity import Problem, refuse, unlearnable_problems
from anomalib_medclip.errors import DataRootError, MedclipError
from anomalib_medclip.papers.weights import lacking_weights

_ROOT = "datasets"
"""The folder that configs name; another takes its place."""

_SOURCE = re.compile(r"^(?:From|To be requested from) ")


class Missing(NamedTuple):
    """What a table lacks.

    Attributes:
        data: By name: what is missing, and where to request it.
        models: By name: likewise, of weights.
    """

    data: dict[str, str]
    models: dict[str, str]


def placed(
    config: ComparisonConfig, root: Path, record_every: int | None = None
) -> ComparisonConfig:
    """A paper's comparison as it is run here.

    No figure of the papers needs a threshold, so methods are not trained again for one.

    Args:
        config: As its file has it, where data lie in ``datasets``.
        root: The folder that they lie in.
        record_every: Epochs from one look at the test images to the next, for the epoch that the
            authors choose; 0 is never, and by default it is as the file says. What the file never
            looks at, since looks would take longer than training, is not looked at.
    """
    models, data = dict[str, ModelEntry](), dict[str, DataEntry]()
    for name, entry in config.models.items():
        given = dict(entry["init_args"])
        if "cross_fit" in inspect.signature(find_class(entry)).parameters:
            given.setdefault("cross_fit", False)
        models[name] = {**entry, "init_args": _below(given, root)}
        if record_every is not None and entry.get("record_every") != 0:
            models[name]["record_every"] = record_every
    for name, source in config.data.items():
        data[name] = {**source, "init_args": _below(source["init_args"], root)}
    return replace(config, models=models, data=data)


def _below(value: Any, root: Path) -> Any:  # noqa: ANN401 - options of any depth
    """Options with another folder in the place of ``datasets``."""
    if isinstance(value, Mapping):
        return {name: _below(one, root) for name, one in value.items()}
    if isinstance(value, list):
        return [_below(one, root) for one in value]
    if isinstance(value, str) and value.startswith(f"{_ROOT}/"):
        return str(root / value.removeprefix(f"{_ROOT}/"))
    return value


def missing(config: ComparisonConfig, path: Path) -> Missing:
    """What is not there, each with where it can be had and how it should lie.

    Args:
        config: The comparison, ``placed``.
        path: Its file, whose comment says where lists are from.
    """
    data = {name: said for name in config.data if (said := _lack(name, config, path))}
    models = {
        name: said for name, entry in config.models.items() if (said := lacking_weights(entry))
    }
    return Missing(data, models)


def _lack(name: str, config: ComparisonConfig, path: Path) -> str:
    """What of a set is missing or wrong, its images unopened; nothing where all is there."""
    entry = config.data[name]
    listed = entry["init_args"].get("support_list")
    for k_shot in config.k_shot if listed else ():
        if not Path(one := for_k(listed, k_shot)).is_file():
            return f"no support list {one}. {source_of(path)}"
    try:
        for k_shot in config.k_shot:
            data = build_data(data_options(entry, k_shot), path)
            splits = data.split(data.complete(data.load_table()))
            refuse(data.split_problems(splits))
            refuse(_learning_problems(data, name, config))
            if not data.zero_shot:
                data.find_support(splits)
    except DataRootError as error:
        said = source_of(path.parent / entry["config"]) if "config" in entry else ""
        return f"{error}. {said}"
    except MedclipError as error:
        return str(error)
    return ""


def _learning_problems(
    data: MedicalDataModule, name: str, config: ComparisonConfig
) -> Iterator[Problem]:
    """Models that learn from abnormal images, where these data have such for the test alone."""
    if not data.only_normals or name not in (config.tests or config.data):
        return
    for model, entry in config.models.items():
        wants = getattr(find_class(entry), "wants_abnormal", False)
        if wants and name in entry.get("data", [name]):
            yield from unlearnable_problems(model, data.where)


def without(config: ComparisonConfig, lacking: Missing) -> ComparisonConfig:
    """The comparison of what is there; data that are missing are neither learnt from nor tested."""
    data = {name: one for name, one in config.data.items() if name not in lacking.data}
    models = dict[str, ModelEntry]()
    for name, entry in config.models.items():
        of = [one for one in entry.get("data", config.data) if one in data]
        if name not in lacking.models and of:
            models[name] = {**entry, "data": of} if "data" in entry else entry
    tests = config.tests and {
        learnt: there
        for learnt, tested in config.tests.items()
        if learnt in data and (there := [one for one in tested if one in data])
    }
    return replace(config, data=data, models=models, tests=tests)


def source_of(config: Path) -> str:
    """Where the data of a config are from and how they lie, as its first comment says."""
    lines = config.read_text(encoding="utf-8").splitlines()
    comment = [line.removeprefix("#").strip() for line in lines if line.startswith("#")]
    begins = [number for number, line in enumerate(comment) if _SOURCE.match(line)]
    return " ".join(comment[begins[0] :]) if begins else ""


def as_config(config: ComparisonConfig) -> dict[str, Any]:
    """What a file of the comparison holds, the configs it names merged into it."""
    plain = asdict(config)
    for entry in (*plain["models"].values(), *plain["data"].values()):
        entry.pop("config", None)
    return plain
