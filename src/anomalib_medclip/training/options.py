"""The options that all methods share, and what follows from them for anomalib."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from inspect import signature
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from anomalib import LearningType
from anomalib.metrics import Evaluator
from anomalib.post_processing import PostProcessor

from anomalib_medclip.cache import CachePrecision
from anomalib_medclip.clip.backbone import Backbone, PositionResize
from anomalib_medclip.clip.blocks import Precision
from anomalib_medclip.clip.towers import ImageTower
from anomalib_medclip.components.losses import LossTerms
from anomalib_medclip.components.processors import (
    MedicalPreProcessor,
    RankPreservingPostProcessor,
)
from anomalib_medclip.decisions.thresholds import Rule
from anomalib_medclip.errors import ConfigError
from anomalib_medclip.option_checks import SEEDS, Idle, check_choices, checked, idle_options
from anomalib_medclip.readers.resize import Resample
from anomalib_medclip.terminal.screen import under_anomalib
from anomalib_medclip.training.evaluators import evaluator
from anomalib_medclip.training.prompt_options import PromptOptions
from anomalib_medclip.training.results import HeatMapVisualizer
from anomalib_medclip.training.user_components import UserComponents, whole_signature

logger = logging.getLogger(__name__)

EpochChoice = Literal["last", "validation"]
"""Which epoch is kept."""

_IDLE = (
    Idle(("backbone_seed",), lambda given: given["pretrained"] is not None, "pretrained weights"),
    Idle(("cache_memory",), lambda given: given["cache"] == "off", "cache: 'off'"),
    Idle(
        ("quick_gelu",),
        lambda given: Backbone(given["backbone"]).has_own_activation,
        "towers of timm and of Hugging Face, which have their own activation",
    ),
)
"""Options of all methods that have no effect beside others."""


class SharedOptions(PromptOptions):
    """The constructor that methods pass on to what they do not know themselves.

    Args:
        backbone: open_clip name, ``local-dir:FOLDER``, ``hf-hub:ORG/NAME``, ``timm:NAME`` of an
            image tower without text, or keyword arguments of ``open_clip.CLIP``; see
            ``docs/backbones.md``.
        pretrained: open_clip tag, local weights file, or ``None`` for random weights.
        image_size: Side of the square input in pixels.
        quick_gelu: The activation that OpenAI trained with, instead of the exact GELU; the default
            is that of the published numbers.
        normalize: Apply the mean and standard deviation that the weights were trained with, which
            are CLIP's where nothing else is said; likewise.
        backbone_seed: Seed of random backbone weights.
        precision: What the frozen image tower computes its products in. ``bf16`` is faster where
            the hardware has it; ``docs/performance.md`` says how much.
        levels: Blocks to read, from 1; by default as published.
        lr: Adam's step size; by default as published.
        loss_weights: Weights of the losses ``detection``, ``focal`` and ``dice``; 1 where none is
            said.
        object_name: Words for the prompt; by default as the data say.
        prompts: Other words for the prompts, in a YAML file or as what is in one (see
            ``docs/prompts.md``); or, of a method that has both, ``learnable`` or ``fixed``.
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
        learns: Whether anything in it is trained.
        needs_abnormal: Whether it refuses to learn from normal images alone.
        no_use_for: Options of these that it does not take.
        begins_from: Options that name files of which a checkpoint holds all that was read.
        loss_names: Losses that ``loss_weights`` may weigh.
        idle: Options that have no effect beside others.
        training_facts: How it was trained: zero-shot or few-shot, from which sets, epochs.
        user_components: The components among ``kwargs``, and what a checkpoint holds of them.
        resample: Filter of the resize of images.
        position_resize: How the backbone's position embedding is resized.
        leaves_out_ignored: Whether pixels of which nobody knows are left out of losses.

    Raises:
        ConfigError: An option has a word that it does not know, or a number that cannot be, or
            the method no such option.
        WeightsError: CLIP or its weights cannot be found or read.
    """

    default_lr: ClassVar[float] = 1e-3
    learns: ClassVar[bool] = True
    needs_abnormal: ClassVar[bool] = False
    no_use_for: ClassVar[Iterable[str]] = ()
    begins_from: ClassVar[Sequence[str]] = ("adapters",)
    loss_names: ClassVar[Sequence[str]] = LossTerms._fields
    idle: ClassVar[Sequence[Idle]] = ()
    resample: ClassVar[Resample] = "bicubic"
    position_resize: ClassVar[PositionResize] = "bicubic, antialiased"
    leaves_out_ignored: ClassVar[bool] = True
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
        loss_weights: dict[str, float] | None = None,
        object_name: str | None = None,
        prompts: str | dict[str, Any] | None = None,
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
        under_anomalib()
        super().__init__(**kwargs)
        self.user_components = UserComponents(kwargs)
        check_choices(self.hparams, signature(type(self)))
        _check_numbers(self.hparams, self.loss_names)
        Rule.parse(self.hparams["decide_by"])
        self.take_prompts(prompts, object_name)
        if lr is not None and not self.learns:
            msg = f"{type(self).__name__} trains nothing; leave lr out"
            raise ConfigError(msg)
        entry = image_size, quick_gelu, normalize, backbone_seed, self.position_resize
        self.backbone = self.settled(Backbone(backbone, pretrained, *entry))
        self.hparams.update(backbone=self.backbone.model, pretrained=self.backbone.pretrained)
        self._say_what_is_idle()

    @staticmethod
    def settled(backbone: Backbone) -> Backbone:
        """What a checkpoint keeps of a backbone; see ``Backbone.settled``."""
        return backbone.settled()

    def __init_subclass__(cls, **kwargs: Any) -> None:  # noqa: ANN401 - of any metaclass
        """Let a method's signature say all its options."""
        super().__init_subclass__(**kwargs)
        cls.__signature__ = whole_signature(cls)  # type: ignore[attr-defined]

    def _say_what_is_idle(self) -> None:
        """Warn of options that have no effect beside others."""
        kind = {"prompts": self.prompt_kind} if self.prompt_kinds else {}
        given: dict[str, Any] = {**self.hparams, **kind}
        defaults = {name: one.default for name, one in signature(type(self)).parameters.items()}
        for sentence in idle_options(given, defaults, (*_IDLE, *self.idle)):
            logger.warning("%s: %s", type(self).__name__, sentence)

    def image_tower(self) -> ImageTower:
        """The frozen image tower that was asked for, to build the torch model on.

        Where images enter it otherwise than when it was trained, that is said in the log.
        """
        tower = ImageTower(self.backbone, self.hparams["precision"])
        if found := tower.entry_differences(self.resample):
            _say_once(f"{self.backbone.name}: {'; '.join(found)}")
        return tower

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


@cache  # a comparison makes many models of one backbone
def _say_once(words: str) -> None:
    logger.info(words)


def _check_numbers(options: Mapping[str, Any], losses: Sequence[str]) -> None:
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
    for name, weight in (options["loss_weights"] or {}).items():
        if name not in losses:
            msg = f"loss_weights name {name!r}, and there are {', '.join(losses)}"
            raise ConfigError(msg)
        checked(f"loss_weights[{name!r}]", weight, 0)
