"""Words about an object, to one text feature for normal and one for abnormal."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from anomalib_medclip.clip.towers import TextTower
from anomalib_medclip.components.words import PLACE, Words
from anomalib_medclip.errors import ConfigError

NORMAL_STATES = (
    "{}", "flawless {}", "perfect {}", "unblemished {}", "{} without flaw", "{} without defect",
    "{} without damage",
)  # fmt: skip
ABNORMAL_STATES = ("damaged {}", "broken {}", "{} with flaw", "{} with defect", "{} with damage")

TEMPLATES = (
    *(
        f"a {quality} photo of {article} {{}}."
        for quality in (
            "bad", "low resolution", "cropped", "bright", "dark", "close-up", "black and white",
            "jpeg corrupted", "blurry", "good",
        )
        for article in ("a", "the")
    ),
    *(
        f"a photo of {article} {size} {{}}."
        for size in ("cool", "large", "small")
        for article in ("a", "the")
    ),
    *(f"a photo of {article} {{}}." for article in ("a", "the", "my", "one")),
    *(f"there is {article} {{}} in the scene." for article in ("a", "the")),
    *(f"this is {article} {{}} in the scene." for article in ("a", "the", "one")),
)  # fmt: skip
"""The 35 sentence frames of WinCLIP that MVFA uses."""


WORDS = Words(NORMAL_STATES, ABNORMAL_STATES, TEMPLATES)
"""What MVFA says, and every method that says nothing else."""


def sentences(
    object_name: str, states: Sequence[str], templates: Sequence[str] = TEMPLATES
) -> list[str]:
    """Every state of an object in every template.

    Example:
        >>> prompts = sentences("Brain", NORMAL_STATES)
        >>> len(prompts), prompts[0], prompts[-1]
        (245, 'a bad photo of a Brain.', 'this is one Brain without damage in the scene.')
    """
    return [t.replace(PLACE, s.replace(PLACE, object_name)) for s in states for t in templates]


def ensemble(
    tower: TextTower,
    object_name: str,
    normal: Sequence[str] = NORMAL_STATES,
    abnormal: Sequence[str] = ABNORMAL_STATES,
    templates: Sequence[str] = TEMPLATES,
) -> Float[Tensor, "2 embed_dim"]:
    """Average the features of all sentences about an object (MVFA section 4).

    Args:
        tower: The frozen text tower.
        object_name: What the images show, such as ``"retinal OCT"``.
        normal: States of a normal object, ``{}`` where its name goes.
        abnormal: States of an abnormal object.
        templates: Sentences, ``{}`` where the state goes.

    Returns:
        Unit vectors, row 0 normal and row 1 abnormal.

    Raises:
        ConfigError: A sentence does not fit the text tower, which would cut it.
    """
    said = [sentences(object_name, states, templates) for states in (normal, abnormal)]
    check_lengths(tower, [one for group in said for one in group])
    groups = [tower.encode(group) for group in said]
    return F.normalize(torch.stack([group.mean(dim=0) for group in groups]), dim=-1)


def check_lengths(tower: TextTower, sentences: Sequence[str]) -> None:
    """Refuse sentences that the tower's tokenizer would cut.

    A longer sentence that gives the same tokens was cut, or fills the tower to the last.

    Raises:
        ConfigError: There is one.
    """
    tokens, longer = (tower.tokenize([f"{one}{more}" for one in sentences]) for more in ("", " x"))
    cut = (tokens == longer).all(dim=-1)
    if bool(cut.any()):
        sentence = sentences[int(cut.nonzero()[0])]
        msg = f"the sentence {sentence!r} does not fit the text tower's {tower.context_length} "
        msg += "tokens; shorten it in prompts, or take a shorter object_name"
        raise ConfigError(msg)


class PromptEncoder(nn.Module):
    """From the text tower and the object's name to what images are compared with.

    Attributes:
        learns: Whether training changes it; text features then carry a gradient.
        reads_words: Whether it asks the text tower; what does not is given none.
        words: What it says; ``None`` of prompts that cannot be said in other words.
    """

    learns: ClassVar[bool] = False
    reads_words: ClassVar[bool] = True
    words: Words | None = None

    @abstractmethod
    def forward(self, tower: TextTower, object_name: str = "") -> Float[Tensor, "2 *feature"]:
        """What the prompts say of normal (row 0) and of abnormal images (row 1).

        Args:
            tower: The frozen text tower.
            object_name: What the images show.
        """


class NoPrompts(PromptEncoder):
    """What stands for text where images are compared with images alone.

    Args:
        embed_dim: Width of the space that images and text share.
    """

    reads_words: ClassVar[bool] = False

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.embed_dim = embed_dim

    def forward(
        self, tower: TextTower | None, object_name: str = ""
    ) -> Float[Tensor, "2 embed_dim"]:
        """Two unit vectors that say nothing."""
        del tower, object_name
        return torch.eye(2, self.embed_dim)


class FixedPrompts(PromptEncoder):
    """Sentences that do not change; see ``ensemble``.

    Args:
        normal: States of a normal object, ``{}`` where its name goes.
        abnormal: States of an abnormal object.
        templates: Sentences, ``{}`` where the state goes.
    """

    words: Words

    def __init__(
        self,
        normal: Sequence[str] = NORMAL_STATES,
        abnormal: Sequence[str] = ABNORMAL_STATES,
        templates: Sequence[str] = TEMPLATES,
    ) -> None:
        super().__init__()
        self.words = Words(tuple(normal), tuple(abnormal), tuple(templates))

    def forward(self, tower: TextTower, object_name: str = "") -> Float[Tensor, "2 embed_dim"]:
        """Unit vectors, row 0 normal and row 1 abnormal."""
        said = self.words
        return ensemble(tower, object_name, said.normal, said.abnormal, said.templates)
