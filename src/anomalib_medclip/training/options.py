"""The options that all methods share, and what follows from them for anomalib."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from anomalib import LearningType
from anomalib.metrics import Evaluator
from anomalib.post_processing import PostProcessor
from lightning import LightningModule, Trainer

from anomalib_medclip.cache import CachePrecision
from anomalib_medclip.clip.backbone import Backbone, PositionResize
from anomalib_medclip.clip.blocks import Precision
from anomalib_medclip.clip.towers import ImageTower
from anomalib_medclip.components.processors import (
    MedicalPreProcessor,
    RankPreservingPostProcessor,
)
from anomalib_medclip.decisions.thresholds import Rule
from anomalib_medclip.errors import ConfigError
from anomalib_medclip.option_checks import SEEDS, checked, checked_choice
from anomalib_medclip.readers.resize import Resample
from anomalib_medclip.training.evaluators import evaluator
from anomalib_medclip.training.results import HeatMapVisualizer
from anomalib_medclip.training.user_components import UserComponents, whole_signature

EpochChoice = Literal["last", "validation"]
"""Which epoch is kept."""

_TRAINS_IN = ("32-true", "16-mixed", "bf16-mixed")
"""Precisions of Lightning's trainer; others cast the frozen towers, or images alone."""

_CHOICES = {"precision": Precision, "epoch_choice": EpochChoice, "cache": CachePrecision}

if TYPE_CHECKING:
    from anomalib.models.components.base import AnomalibModule as Base
else:  # a mixin, because anomalib takes every direct subclass of AnomalibModule for a model
    Base = LightningModule


