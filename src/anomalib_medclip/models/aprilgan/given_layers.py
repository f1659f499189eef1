"""Layers of a checkpoint, given to another model: refused where they cannot mean the same."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anomalib_medclip.clip.weights import read_plain
from anomalib_medclip.errors import WeightsError
from anomalib_medclip.models.aprilgan.torch_model import APRILGANModel
from anomalib_medclip.training.checkpoints import notes_of
from anomalib_medclip.training.fitting import check_backbone


def refuse_other_layers(path: str | Path, model: APRILGANModel) -> None:
    """Refuse a checkpoint of this package whose layers are not made for this model.

    The authors' file says nothing of the kind, and is left to ``APRILGANModel.load_released``, as
    is what cannot be read.

    Args:
        path: File that was given by ``adapters``.
        model: What is to have its layers.

    Raises:
        WeightsError: It is of another method, of other levels, or nothing has taught its layers.
        BackboneMismatchError: They were trained on another backbone, or on images that entered it
            otherwise.
        CheckpointError: It is a checkpoint of nobody we know.
    """
    try:
        found = read_plain(path)
    except ValueError:
        return
    if not isinstance(found, dict) or "state_dict" not in found:
        return
    notes = notes_of(path, found)
    if notes.method != "APRILGAN":
        msg = f"adapters file {path} is a checkpoint of {notes.method}, and not of APRILGAN; "
        msg += f"{_GIVE}"
        raise WeightsError(msg)
    check_backbone(path, notes, model.clip)
    _refuse_other_levels(path, found.get("hyper_parameters") or {}, model)
    taught = found["state_dict"].get("model._extra_state")
    if taught is not None and not bool(taught):
        msg = f"nothing has taught the layers of adapters file {path}, for its training had no "
        msg += f"abnormal image with a mask: they are random; {_GIVE} that was trained on masks"
        raise WeightsError(msg)


_GIVE = "give the authors' file, or a checkpoint of APRILGAN"


def _refuse_other_levels(path: object, options: Mapping[str, Any], model: APRILGANModel) -> None:
    theirs, ours = options.get("levels"), list(model.text_levels)
    theirs = model.quarter_levels if theirs is None else list(theirs)
    if theirs != ours:
        msg = f"adapters file {path} has layers for levels {theirs}, and this model reads {ours}; "
        msg += f"pass levels: {theirs}"
        raise WeightsError(msg)
