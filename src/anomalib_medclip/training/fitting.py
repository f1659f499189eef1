"""Whether what a checkpoint holds is made for the model at hand."""

from typing import Any

from torch import Tensor

from anomalib_medclip.clip.weights import WEIGHTS_OPTIONS
from anomalib_medclip.errors import BackboneMismatchError, CheckpointError


def check_backbone(file: object, notes: Any, clip: Any) -> None:  # noqa: ANN401 - Notes, a tower
    """Refuse another backbone than that of training.

    Args:
        file: Its name, for messages.
        notes: What the file says.
        clip: The image tower at hand.

    Raises:
        BackboneMismatchError: It is another one, or images enter it otherwise.
    """
    if notes.fingerprint != clip.fingerprint:
        msg = (
            f"{file} was trained on another backbone: {notes.backbone} (fingerprint "
            f"{notes.fingerprint}), not {clip.backbone} ({clip.fingerprint}); use the "
            "weights, image size, activation and normalisation of the training run, the "
            f"weights by {WEIGHTS_OPTIONS}"
        )
        raise BackboneMismatchError(msg)


def check_options(file: object, state: dict[str, Tensor], checkpoint: dict[str, Any]) -> None:
    """Refuse weights that do not fit, by name; strict loading would list them all.

    Args:
        file: Its name, for messages.
        state: What the model at hand has.
        checkpoint: As it was read, with CLIP put back into it.

    Raises:
        CheckpointError: It was made with other options.
    """
    differing = sorted(state.keys() ^ checkpoint["state_dict"].keys())
    if differing:
        options = dict(checkpoint.get("hyper_parameters", {}))
        msg = (
            f"{file} does not fit this model, first at {differing[0]}; use the options of the "
            f"training run: {options}"
        )
        raise CheckpointError(msg)
