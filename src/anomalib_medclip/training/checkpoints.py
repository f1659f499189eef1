"""Checkpoints that hold what was learnt, and not the backbone it was learnt on."""

import inspect
import logging
from pathlib import Path
from typing import Any

import torch
from anomalib.engine.plugins import AnomalibCheckpointIO
from anomalib.utils.serialization import anomalib_safe_globals
from lightning import LightningModule
from lightning.fabric.plugins import TorchCheckpointIO

from anomalib_medclip.clip.backbone import CLIP_PREFIXES, without_clip
from anomalib_medclip.clip.weights import WEIGHTS_OPTIONS, read_plain
from anomalib_medclip.components.finite import refuse_non_finite_state
from anomalib_medclip.errors import BackboneMismatchError, CheckpointError

logger = logging.getLogger(__name__)

_NAMES_CODE = {"_instantiator", "_class_path"}
"""Options by which Lightning lets a checkpoint say what is to be imported and called."""

_STARTED_FROM = ("adapters", "few_shot_source")
"""Options that are files; a checkpoint holds what was read there."""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint's tensors and plain values; nothing in the file is run.

    Raises:
        CheckpointError: It is no such file, or asks for code to be imported.
    """
    try:
        with anomalib_safe_globals():
            found = read_plain(path)
        options = [found.get(key) or {} for key in ("hyper_parameters", "hparams")]
        named = sorted(_NAMES_CODE & set().union(*options, found.get("module_arguments") or {}))
    except (ValueError, AttributeError, TypeError) as error:
        msg = f"checkpoint {path} cannot be opened: {error}; pass one of anomalib-medclip"
        raise CheckpointError(msg) from None
    if named:
        msg = f"checkpoint {path} says by {named[0]} what to import and call, which is not done; "
        msg += "train it again by 'anomalib train'"
        raise CheckpointError(msg)
    return dict(found)


class PlainCheckpointIO(AnomalibCheckpointIO):
    """Lightning's reading and writing of checkpoints, by a reader that runs no code."""

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:  # noqa: ANN401 - Lightning's
        """What ``read_checkpoint`` reads, wherever else it should go, and however else be read."""
        del args, kwargs
        return read_checkpoint(path)


class SlimCheckpoints(LightningModule):
    """Saves without CLIP, and checks on loading that it is the same CLIP.

    Attributes:
        model: The method's torch model, with its frozen tower at ``model.clip``.
        object_name: Words for the prompt of the images to score.
        threshold_from: Which images the threshold was found on.
        probes: Real images ``(image, 3, side, side)`` as uint8, to certify exports with.
    """

    model: Any
    object_name = ""
    threshold_from = ""
    probes = torch.empty(0, dtype=torch.uint8)
    has_learnt = False
    """Whether it was trained, here or before it was restored."""
    _support_is_stale = True
    """Whether the adapters have changed since the support images were last handed to the model."""

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - Lightning's
        """As anomalib's, but no file is opened that the checkpoint names, except its backbone.

        Raises:
            CheckpointError: It is no checkpoint of this method.
            BackboneMismatchError: The weights it names are not those it was trained on.
        """
        if isinstance(checkpoint_path, str | Path):
            read_checkpoint(checkpoint_path)
        known = inspect.signature(cls).parameters
        unused = {name: None for name in _STARTED_FROM if name in known}
        return super().load_from_checkpoint(checkpoint_path, *args, **{**unused, **kwargs})

    def read_checkpoints_plainly(self) -> None:
        """Let the trainer read its ``ckpt_path`` by a reader that runs no code."""
        if isinstance(self.trainer.strategy.checkpoint_io, TorchCheckpointIO):
            self.trainer.strategy.checkpoint_io = PlainCheckpointIO()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out CLIP and, in a finished run, the optimiser; note what to check and restore.

        Raises:
            NonFiniteError: Something learnt is NaN or infinite.
        """
        super().on_save_checkpoint(checkpoint)
        checkpoint["state_dict"] = without_clip(checkpoint["state_dict"])
        refuse_non_finite_state(checkpoint["state_dict"], "the model to save")
        checkpoint["anomalib_medclip"] = {
            "method": type(self).__name__,
            "object_name": self.object_name,
            "fingerprint": self.model.clip.fingerprint,
            "backbone": str(self.model.clip.backbone),
            "support_is_stale": self._support_is_stale,
            "threshold_from": self.threshold_from,
            "probes": self.probes,
            "model": {k: v for k in KEPT if (v := getattr(self.model, k, None)) is not None},
        }
        if self.is_last_epoch():
            checkpoint.update(optimizer_states=[], lr_schedulers=[])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check the backbone and restore what goes with the adapters.

        Raises:
            CheckpointError: It is of another method, or was made with other options.
            BackboneMismatchError: It was trained on another backbone.
            NonFiniteError: Something in it is NaN or infinite.
        """
        file = getattr(self._trainer, "ckpt_path", None) or "the checkpoint"
        notes = checkpoint.get("anomalib_medclip")
        if notes is None:
            msg = f"{file} was not made by a model of anomalib-medclip; pass one that was"
            raise CheckpointError(msg)
        self._check_backbone(file, notes)
        refuse_non_finite_state(without_clip(checkpoint["state_dict"]), file)
        own = {k: v for k, v in self.state_dict().items() if k.startswith(CLIP_PREFIXES)}
        checkpoint["state_dict"] = {**checkpoint["state_dict"], **own}
        self._check_options(file, checkpoint)
        super().on_load_checkpoint(checkpoint)
        self.has_learnt = True
        self.object_name = notes["object_name"]
        self._support_is_stale = notes["support_is_stale"]
        self.threshold_from = notes["threshold_from"]
        self.probes = notes["probes"]
        for name in notes["model"].keys() & set(KEPT):
            setattr(self.model, name, notes["model"][name])
        if self._trainer and self.trainer.training and not checkpoint["optimizer_states"]:
            logger.warning("%s is of a finished run: the optimiser begins anew", file)

    def is_last_epoch(self) -> bool:
        """Whether training ends with the epoch at hand."""
        trainer = self.trainer
        last = trainer.current_epoch + 1 >= (trainer.max_epochs or 0) > 0
        return last or trainer.should_stop or trainer.global_step == trainer.max_steps

    def _check_backbone(self, file: object, notes: dict[str, Any]) -> None:
        clip = self.model.clip
        if notes["fingerprint"] != clip.fingerprint:
            msg = (
                f"{file} was trained on another backbone: {notes['backbone']} (fingerprint "
                f"{notes['fingerprint']}), not {clip.backbone} ({clip.fingerprint}); use the "
                "weights, image size, activation and normalisation of the training run, the "
                f"weights by {WEIGHTS_OPTIONS}"
            )
            raise BackboneMismatchError(msg)

    def _check_options(self, file: object, checkpoint: dict[str, Any]) -> None:
        """Refuse weights that do not fit, by name; strict loading would list them all."""
        differing = sorted(self.state_dict().keys() ^ checkpoint["state_dict"].keys())
        if differing:
            options = dict(checkpoint.get("hyper_parameters", {}))
            msg = (
                f"{file} does not fit this model, first at {differing[0]}; use the options of the "
                f"training run: {options}"
            )
            raise CheckpointError(msg)


KEPT = ("has_masks", "few_shot")
"""What else of a torch model is part of its state, where it has it."""
