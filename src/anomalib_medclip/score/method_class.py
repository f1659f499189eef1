"""Which class the method in a checkpoint is."""

from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from anomalib_medclip import baselines
from anomalib_medclip.errors import CheckpointError, UnknownNameError
from anomalib_medclip.models import get_model
from anomalib_medclip.training.checkpoints import Notes


def method_class(path: Path, notes: Notes) -> Any:  # noqa: ANN401 - any method or baseline
    """The class of the model in a checkpoint.

    Args:
        path: The checkpoint, for messages.
        notes: What it says of itself.

    Raises:
        CheckpointError: No installed package has this method.
    """
    name = notes.method
    if name in baselines.list_baselines():
        return resolve_name(f"{baselines.__name__}:{name}")
    try:
        return get_model(name)
    except UnknownNameError as error:
        msg = f"{path} is of the method {name}, which no installed package has; install the one "
        msg += f"with the module {notes.package}"
        raise CheckpointError(msg) from error
