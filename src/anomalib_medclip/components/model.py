"""What every method's torch model has: a frozen tower, levels, text features, and its verbs."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from anomalib_medclip.clip.towers import ImageTower, TextTower
from anomalib_medclip.components.buffers import SizedByState
from anomalib_medclip.components.losses import LossTerms
from anomalib_medclip.components.memory_bank import MemoryBank
from anomalib_medclip.components.prompts import FixedPrompts, PromptEncoder
from anomalib_medclip.errors import ConfigError, NotReadyError


class ModelOutput(NamedTuple):
    """What a model says of images, each by itself; fields as in anomalib's ``InferenceBatch``.

    Attributes:
        pred_score: How abnormal each image is, in [0, 1].
        anomaly_map: How abnormal each pixel is, in [0, 1].
    """

    pred_score: Float[Tensor, "batch"]
    anomaly_map: Float[Tensor, "batch side side"]


class NearestSupport(NamedTuple):
    """The support token that is most like each patch, level by level.

    Attributes:
        distance: One minus their cosine, in [0, 2].
        image: Number of the normal support image, counted through its copies: copy 0 of every
            normal image in the support's order, then copy 1 of every one, ...
        patch: Number of the patch in that image, row by row; -1 for its class token or a register.
    """

    distance: Float[Tensor, "level batch patch"]
    image: Int[Tensor, "level batch patch"]
    patch: Int[Tensor, "level batch patch"]


class ClipModel(SizedByState):
    """``encode`` does what no training changes; ``score`` and ``loss`` go on from there.

    So frozen features are computed once, however often an image is seen. A method implements
    ``score`` and ``loss_terms``. The other verbs do nothing unless a method has a use for them, and
    may be called of any.

    Args:
        clip: The frozen image tower.
        levels: Blocks to read, counted from 1; by default those at the method's ``quarters``.
        prompts: Gives the text features.

    Attributes:
        quarters: Quarters of the tower's depth that the method reads.
        has_memory: Whether ``fit_support`` keeps something of the support images.
        most_normal: Normal images that it is given at most, where training is on those of a split.
        untraceable: Why no graph can be made of it, and what helps; empty where one can.
        without_support: What helps a model with a memory where there is no support, for messages.
        part_names: What the time of a child module is told as in a profile, by the child's name,
            where that is not the same word; ``"maps"`` is what all scoring ends with.
        text: What the prompts say of the target, row 0 normal and row 1 abnormal; empty until
            known. Most methods have vectors of the space that images and text share.
        text_tower: The model's own text tower, where scoring needs one.
        memory_bank: Tokens of normal support images, where scores are distances to them.
        has_masks: Whether the lesions of the images learnt from are outlined.
        few_shot: Whether the images learnt from are of the same kind as those to score.
        loss_weights: Of the terms of the loss, by name; 1 where none is said.

    Raises:
        ValueError: The tower has no such levels.
    """

    quarters: ClassVar[Sequence[int]] = (1, 2, 3, 4)
    has_memory: ClassVar[bool] = False
    most_normal: ClassVar[int] = 256
    without_support: str = "do not ask for few_shot"
    part_names: ClassVar[Mapping[str, str]] = MappingProxyType({})
    text: Tensor

    def __init__(
        self,
        clip: ImageTower,
        levels: Sequence[int] | None = None,
        prompts: PromptEncoder | None = None,
    ) -> None:
        super().__init__()
        self.prompts = prompts or FixedPrompts()
        self.clip = clip
        self.levels = self._levels_of(clip, levels)
        self.text_tower: TextTower | None = None
        self.memory_bank: MemoryBank | None = None
        self.has_masks = True
        self.few_shot = True
        self.untraceable = ""
        self.loss_weights: Mapping[str, float] = {}
        self.register_buffer("text", torch.empty(0))

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.text.device

    def forward(self, images: Float[Tensor, "batch 3 side side"]) -> ModelOutput:
        """Score images of the target, each by itself.

        Args:
            images: RGB in [0, 1] at the tower's image size.

        Raises:
            NotReadyError: Something is missing that training or a checkpoint gives.
        """
        return self.score(self.encode(images), self.known_text())

    def known_text(self) -> Float[Tensor, "2 *feature"]:
        """The target's text features.

        Raises:
            NotReadyError: There are none.
        """
        if self.text.numel() == 0:
            msg = "no text features: train with an object_name, or load a checkpoint"
            raise NotReadyError(msg)
        return self.text

    def encode(
        self, images: Float[Tensor, "batch 3 side side"]
    ) -> Float[Tensor, "batch level token width"]:
        """Frozen tokens of every level, un-normalised; see ``ImageTower.taps``."""
        return self.clip.taps(images, self.levels)

    def middle_tokens(self, encoded: Tensor) -> Float[Tensor, "batch token width"]:
        """Frozen tokens from the middle of the tower, by which images are told to be alike.

        Args:
            encoded: What ``encode`` gives.
        """
        middle = self.clip.depth // 2
        nearest = min(range(len(self.levels)), key=lambda at: abs(self.levels[at] - middle))
        return encoded[:, nearest]

    def middle_patches(self, encoded: Tensor) -> Float[Tensor, "batch patch width"]:
        """The patches among ``middle_tokens``, row by row of a square."""
        return self.clip.patches(self.middle_tokens(encoded))

    @abstractmethod
    def score(
        self,
        encoded: Tensor,
        text: Float[Tensor, "2 *feature"],
        leave_out: Int[Tensor, "batch"] | None = None,
    ) -> ModelOutput:
        """Score images that are encoded already.

        Args:
            encoded: What ``encode`` gives.
            text: Text features of the images' own set.
            leave_out: Owner of each image, as ``fit_support`` was told, whose images are not to be
                compared with; -1 for none. Of no meaning to a method without a memory.
        """

    @abstractmethod
    def loss_terms(
        self,
        encoded: Tensor,
        masks: Float[Tensor, "batch 1 side side"] | None,
        labels: Bool[Tensor, "batch"],
        text: Float[Tensor, "2 *feature"],
    ) -> LossTerms:
        """The terms of ``loss``."""

    def loss(
        self,
        encoded: Tensor,
        masks: Float[Tensor, "batch 1 side side"] | None,
        labels: Bool[Tensor, "batch"],
        text: Float[Tensor, "2 *feature"],
    ) -> Float[Tensor, ""]:
        """Loss of a batch: all terms, by ``loss_weights``.

        Args:
            encoded: What ``encode`` gives.
            masks: 1 on the lesion, 0 elsewhere, NaN where nobody knows (see ``losses.known_part``);
                ``None`` for a set with labels only.
            labels: True for abnormal.
            text: Text features of the batch's own set; with their gradient where prompts learn.
        """
        return self.loss_terms(encoded, masks, labels, text).total(self.loss_weights)

    def idle_parameters(self, has_masks: bool) -> Iterable[nn.Parameter]:
        """Parameters that a batch with or without masks does not train; none of them by default."""
        del has_masks
        return ()

    def learns_from(self, has_masks: bool) -> bool:
        """Whether a batch with or without masks trains anything."""
        idle = set(map(id, self.idle_parameters(has_masks)))
        return any(one.requires_grad and id(one) not in idle for one in self.parameters())

    def fit_support(
        self,
        support: Tensor,
        copies: Float[Tensor, "copy normal ..."],
        labels: Bool[Tensor, "image"],
        owners: Int[Tensor, "image"],
    ) -> None:
        """Keep what scoring needs of the support images; called where ``has_memory``.

        Args:
            support: What ``encode`` gives of the support images.
            copies: The same of every augmentation of the normal ones.
            labels: True for abnormal.
            owners: Number of each image's patient or, where unknown, of the image.
        """

    def bank_tokens(self, encoded: Tensor) -> Float[Tensor, "level image token embed_dim"]:
        """What ``memory_bank`` keeps of images, of those methods that have one.

        Raises:
            ConfigError: This one has none.
        """
        msg = f"{type(self).__name__} has no memory bank; take a method that has one"
        raise ConfigError(msg)

    def load_released(self, path: str | Path) -> None:
        """Load a file as the method's authors release or save it.

        Raises:
            WeightsError: The file is missing, is no such file, or does not fit.
            ConfigError: No file of authors is known for this method.
        """
        msg = f"{path}: {type(self).__name__} knows no files of its authors; leave adapters out"
        raise ConfigError(msg)

    @property
    def scored_levels(self) -> tuple[int, ...]:
        """Levels that scores are made of, counted from 1."""
        return self.levels

    def level_maps(
        self, encoded: Tensor, text: Float[Tensor, "2 *feature"]
    ) -> dict[str, Float[Tensor, "level batch side side"]]:
        """Heat map of each of ``scored_levels`` by itself, in [0, 1], by branch.

        Args:
            encoded: What ``encode`` gives.
            text: Text features of the images' own set.

        Returns:
            By the branch's name, such as ``text``, maps on the scale of ``score``'s own.
        """
        del encoded, text
        return {}

    def nearest_support(self, encoded: Tensor) -> NearestSupport | None:
        """The normal support patches that a few-shot score compares with; ``None`` without any."""
        del encoded
        return None

    def embeddings(
        self, encoded: Tensor, text: Float[Tensor, "2 *feature"]
    ) -> dict[str, Float[Tensor, "batch vector width"]]:
        """Vectors of each image to be plotted, by what they are, such as ``with adapters``.

        Args:
            encoded: What ``encode`` gives.
            text: Text features of the images' own set.

        Returns:
            One vector an image, or two: of what is normal, and of what is abnormal. Each entry has
            its own width.
        """
        del encoded, text
        return {}

    def _levels_of(self, clip: ImageTower, levels: Sequence[int] | None) -> tuple[int, ...]:
        by_default = [clip.depth * quarter // 4 for quarter in self.quarters]
        return clip.checked(by_default if levels is None else levels)


def side_by_side(
    tokens: Float[Tensor, "level batch vector width"],
) -> Float[Tensor, "batch vector all_levels"]:
    """One vector of all levels, each of length one, as cosines see them."""
    return F.normalize(tokens, dim=-1).movedim(0, -2).flatten(-2)


def mean_patch(
    patches: Float[Tensor, "level batch patch width"],
) -> Float[Tensor, "batch 1 all_levels"]:
    """An image in one vector: its mean patch token of each level, levels side by side."""
    return side_by_side(F.normalize(patches, dim=-1).mean(dim=2, keepdim=True))
