"""Checkpoints that hold what was learnt, and not the backbone it was learnt on."""

import logging
from typing import Any

import torch
from lightning import LightningModule

from anomalib_medclip.components.clip import CLIP_PREFIXES, without_clip
from anomalib_medclip.components.finite import refuse_non_finite_state
from anomalib_medclip.errors import BackboneMismatchError, CheckpointError

logger = logging.getLogger(__name__)


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
    _support_is_stale = True
    """Whether the adapters have changed since the support images were last handed to the model."""

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
        self.object_name = notes["object_name"]
        self._support_is_stale = notes["support_is_stale"]
        self.threshold_from = notes["threshold_from"]
        self.probes = notes["probes"]
        for name, value in notes["model"].items():
            setattr(self.model, name, value)
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
                "weights, image size, activation and normalisation of the training run"
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
