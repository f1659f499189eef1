"""What is asked for: models, data, K, draws and seeds, from a YAML file."""

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypedDict

import jsonargparse
from anomalib.models.components.base import AnomalibModule
from torchvision.transforms.v2 import CenterCrop, Resize

from anomalib_medclip.compare.named_files import Options, for_k
from anomalib_medclip.errors import ConfigError
from anomalib_medclip.files import MISSING, fault_of, from_yaml


class ModelEntry(TypedDict, total=False):
    """A model of the grid.

    Attributes:
        class_path: Where its class is: ``anomalib_medclip.MVFA``, ``anomalib.models.Patchcore``.
        init_args: Its options; ``$k_shot`` stands for the cell's K, also within a text.
        config: A model config to start from, relative to this file; ``init_args`` go above it.
        max_epochs: Epochs to train; by default the model's own.
        image_size: Side of the square input in pixels; by default the model's own, which is 256 for
            most models of anomalib.
        normals: What a model that wants normal images only is given: ``support``, ``train`` or
            both, each a cell; by default ``support`` for the methods, both for baselines.
        record_every: Score the test images every so many epochs, for the oracle; by default each
            epoch, and 0 is never.
        note: What the report says of it.
        data: Which of the data it is trained on, by name; by default all.
    """

    class_path: str
    init_args: Options
    config: str
    max_epochs: int
    image_size: int
    normals: list[Literal["support", "train"]]
    record_every: int
    note: str
    data: list[str]


class DataEntry(TypedDict, total=False):
    """A data set of the grid.

    Attributes:
        class_path: Where its class is, such as ``anomalib_medclip.data.MedicalFolder``.
        init_args: Its options; K, draw and normals are the grid's, and ``$k_shot`` stands for K,
            also within a text, as in ``support_list: lists/$k_shot-shot.txt``.
        config: A data config to start from, relative to this file; ``init_args`` go above it.
        published: What the papers call it, for their figures beside ours; see ``published``.
    """

    class_path: str
    init_args: Options
    config: str
    published: str


@dataclass
class ComparisonConfig:
    """A grid of cells.

    Attributes:
        models: By the name that the report gives them.
        data: By the name that the report gives them.
        title: Heading of the report.
        k_shot: Support images of each class, one or more K.
        draws: Number of draws of the support; or by K, such as ``{4: 5, 16: 2}``.
        seeds: Seeds of the models.
        tests: Data to test on, by the data trained on; by default each on itself.
        trivial: Whether mean intensity and image size stand in the table.
        feature_cache: GB of disk for features that cells share; 0 is none.
    """

    models: dict[str, ModelEntry]
    data: dict[str, DataEntry]
    title: str = "Comparison"
    k_shot: list[int] = field(default_factory=lambda: [4])
    draws: int | dict[int, int] = 1
    seeds: list[int] = field(default_factory=lambda: [0])
    tests: dict[str, list[str]] | None = None
    trivial: bool = True
    feature_cache: float = 20.0

    def draws_of(self, k_shot: int) -> int:
        """How many draws of a K there are."""
        return self.draws[k_shot] if isinstance(self.draws, dict) else self.draws


def read_config(path: Path) -> ComparisonConfig:
    """Read a comparison, and the configs it names.

    Raises:
        ConfigError: There is no such file, or something in it is not understood.
    """
    if fault := fault_of(path):
        said = f"no config {path}" if fault is MISSING else f"{path} {fault.said}"
        msg = f"{said}; give a file like those that `anomalib-medclip configs` lists"
        raise ConfigError(msg)
    try:
        config = _parse(from_yaml(path.read_text(encoding="utf-8")))
    except Exception as error:
        cause = error.__cause__ or error
        like = "compare it with what `anomalib-medclip configs compare/demo` copies"
        msg = f"{path} is no comparison: {cause}; {like}"
        raise ConfigError(msg) from error
    for entry in config.models.values():
        merge_config(entry, "model", path)
    for source in config.data.values():
        merge_config(source, "data", path)
    _check(config, path)
    _check_models(config, path)
    return config


