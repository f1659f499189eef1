"""Checkpoints that hold what was learnt, and not the backbone it was learnt on."""

from typing import Any

from lightning import LightningModule

from anomalib_medclip.errors import BackboneMismatchError


class SlimCheckpoints(LightningModule):
    """Saves without CLIP, and checks on loading that it is the same CLIP.

    Attributes:
        model: The method's torch model, with its frozen tower at ``model.clip``.
        object_name: Words for the prompt of the images to score.
    """

    model: Any
    object_name = ""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out CLIP and, in a finished run, the optimiser; note what to check and restore."""
        super().on_save_checkpoint(checkpoint)
        weights = checkpoint["state_dict"]
        checkpoint["state_dict"] = {k: v for k, v in weights.items() if not k.startswith(_CLIP)}
        checkpoint["anomalib_medclip"] = {
            "object_name": self.object_name,
            "backbone": self.model.clip.fingerprint(),
            "model": {k: v for k in _KEPT if (v := getattr(self.model, k, None)) is not None},
        }
        if self.is_last_epoch():
            checkpoint.update(optimizer_states=[], lr_schedulers=[])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check the backbone and restore what goes with the adapters.

        Raises:
            BackboneMismatchError: The checkpoint was trained on another backbone.
        """
        super().on_load_checkpoint(checkpoint)
        notes = checkpoint["anomalib_medclip"]
        fingerprint = self.model.clip.fingerprint()
        if notes["backbone"] != fingerprint:
            msg = (
                f"the checkpoint was trained on a backbone with fingerprint {notes['backbone']}, "
                f"not {fingerprint}, that of {self.model.clip.backbone.name} as configured; "
                "use the weights, image size, activation and normalisation of the training run"
            )
            raise BackboneMismatchError(msg)
        self.object_name = notes["object_name"]
        for name, value in notes["model"].items():
            setattr(self.model, name, value)
        own = {k: v for k, v in self.state_dict().items() if k.startswith(_CLIP)}
        checkpoint["state_dict"] = {**checkpoint["state_dict"], **own}

    def is_last_epoch(self) -> bool:
        """Whether training ends with the epoch at hand."""
        trainer = self.trainer
        last = trainer.current_epoch + 1 >= (trainer.max_epochs or 0) > 0
        return last or trainer.should_stop or trainer.global_step == trainer.max_steps


_CLIP = "model.clip."
_KEPT = ("has_masks", "few_shot")
