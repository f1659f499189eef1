"""What a cell depends on besides the words of its config: files that these name, and code."""

import hashlib
import inspect
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from anomalib.models.components.base import AnomalibModule

from anomalib_medclip.clip.weights import WEIGHTS_VARIABLE
from anomalib_medclip.data.datamodule import MedicalDataModule
from anomalib_medclip.data.fingerprint import Digests, digest_of
from anomalib_medclip.errors import ConfigError
from anomalib_medclip.files import sha256_of_all

Options = dict[str, Any]

_K = "$k_shot"


def for_k(options: Any, k_shot: int | None) -> Any:  # noqa: ANN401 - options of any depth
    """Options with K in the place of ``$k_shot``, be that all of a value or a part of its text.

    Raises:
        ConfigError: It is a part of a text, and there is no K, as for zero-shot data.

    Example:
        >>> for_k({"num_neighbors": "$k_shot", "support_list": "lists/$k_shot-shot.txt"}, 4)
        {'num_neighbors': 4, 'support_list': 'lists/4-shot.txt'}
    """
    if isinstance(options, Mapping):
        return {name: for_k(value, k_shot) for name, value in options.items()}
    if isinstance(options, list):
        return [for_k(value, k_shot) for value in options]
    if not isinstance(options, str) or _K not in options:
        return options
    if options == _K:
        return k_shot
    if k_shot is None:
        msg = f"{options!r} asks for K, and zero-shot data have none; leave {_K} out"
        raise ConfigError(msg)
    return options.replace(_K, str(k_shot))


def check_lists(options: Options, where: str) -> None:
    """Refuse data whose tables or lists are not there.

    Raises:
        ConfigError: One is not; it names the file.
    """
    for name, value in options.items():
        for path in _words(value) if name == "table" or name.endswith("_list") else ():
            if not Path(path).is_file():
                msg = f"data {where}: no {name} {path}; correct {name}, or restore the file"
                raise ConfigError(msg)


def named_files(model: Options, data: Iterable[Options], known: Digests) -> dict[str, str]:
    """SHA-256 of what options name: files, and folders of a model, by the words that name them.

    Folders of data are known by their images; see ``fingerprint``. Names of things are no paths:
    an ``object_name`` ``brain`` is not the folder ``brain`` that happens to lie there.

    Args:
        model: Class and options of a model.
        data: Those of data.
        known: What was read already; it is added to.
    """
    found = {
        word: digest_of(Path(word), known, "**/*")
        for word in _words(model["init_args"])
        if Path(word).exists()
    }
    for word in _words([one["init_args"] for one in data]):
        if Path(word).is_file():
            found[word] = digest_of(Path(word), known)
    if variable := os.environ.get(WEIGHTS_VARIABLE):
        there = Path(variable).is_file()
        found[WEIGHTS_VARIABLE] = digest_of(Path(variable), known) if there else variable
    return found


def code_of(classes: Iterable[type], known: Digests) -> list[str]:
    """SHA-256 of the code beside each of some classes of models or data, and of their parents."""
    bases = (AnomalibModule, MedicalDataModule)
    family = [one for kind in classes for one in kind.__mro__ if issubclass(one, bases)]
    folders = dict.fromkeys(Path(inspect.getfile(one)).parent for one in family)
    return [digest_of(folder, known, "*.py") for folder in folders]


def code_of_package() -> str:
    """SHA-256 of the code of this package that figures depend on, for those who change it."""
    root = Path(__file__).parents[1]
    names = (
        "clip", "compare", "components", "data", "decisions", "evaluation", "metrics", "readers",
        "training",
    )  # fmt: skip
    rooms = [root, *(root / name for name in names)]
    return hashlib.sha256("".join(map(sha256_of_all, rooms)).encode()).hexdigest()


def _words(value: Any) -> Iterator[str]:  # noqa: ANN401 - options of any depth
    """Texts and paths, but those of options that end in ``_name``."""
    if isinstance(value, Mapping):
        value = [one for name, one in value.items() if not str(name).endswith("_name")]
    if isinstance(value, list | tuple):
        for one in value:
            yield from _words(one)
    elif isinstance(value, str | Path) and str(value):
        yield str(value)
