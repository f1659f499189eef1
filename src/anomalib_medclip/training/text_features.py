"""From the words of the data to text features; the text tower stays no longer than it is needed."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from anomalib.data import ImageBatch
from torch import Tensor, nn

from anomalib_medclip.clip.towers import TextTower
from anomalib_medclip.training.frozen_features import EncodesOnce


class Prompts(EncodesOnce):
    """Text features of every set that batches may come from.

    Fixed prompts are encoded once. Prompts that learn, a ``torch.nn.Module``, are encoded for each
    training batch, with their gradient, and again before scores are wanted.

    Attributes:
        names_the_object: Whether the prompts say what the images show.
    """

    names_the_object = True
    object_name: str
    _texts: Mapping[str, Tensor] = MappingProxyType({})
    _tower: tuple[TextTower, ...] = ()  # in a tuple, so that it is no submodule

    def __getstate__(self) -> dict[str, Any]:
        """Without the text tower."""
        return {**super().__getstate__(), "_tower": ()}

    def on_fit_end(self) -> None:
        """Let the text tower go."""
        super().on_fit_end()
        self._tower = ()

    @property
    def _prompts_learn(self) -> bool:
        return isinstance(self.model.prompts, nn.Module)

    def _encode_prompts(self, names: set[str]) -> None:
        """Text features of sets; where prompts are fixed, of new ones only."""
        missing = sorted(names if self._prompts_learn else names - self._texts.keys())
        if missing:
            tower = self._text_tower()
            with torch.no_grad():
                found = {name: self.model.prompts(tower, name) for name in missing}
            self._texts = {**self._texts, **found}
        if not (self._prompts_learn and self.trainer.state.fn == "fit"):
            self._tower = ()  # nothing will change any more

    def _refresh_text(self, names: set[str]) -> None:
        """Encode the prompts as they are now."""
        self._encode_prompts({self.object_name, *names})
        self.model.text = self._texts[self.object_name].to(self.device)

    def _own_text(self, batch: ImageBatch) -> dict[str, Any]:
        """The text features of a batch's own set, if they are not the model's own."""
        names = getattr(batch, "object_name", None) if self.names_the_object else None
        name = names[0] if names else self.object_name
        if self._prompts_learn and self.trainer.training:
            return {"text": self.model.prompts(self._text_tower(), name)}
        return {} if name == self.object_name else {"text": self._texts[name].to(self.device)}

    def _text_tower(self) -> TextTower:
        if not self._tower:
            self._tower = (TextTower(self.model.clip.backbone),)
        return self._tower[0].to(self.device)
