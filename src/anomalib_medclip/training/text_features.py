"""Text features of every set that batches come from; the text tower stays no longer than needed."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from anomalib.data import ImageBatch
from torch import Tensor

from anomalib_medclip.clip.towers import TextTower
from anomalib_medclip.components.model import ClipModel


class TextFeatures:
    """What the prompts say of the target, and of the other sets that batches come from.

    Fixed prompts are encoded once. Prompts that learn are encoded for each training batch, with
    their gradient, and again before scores are wanted.

    Args:
        model: Whose prompts they are; it keeps those of the target.
        names_the_object: Whether the prompts say what the images show.

    Attributes:
        object_name: What the images of the target show.
    """

    def __init__(self, model: ClipModel, names_the_object: bool) -> None:
        self.object_name = ""
        self.names_the_object = names_the_object
        self._model = model
        self._texts: Mapping[str, Tensor] = MappingProxyType({})
        self._tower: TextTower | None = model.text_tower

    def __getstate__(self) -> dict[str, Any]:
        """Without the text tower, unless it is the model's own, and other sets' features."""
        return self.__dict__ | {"_tower": self._model.text_tower, "_texts": {}}

    def encode(self, names: Iterable[str], *, keep_tower: bool) -> None:
        """Encode the prompts of sets; where they are fixed, of new ones only.

        Args:
            names: What their images show.
            keep_tower: Whether prompts will be encoded again.
        """
        learns = self._model.prompts.learns
        if missing := sorted(set(names) if learns else set(names) - self._texts.keys()):
            tower = self._text_tower()
            with torch.no_grad():
                found = {name: self._model.prompts(tower, name) for name in missing}
            self._texts = {**self._texts, **found}
        if not (learns and keep_tower):
            self.release()

    def refresh(self, others: Iterable[str] = (), *, keep_tower: bool = False) -> None:
        """Encode the prompts of the target, as they are now, and of other sets."""
        self.encode({self.object_name, *others}, keep_tower=keep_tower)
        self._model.text = self._texts[self.object_name].to(self._model.device)

    def release(self) -> None:
        """Let the text tower go."""
        self._tower = self._model.text_tower

    def of_batch(self, batch: ImageBatch, *, training: bool) -> Tensor:
        """The text features of a batch's own set, with their gradient where it is learnt from.

        Raises:
            NotReadyError: Those of the target are not known.
        """
        name = self._name_of(batch)
        if training and self._model.prompts.learns:
            return self._model.prompts(self._text_tower(), name)
        if name == self.object_name:
            return self._model.known_text()
        return self._texts[name].to(self._model.device)

    def _name_of(self, batch: ImageBatch) -> str:
        # anomalib's batches have no such field.
        names = getattr(batch, "object_name", None) if self.names_the_object else None
        return names[0] if names else self.object_name

    def _text_tower(self) -> TextTower | None:
        """The text tower, where prompts read words."""
        if not self._model.prompts.reads_words:
            return None
        if self._tower is None:
            self._tower = TextTower(self._model.clip.backbone)
        return self._tower.to(self._model.device)