def _parse(options: Any) -> ComparisonConfig:  # noqa: ANN401 - whatever a YAML file holds
    if not isinstance(options, dict):
        msg = "it is no mapping"
        raise TypeError(msg)
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(ComparisonConfig)
    parsed = parser.instantiate_classes(parser.parse_object(copy.deepcopy(options)))
    config = ComparisonConfig(**vars(parsed))
    for name in (*config.models, *config.data, *(config.tests or {})):
        if not isinstance(name, str):  # the parser looks at values alone
            msg = f"the name {name!r} is no text; put it in quotes"
            raise TypeError(msg)
    for kind, entries in (("models", config.models), ("data", config.data)):
        for name, entry in entries.items():
            # As they are written: the parser has read their words as YAML once more, "-1" as -1.
            entry["init_args"] = options[kind][name].get("init_args") or {}
    return config


def merge_config(entry: ModelEntry | DataEntry, kind: str, path: Path) -> None:
    """Put an entry's options above those of the config it starts from."""
    below: Options = {}
    if "config" in entry:
        file = path.parent / entry["config"]
        if fault := fault_of(file):
            msg = f"{path} names the config {file}, which {fault.said}; correct its 'config'"
            raise ConfigError(msg)
        try:
            read: Options = from_yaml(file.read_text(encoding="utf-8"))
            below = dict(read.get(kind, read))
            below["init_args"] = dict(below.get("init_args") or {})
        except (AttributeError, TypeError, ValueError) as error:
            msg = f"{path} names {file}, which is no config of a {kind}: {error}; correct 'config'"
            raise ConfigError(msg) from error
    if "class_path" not in {**below, **entry}:
        msg = f"a {kind} of {path} has neither class_path nor config; give it one of them"
        raise ConfigError(msg)
    entry["class_path"] = entry.get("class_path", below.get("class_path", ""))
    entry["init_args"] = {**below.get("init_args", {}), **entry.get("init_args", {})}


def _check(config: ComparisonConfig, path: Path) -> None:
    """Refuse numbers and names that fit nothing."""
    shots, draws = config.k_shot, config.draws
    if isinstance(draws, dict) and set(draws) != set(shots):
        msg = f"{path}: draws are given for K of {sorted(draws)}, and k_shot is {shots}; name each"
        raise ConfigError(msg)
    counts = draws.values() if isinstance(draws, dict) else [draws]
    are_counts = shots and all(isinstance(one, int) and one >= 1 for one in (*shots, *counts))
    if not are_counts or not config.seeds:
        msg = f"{path}: k_shot, draws and seeds need one or more, K and draws from 1 up"
        raise ConfigError(msg)
    if len({*shots}) < len(shots) or len({*config.seeds}) < len(config.seeds):
        msg = f"{path}: k_shot or seeds name a number twice; name each once"
        raise ConfigError(msg)
    _check_support(config, path)
    if not config.data or not (config.models or config.trivial):
        msg = f"{path} compares nothing; give it models and data"
        raise ConfigError(msg)
    for trained, tested in (config.tests or {}).items():
        unknown = {trained, *tested} - set(config.data)
        if unknown or not tested:
            said = f"{', '.join(sorted(unknown))}, not among data" if unknown else "no test data"
            msg = f"{path}: tests of {trained} name {said}; name some of {', '.join(config.data)}"
            raise ConfigError(msg)


def _check_models(config: ComparisonConfig, path: Path) -> None:
    """Refuse classes and options that no model has, and give each class all of its path."""
    for name, entry in config.models.items():
        if not (of := set(entry.get("data", config.data))) or not of <= set(config.data):
            msg = f"{path}: data of {name} are {sorted(of)}; name some of {', '.join(config.data)}"
            raise ConfigError(msg)
        given = for_k(entry["init_args"], 1)
        try:
            parsed = parse_model({"class_path": entry["class_path"], "init_args": given})
        except ConfigError as error:
            msg = f"{path}: model {name}: {error}; correct its options"
            raise ConfigError(msg) from error
        entry["class_path"] = parsed.model.class_path


