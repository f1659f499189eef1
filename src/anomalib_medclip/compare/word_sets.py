"""Sets of words to compare, and on what, from a YAML file."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from anomalib_medclip.compare.comparison import DataEntry, ModelEntry, find_class, merge_config
from anomalib_medclip.components.words import AskedWords
from anomalib_medclip.errors import ConfigError
from anomalib_medclip.files import MISSING, fault_of, from_yaml
from anomalib_medclip.models import list_models
from anomalib_medclip.option_checks import checked
from anomalib_medclip.training.method import ClipMethod

_PLAINEST = {"class_path": "anomalib_medclip.PlainCLIP", "init_args": {"mode": "text"}}
"""An image against sentences, and no training."""


@dataclass
class WordSets:
    """What is compared.

    Attributes:
        data: Whose support is scored: ``class_path`` and ``init_args``, or ``config``.
        sets: By the name that tables give them: a file of words, relative to this one, what is in
            one, or nothing for the model's own words.
        model: Whose CLIP it is; by default that of ``PlainCLIP``.
        train: Train the model with each set of words, without parts of the support's patients,
            which it then scores. Else the frozen CLIP scores all, and nothing is learnt.
        folds: How many parts, if it is trained; by default one a patient, of ten patients at most,
            and else three.
    """

    data: DataEntry
    sets: dict[str, str | dict[str, Any] | None]
    model: ModelEntry
    train: bool = False
    folds: int | None = None


def read_word_sets(path: Path) -> WordSets:
    """Read a config, and what it names.

    Raises:
        ConfigError: There is no such file, or something in it is not understood.
    """
    if fault := fault_of(path):
        said = f"no config {path}" if fault is MISSING else f"{path} {fault.said}"
        msg = f"{said}; give a file such as `anomalib-medclip configs word_sets/demo` copies"
        raise ConfigError(msg)
    try:
        given = _known(from_yaml(path.read_text(encoding="utf-8")))
        sets = _sets(given.get("sets"), path)
        given |= {"model": given.get("model") or dict(_PLAINEST), "sets": sets}
        config = WordSets(**given)
        if config.folds is not None:
            checked("folds", config.folds, 2, whole=True)
        if not isinstance(config.train, bool):
            msg = f"train is {config.train!r}, and must be true or false"
            raise ConfigError(msg)
    except (ValueError, TypeError) as error:
        like = "compare it with what `anomalib-medclip configs word_sets/demo` copies"
        msg = f"{path} compares no sets of words: {error}; {like}"
        raise ConfigError(msg) from error
    merge_config(config.data, "data", path)
    merge_config(config.model, "model", path)
    kind = find_class(config.model)
    if not issubclass(kind, ClipMethod):
        msg = f"{path}: {config.model['class_path']} has no words; take one of "
        msg += ", ".join(list_models())
        raise ConfigError(msg)
    if config.train and not kind.learns:
        msg = f"{path}: {kind.__name__} trains nothing; leave train out"
        raise ConfigError(msg)
    _check_sets(config, kind, path)
    return config


def _check_sets(config: WordSets, kind: type[ClipMethod], path: Path) -> None:
    """Read each set once, and refuse what has no words to compare."""
    kinds = [one for one in kind.prompt_kinds if one != "anchors"]  # these have words
    for name, said in config.sets.items():
        try:
            asked = AskedWords.of(said, kinds)
        except ConfigError as error:
            msg = f"{path}: sets: {name!r}: {error}"
            raise ConfigError(msg) from error
        if not config.train and asked.kind and not (asked.lists or asked.object_name):
            msg = f"{path}: sets: {name!r} says the kind {asked.kind!r} and no words, and nothing "
            msg += "learns here: it would be the model's own words once more; give it words, take "
            msg += "it out, or set train: true"
            raise ConfigError(msg)


def _known(said: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever a YAML file holds
    names = [one.name for one in fields(WordSets)]
    if not isinstance(said, dict):
        msg = f"it is no mapping of {', '.join(names)}"
        raise ConfigError(msg)
    for key in said:
        if key not in names:
            near = get_close_matches(str(key), names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            msg = f"there is no {key!r} among {', '.join(names)}{hint}"
            raise ConfigError(msg)
    for name in ("data", "model"):
        if not isinstance(said.get(name, {} if name == "model" else None), dict | None):
            msg = f"{name} is no mapping"
            raise ConfigError(msg)
    if said.get("data") is None:
        msg = "it names no data"
        raise ConfigError(msg)
    return said


def _sets(said: Any, path: Path) -> dict[str, str | dict[str, Any] | None]:  # noqa: ANN401 - as above
    """Sets of words by name, files with their place."""
    if not isinstance(said, Mapping) or len(said) < 2:
        msg = "sets are no mapping of two names or more"
        raise ConfigError(msg)
    found: dict[str, str | dict[str, Any] | None] = {}
    for name, words in said.items():
        if not isinstance(name, str) or not isinstance(words, str | dict | None):
            msg = f"sets: {name!r} is {words!r}; name a file of words, or say what is in one"
            raise ConfigError(msg)
        found[name] = str(path.parent / words) if isinstance(words, str) else words
    return found
