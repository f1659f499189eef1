"""A data config, as ``anomalib train --data`` takes it, becomes data."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import jsonargparse

from anomalib_medclip.data.datamodule import MedicalDataModule
from anomalib_medclip.errors import DataRootError
from anomalib_medclip.files import MISSING, fault_of, from_yaml

_LIKE = "compare it with what `anomalib-medclip configs folder` copies"


def load_data(config: str | Path) -> MedicalDataModule:
    """Make the data that a config describes.

    ``AnomalibDataModule.from_config`` would end the process at an option that does not exist, and
    reads no file that has its data below ``data``, as the demos' have.

    Args:
        config: A YAML file with ``class_path`` and ``init_args``, below ``data`` or not.

    Raises:
        DataRootError: There is no such file, or it describes no data of this package.
    """
    options = read_config(config)
    return build_data(options.get("data", options), config)


def read_config(config: str | Path) -> dict[str, Any]:
    """What a config says, which describes data, or a whole run with its data below ``data``.

    Args:
        config: A YAML file.

    Raises:
        DataRootError: There is no such file, it is no YAML, or holds no options by name.
    """
    if fault := fault_of(config):
        said = f"no data config {config}" if fault is MISSING else f"{config} {fault.said}"
        msg = f"{said}; give a file like those that `anomalib-medclip configs` lists"
        raise DataRootError(msg)
    try:
        options = from_yaml(Path(config).read_text(encoding="utf-8"))
    except ValueError as error:  # of the encoding, too
        msg = f"{config} describes no data: {_fault_of_yaml(error)}; {_LIKE}"
        raise DataRootError(msg) from error
    found = options.get("data", options) if isinstance(options, dict) else None
    if not isinstance(found, dict):
        msg = f"{config} describes no data: it names no class_path; {_LIKE}"
        raise DataRootError(msg)
    return dict(options)


def build_data(options: Mapping[str, Any], where: str | Path) -> MedicalDataModule:
    """Make data from their class and options.

    Args:
        options: ``class_path`` and ``init_args``.
        where: What messages call the place they come from.

    Raises:
        DataRootError: They describe no data of this package.
    """
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--data", type=MedicalDataModule)
    try:
        if not isinstance(options.get("class_path"), str):
            raise ValueError("it names no class_path")  # noqa: EM101 - said below
        if not isinstance(options.get("init_args", {}), Mapping):
            raise ValueError("its init_args are no options by name")  # noqa: EM101
        parsed = parser.parse_object({"data": dict(options)})
        data: MedicalDataModule = parser.instantiate_classes(parsed).data
        str(data.where)  # which refuses a name that would lead elsewhere
    except Exception as error:
        msg = f"{where} describes no data: {_fault_of_options(error, options)}; {_LIKE}"
        raise DataRootError(msg) from error
    return data


def _fault_of_yaml(error: ValueError) -> str:
    """What is wrong with a config's text, in one line, and where."""
    problem, mark = (getattr(error.__cause__, name, None) for name in ("problem", "problem_mark"))
    if not (problem and mark):
        return str(error)
    said = f"line {mark.line + 1}: {problem}"
    if "escape" in problem:
        said += ": write paths with slashes, or in single quotes"
    elif r"'\t'" in problem:
        said += ": indent by blanks"
    return said


def _fault_of_options(error: Exception, options: Mapping[str, Any]) -> str:
    """What is wrong with the options of data, in one line of jsonargparse's many."""
    said = str(error)
    if unknown := re.search(r"class_path '(\S+)':\s+Option '(\w+)' is not accepted", said):
        near = get_close_matches(unknown[2], _options_of(unknown[1]), n=1)
        return f"{unknown[1]} has no {unknown[2]!r}" + (f" but {near[0]!r}" if near else "")
    if "does not correspond to a subclass" in said:
        return f"{options['class_path']} is no data of this package"
    given = options.get("init_args")
    for key in reversed(re.findall(r'Parser key "(\w+)"', said)):
        if isinstance(given, Mapping) and key in given:
            return f"{key!r} of {options['class_path']} cannot be {given[key]!r}"
    # Of the data's own errors, too, it says that None would have been taken.
    own = re.search(
        r"- Expected a <class 'NoneType'>\s+- (.+?)\s+Given value type", said, re.DOTALL
    )
    return " ".join((own[1] if own else said).split())


def _options_of(class_path: str) -> list[str]:
    """Names of all options of a class, also of those that it passes on to the class it extends."""
    module, _, name = class_path.rpartition(".")
    found: list[str] = []
    for base in getattr(import_module(module), name).__mro__:
        parameters = signature(base).parameters
        found += parameters
        if not any(one.kind is Parameter.VAR_KEYWORD for one in parameters.values()):
            break
    return found