def _check_support(config: ComparisonConfig, path: Path) -> None:
    """Refuse one list of support images for several K: all of them would be the same."""
    for name, entry in config.data.items():
        listed = entry["init_args"].get("support_list")
        if len(config.k_shot) > 1 and listed is not None and for_k(listed, 1) == listed:
            msg = (
                f"{path}: support_list {listed} of data {name} is one support for K of "
                f"{config.k_shot}; write $k_shot where its name says K, as in "
                "lists/$k_shot-shot.txt, or ask for one K"
            )
            raise ConfigError(msg)


def find_class(options: Mapping[str, Any]) -> type:
    """The class of a model or of data, by its class path.

    Raises:
        ConfigError: There is no such class.
    """
    path = str(options["class_path"])
    module, _, name = path.rpartition(".")
    try:
        # Whatever class a config names, of any package.
        found: type = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        msg = f"no class {path}: {error}; give all of its path"
        raise ConfigError(msg) from error
    return found


def parse_model(options: Mapping[str, Any]) -> Any:  # noqa: ANN401 - jsonargparse's namespace
    """Check a model's class and options without building it.

    Raises:
        ConfigError: There is no such model or option.
    """
    try:
        return _model_parser().parse_object({"model": dict(options)})
    except Exception as error:
        cause = error.__cause__ or error
        msg = f"{options['class_path']} cannot be built: {cause}"
        raise ConfigError(msg) from error


def build_model(options: Mapping[str, Any], image_size: int | None = None) -> AnomalibModule:
    """Build a model from its class path and options; see ``parse_model``.

    Args:
        options: ``class_path`` and ``init_args``.
        image_size: Side of the square images it is for; by default as its class has it.

    Raises:
        ConfigError: The model has images in another size, whatever it is told.
    """
    kind = find_class(parse_model(options).model)
    # Not built by jsonargparse, which would hide what a constructor says is wrong.
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, "model", instantiate=False, fail_untyped=False)
    parsed = parser.parse_object({"model": dict(options["init_args"])})
    given = vars(parser.instantiate_classes(parsed).model)
    if image_size is not None:
        given = {**given, **options_of_size(kind, image_size)}
    model: AnomalibModule = kind(**given)
    return model


def options_of_size(kind: Any, side: int) -> Options:  # noqa: ANN401 - the class of a model
    """Options of a model for square images: many ask when they are built how large these are.

    Models of anomalib know it from the resize that they are given, ``Glass`` by an option besides.

    Raises:
        ConfigError: The model has images in another size, whatever it is told.
    """
    known, square = inspect.signature(kind).parameters, (side, side)
    if "image_size" in known:
        return {"image_size": side}
    resize = kind.configure_pre_processor
    asked = inspect.signature(resize).parameters
    crops = {"crop_size": side, "center_crop_size": square}  # which some do besides, by default
    given = resize(image_size=square, **{k: v for k, v in crops.items() if k in asked})
    _check_size(kind, given, side)
    return {"pre_processor": given, **({"input_shape": square} if "input_shape" in known else {})}


def _check_size(kind: Any, pre_processor: Any, side: int) -> None:  # noqa: ANN401 - anybody's
    """Refuse a size that images do not have once they are resized and cropped."""
    # Anomalib's pre-processors hold one transform or a composition, and those of others neither.
    whole = getattr(pre_processor, "transform", None)
    steps = getattr(whole, "transforms", [whole])
    sizes = [tuple(step.size) for step in steps if isinstance(step, Resize | CenterCrop)]
    if sizes and set(sizes[-1]) != {side}:
        its = " x ".join(map(str, sizes[-1]))
        msg = (
            f"image_size is {side}, and {kind.__name__} has images in {its}, whatever it is told; "
            "leave image_size out, or give that size"
        )
        raise ConfigError(msg)


def _model_parser() -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(AnomalibModule, "model", required=True, fail_untyped=False)
    return parser