class SharedOptions(Base):
    """The constructor that methods pass on to what they do not know themselves.

    Args:
        backbone: open_clip name of a ViT, or keyword arguments of ``open_clip.CLIP``.
        pretrained: open_clip tag, local weights file, or ``None`` for random weights.
        image_size: Side of the square input in pixels.
        quick_gelu: The activation that OpenAI trained with, instead of the exact GELU; the default
            is that of the published numbers.
        normalize: Apply CLIP's mean and standard deviation; likewise.
        backbone_seed: Seed of random backbone weights.
        precision: What the frozen image tower computes its products in. ``bf16`` is faster where
            the hardware has it; ``docs/performance.md`` says how much.
        levels: Blocks to read, from 1; by default as published.
        lr: Adam's step size; by default as published.
        object_name: Words for the prompt; by default as the data say.
        adapters: File of what was learnt, as the authors' code saves it, to start from.
        epoch_choice: Keep the last epoch, or the one with the best validation AUROC.
        decide_by: By which rule volumes and patients are called abnormal: ``f1``, the largest F1;
            ``sensitivity=0.95``, with 95 % confidence or, as ``sensitivity=0.9@0.8``, another;
            ``false_alarms=0.05``, the share of normal patients.
        insist: Give a verdict even if too few patients are known for what the rule asks.
        cross_fit: Where thresholds come from the support: find them by models trained without parts
            of it, which takes twice as long as training; by default where that is below 30 s.
        cache: How frozen tokens are kept, so that images are encoded once.
        cache_memory: GB of memory for them; what exceeds it goes to disk.
        seed: Seed of initial weights, order of training images, and everything else random.
        **kwargs: ``pre_processor``, ``post_processor``, ``evaluator`` and ``visualizer``, as in
            every anomalib model.

    Attributes:
        default_lr: Step size, where ``--model.lr`` does not say.
        names_the_object: Whether prompts say what the images show.
        training_facts: How it was trained: zero-shot or few-shot, from which sets, epochs.
        user_components: The components among ``kwargs``, and what a checkpoint holds of them.
        resample: Filter of the resize of images.
        position_resize: How the backbone's position embedding is resized.

    Raises:
        ConfigError: An option has a word that it does not know, or a number that cannot be, or
            the method no such option.
        WeightsError: CLIP or its weights cannot be found or read.
    """

    default_lr: ClassVar[float] = 1e-3
    names_the_object: ClassVar[bool] = True
    resample: ClassVar[Resample] = "bicubic"
    position_resize: ClassVar[PositionResize] = "bicubic, antialiased"
    user_components = UserComponents({})  # pickles of former versions have none
    training_facts: Mapping[str, Any] = MappingProxyType({})

    def __init__(
        self,
        backbone: dict[str, Any] | str = "ViT-L-14-336",
        pretrained: str | None = "openai",
        image_size: int = 240,
        quick_gelu: bool = False,
        normalize: bool = False,
        backbone_seed: int = 0,
        precision: Precision = "fp32",
        levels: Sequence[int] | None = None,
        lr: float | None = None,
        object_name: str | None = None,
        adapters: str | None = None,
        epoch_choice: EpochChoice = "last",
        decide_by: str = "f1",
        insist: bool = False,
        cross_fit: bool | None = None,
        cache: CachePrecision = "float32",
        cache_memory: float = 4.0,
        seed: int = 111,
        **kwargs: Any,  # noqa: ANN401 - anomalib's components
    ) -> None:
        super().__init__(**kwargs)
        self.user_components = UserComponents(kwargs)
        for name, kind in _CHOICES.items():
            checked_choice(name, self.hparams[name], kind)
        _check_numbers(self.hparams)
        Rule.parse(self.hparams["decide_by"])
        if object_name is not None and not self.names_the_object:
            msg = f"the prompts of {type(self).__name__} name no object; leave object_name out"
            raise ConfigError(msg)
        entry = image_size, quick_gelu, normalize, backbone_seed, self.position_resize
        self.backbone = Backbone(backbone, pretrained, *entry)

    def __init_subclass__(cls, **kwargs: Any) -> None:  # noqa: ANN401 - of any metaclass
        """Let a method's signature say all its options."""
        super().__init_subclass__(**kwargs)
        cls.__signature__ = whole_signature(cls)  # type: ignore[attr-defined]

    def image_tower(self) -> ImageTower:
        """The frozen image tower that was asked for, to build the torch model on."""
        return ImageTower(self.backbone, self.hparams["precision"])

    @property
    def learning_rate(self) -> float:
        """Step size of Adam."""
        asked = self.hparams["lr"]
        return float(self.default_lr if asked is None else asked)

    @property
    def learning_type(self) -> LearningType:
        """One class: anomalib skips training for what it calls few-shot or zero-shot."""
        return LearningType.ONE_CLASS

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """Only what no user would want otherwise: whatever stands here silently wins."""
        return {"num_sanity_val_steps": 0}

    def configure_pre_processor(  # type: ignore[override]  # the size is an option here
        self, image_size: tuple[int, int] | None = None
    ) -> MedicalPreProcessor:
        """The one resize, to the backbone's image size."""
        side = image_size[0] if image_size else self.hparams["image_size"]
        return MedicalPreProcessor(side, resample=self.resample)

    def configure_post_processor(self) -> PostProcessor:
        """Threshold at one half, every rank kept.

        A set without masks has no pixel threshold; that of its images is on another scale, so maps
        are then centred on the middle of their own range.
        """
        return RankPreservingPostProcessor(enable_threshold_matching=False)

    @staticmethod
    def configure_evaluator() -> Evaluator:
        """Exact figures of the model's own scores; see ``evaluators``."""
        return evaluator()

    @classmethod
    def configure_visualizer(cls) -> HeatMapVisualizer:
        """A picture per image, none overwritten."""
        return HeatMapVisualizer()


def _check_numbers(options: Mapping[str, Any]) -> None:
    """Refuse numbers that cannot be.

    Raises:
        ConfigError: It names option, number and limits.
    """
    for name in ("seed", "backbone_seed"):
        checked(name, options[name], 0, SEEDS, whole=True)
    checked("image_size", options["image_size"], 1, whole=True)
    checked("cache_memory", options["cache_memory"], 0)
    if options["lr"] is not None:
        checked("lr", options["lr"], 0)


def refuse_precision(trainer: Trainer) -> None:
    """Refuse a trainer that casts more than what trains.

    Raises:
        ConfigError: It names the precisions that there are.
    """
    if trainer.precision not in _TRAINS_IN:
        known = ", ".join(map(repr, _TRAINS_IN))
        msg = f"the trainer's precision is {trainer.precision!r}, and must be one of {known}"
        raise ConfigError(msg)
