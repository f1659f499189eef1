"""What a user asks of prompts, and what becomes of it in a method: a part of ``SharedOptions``."""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

from lightning import LightningModule

from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.components.model import ClipModel
from anomalib_medclip.components.prompts import FixedPrompts, NoPrompts
from anomalib_medclip.components.words import AskedWords, Kind, Words
from anomalib_medclip.errors import ConfigError

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from anomalib.models.components.base import AnomalibModule as Base
else:  # a mixin, because anomalib takes every direct subclass of AnomalibModule for a model
    Base = LightningModule


class PromptOptions(Base):
    """The options ``prompts`` and ``object_name``.

    Attributes:
        names_the_object: Whether prompts say what the images show.
        prompt_kinds: What ``kind`` of ``prompts`` may be, the default first.
        words: What its prompts say; ``None`` where they cannot be said in other words.
        own_words: Its own words, and what it says for the object; see ``worded``.
        asked_words: What was asked for.
        backbone: Of whose text they are made.
    """

    names_the_object: bool = True
    prompt_kinds: ClassVar[Sequence[Kind]] = ()
    words: Words | None = None
    own_words: tuple[Words, str | None] | None = None
    asked_words: AskedWords
    backbone: Backbone

    def take_prompts(
        self, prompts: str | Mapping[str, Any] | None, object_name: str | None
    ) -> None:
        """Read what was asked for, and keep it in the options in place of a file.

        Args:
            prompts: The option.
            object_name: The option.

        Raises:
            ConfigError: Something is not understood, or the prompts name no object.
        """
        self._is_worded = False
        self._object_asked: str | None = None
        self.asked_words = AskedWords.of(prompts, self.prompt_kinds)
        self.hparams["prompts"] = self.asked_words.as_plain()  # a checkpoint needs no file
        if object_name is not None and not (self.names_the_object or self.asked_words.lists):
            msg = f"the prompts of {type(self).__name__} name no object; leave object_name out"
            raise ConfigError(msg)

    def worded(self, default: Words, object_name: str | None = None) -> Words:
        """A method's own words, in which those that were asked for take the place of its own.

        Args:
            default: Its own.
            object_name: What it says for the object, if its sentences are made when it is built.

        Raises:
            ConfigError: They do not go together, or have no place for the object, or no name.
        """
        self.own_words, self._is_worded = (default, object_name), True
        asked = self.hparams["object_name"]
        words, self._object_asked = self.asked_words.settled(default, asked, object_name)
        return words

    def say_words(self, model: ClipModel) -> str | None:
        """Let fixed prompts have the words that were asked for.

        Args:
            model: The method's; of other prompts, the method itself has asked ``worded``.

        Returns:
            What the images show, if that was asked for.

        Raises:
            ConfigError: The words do not go together, the method has prompts of its own or
                reads none, or the backbone has no text.
        """
        asked, prompts = self.asked_words, model.prompts
        if prompts.reads_words:
            self.backbone.text_source()  # there is one, or this is refused before any work
        if isinstance(prompts, FixedPrompts) and not self._is_worded:
            prompts = model.prompts = FixedPrompts(**vars(self.worded(prompts.words)))
        if not self._is_worded:
            if asked.lists or asked.object_name is not None:
                none = isinstance(prompts, NoPrompts)
                why = "reads no words here" if none else "has prompts of its own"
                msg = f"{type(self).__name__} {why}; leave prompts out"
                raise ConfigError(msg)
            return cast("str | None", self.hparams.get("object_name"))
        self.words = prompts.words
        if asked.lists and self.words:
            self.names_the_object = self.words.name_the_object
        if "templates" in asked.lists and prompts.learns:
            logger.warning("%s: templates have no effect, as contexts learn", asked.source)
        return self._object_asked

    @property
    def other_words(self) -> dict[str, Any] | None:
        """What the prompts say, where other words than the method's own were asked for."""
        return self.words.as_plain() if self.words and self.asked_words.lists else None

    @property
    def prompt_kind(self) -> str:
        """The kind of prompts: as asked for, else the method's first."""
        return self.asked_words.kind or self.prompt_kinds[0]
