"""Learnable prompts under Lightning: the text tower stays while they learn, and no longer."""

from typing import Any

import torch
from anomalib.data import ImageBatch
from torch import Tensor

from anomalib_medclip.components.meeting import MeetsData
from anomalib_medclip.components.towers import TextTower


class LearnsPrompts(MeetsData):
    """For a torch model with ``prompts``, a ``LearnablePrompts``; it stands before the mixin.

    In training, each batch is given the features of its own set's prompts with their gradient;
    afterwards the features are constants, and the tower is let go.
    """

    _tower: tuple[TextTower, ...] = ()  # in a tuple, so that it is no submodule

    def __getstate__(self) -> dict[str, Any]:
        """Without the text tower."""
        return {**super().__getstate__(), "_tower": ()}

    def on_fit_end(self) -> None:
        """Let the text tower go."""
        super().on_fit_end()
        self._tower = ()

    def _encode_prompts(self, names: set[str]) -> None:
        with torch.no_grad():
            found = {name: self.model.prompts(self._text_tower(), name) for name in sorted(names)}
        self._texts = {**self._texts, **found}

    def _refresh_text(self) -> None:
        self._encode_prompts({self.object_name, *self._other_names()})
        self.model.text = self._texts[self.object_name]

    def _own_text(self, batch: ImageBatch) -> dict[str, Any]:
        if not self.trainer.training:
            return super()._own_text(batch)
        names = getattr(batch, "object_name", None) or [self.object_name]
        text: Tensor = self.model.prompts(self._text_tower(), names[0])
        return {"text": text}

    def _text_tower(self) -> TextTower:
        if not self._tower:
            self._tower = (TextTower(self.model.clip.backbone).to(self.device),)
        return self._tower[0]
