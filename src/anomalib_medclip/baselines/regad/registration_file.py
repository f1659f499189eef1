"""What a training on other sets has learnt, given to a model that is to compare."""

import textwrap
from pathlib import Path

from anomalib_medclip.baselines.regad.torch_model import RegADModel
from anomalib_medclip.clip.weights import read_plain
from anomalib_medclip.errors import WeightsError
from anomalib_medclip.training.checkpoints import notes_of
from anomalib_medclip.training.fitting import check_backbone

_GIVE = "give a checkpoint of RegAD that was trained with register: true"


def load_registration(path: str | Path, model: RegADModel) -> None:
    """Load what a checkpoint of RegAD says of registration, and nothing of its support.

    Raises:
        WeightsError: It cannot be read, is of another method, was not trained to register, or does
            not fit this backbone and these options.
        BackboneMismatchError: It was trained on images that entered otherwise.
        CheckpointError: It is no checkpoint of this package.
    """
    try:
        found = read_plain(path)
    except ValueError as error:
        msg = f"registration file {path} cannot be read: {error}; {_GIVE}"
        raise WeightsError(msg) from None
    notes = notes_of(path, found if isinstance(found, dict) else {})
    options = dict(found.get("hyper_parameters") or {})
    if notes.method != "RegAD" or not options.get("register"):
        msg = f"registration file {path} is of {notes.method}, and not trained to register; {_GIVE}"
        raise WeightsError(msg)
    check_backbone(path, notes, model.clip)
    parts = ("network", "encoder", "predictor")
    held = found["state_dict"]
    try:
        for part in parts:
            before = f"model.{part}."
            state = {n.removeprefix(before): v for n, v in held.items() if n.startswith(before)}
            model.get_submodule(part).load_state_dict(state)
    except RuntimeError as error:
        reason = textwrap.shorten(str(error), 300, placeholder=" ...")
        msg = f"registration file {path} does not fit this backbone or mode: {reason}; pass the "
        msg += f"options of its training: {options}"
        raise WeightsError(msg) from error
