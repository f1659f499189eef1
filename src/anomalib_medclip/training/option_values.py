"""Words and numbers of options, looked at before anything is built."""

from collections.abc import Mapping
from inspect import Signature
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from anomalib_medclip.components.losses import LossTerms
from anomalib_medclip.errors import ConfigError
from anomalib_medclip.option_checks import SEEDS, checked


def check_choices(options: Mapping[str, Any], known: Signature) -> None:
    """Refuse a word that an option does not know; the command line does so by itself.

    Raises:
        ConfigError: It names option, word and those there are.
    """
    for name, option in known.parameters.items():
        kinds = get_args(option.annotation) if _is_union(option.annotation) else [option.annotation]
        if any(get_origin(kind) is not Literal for kind in kinds if kind is not type(None)):
            continue
        words = [word for kind in kinds for word in get_args(kind)]
        allowed = [*words, None] if type(None) in kinds else words
        if name in options and options[name] not in allowed:
            msg = f"{name} is {options[name]!r}, and must be one of {', '.join(map(repr, words))}"
            raise ConfigError(msg)


def _is_union(annotation: Any) -> bool:  # noqa: ANN401 - of any option
    return get_origin(annotation) in (Union, UnionType)


def check_numbers(options: Mapping[str, Any]) -> None:
    """Refuse numbers that cannot be.

    Raises:
        ConfigError: It names option, number and limits.
    """
    for name in ("seed", "backbone_seed"):
        checked(name, options[name], 0, SEEDS, whole=True)
    checked("image_size", options["image_size"], 1, whole=True)
    checked("cache_memory", options["cache_memory"], 0)
    if options["lr"] is not None:
        checked("lr", options["lr"], 0)
    for name, weight in (options["loss_weights"] or {}).items():
        if name not in LossTerms._fields:
            msg = f"loss_weights name {name!r}, and there are {', '.join(LossTerms._fields)}"
            raise ConfigError(msg)
        checked(f"loss_weights[{name!r}]", weight, 0)
