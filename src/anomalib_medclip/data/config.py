"""A data config, as ``anomalib train --data`` takes it, becomes data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonargparse

from anomalib_medclip.data.datamodule import MedicalDataModule
from anomalib_medclip.errors import DataRootError, MedclipError
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
    if fault := fault_of(config):
        said = f"no data config {config}" if fault is MISSING else f"{config} {fault.said}"
        msg = f"{said}; give a file like those that `anomalib-medclip configs` lists"
        raise DataRootError(msg)
    try:
        options = from_yaml(Path(config).read_text(encoding="utf-8"))
    except ValueError as error:  # of the encoding, too
        msg = f"{config} describes no data: {error}; {_LIKE}"
        raise DataRootError(msg) from error
    return build_data(options.get("data", options) if isinstance(options, dict) else {}, config)


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
        if "class_path" not in options:
            raise ValueError("it has no class_path")  # noqa: EM101 - said below
        parsed = parser.parse_object({"data": dict(options)})
        data: MedicalDataModule = parser.instantiate_classes(parsed).data
    except Exception as error:
        cause = error if isinstance(error, MedclipError) else error.__cause__ or error
        msg = f"{where} describes no data: {cause}; {_LIKE}"
        raise DataRootError(msg) from error
    return data
