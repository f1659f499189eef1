"""Sets of words to compare, and on what, from a YAML file."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from anomalib_medclip.compare.comparison import DataEntry, ModelEntry, find_class, merge_config
from anomalib_medclip.components.words import KINDS, AskedWords
from anomalib_medclip.errors import ConfigError
from anomalib_medclip.files import MISSING, fault_of, from_yaml
from anomalib_medclip.models import list_models
from anomalib_medclip.option_checks import checked
from anomalib_medclip.training.method import ClipMethod


@dataclass
class WordSets:
    """What is compared.

    Attributes:
        data: Whose support is scored: ``class_path`` and ``init_args``, or ``config``.
        sets: By the name that tables give them: a file of words, relative to this one, what is in
            one, or nothing for the model's own words.
        model: Whose CLIP it is; by default ``PlainCLIP`` by its text.
        train: Train the model with each set of words, without parts of the support's patients,
            which it then scores. Else the frozen CLIP scores all, and nothing is learnt.
        folds: How many parts, if it is trained.
    """

    data: DataEntry
    sets: dict[str, str | dict[str, Any] | None]
    model: ModelEntry
    train: bool = False
    folds: int = 3


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
        given |= {"model": given.get("model") or _own_model(), "sets": sets}
        config = WordSets(**given)
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
    return config


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
    """Sets of words by name, each read and checked once, files with their place."""
    if not isinstance(said, Mapping) or len(said) < 2:
        msg = "sets are no mapping of two names or more"
        raise ConfigError(msg)
    found: dict[str, str | dict[str, Any] | None] = {}
    for name, words in said.items():
        if not isinstance(name, str) or not isinstance(words, str | dict | None):
            msg = f"sets: {name!r} is {words!r}; name a file of words, or say what is in one"
            raise ConfigError(msg)
        found[name] = str(path.parent / words) if isinstance(words, str) else words
        AskedWords.of(found[name], KINDS)
    return found


def _own_model() -> ModelEntry:
    """The plainest use of words that there is: an image against sentences, and no training."""
    if "plainclip" in list_models():
        return {"class_path": "anomalib_medclip.PlainCLIP", "init_args": {"mode": "text"}}
    right = {"quick_gelu": True, "normalize": True}  # as OpenAI trained it
    return {"class_path": "anomalib_medclip.MVFA", "init_args": right}
