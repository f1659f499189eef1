"""MadCLIP as an anomalib model: its options."""

from collections.abc import Sequence
from typing import Any, Literal

from anomalib.models.components.base import AnomalibModule

from anomalib_medclip.components.augmentation import Copies
from anomalib_medclip.components.learnable_prompts import LearnablePrompts, Position
from anomalib_medclip.components.prompts import (
    ABNORMAL_STATES,
    NORMAL_STATES,
    TEMPLATES,
    FixedPrompts,
    PromptEncoder,
)
from anomalib_medclip.components.words import Words
from anomalib_medclip.models.madclip.jitter import SIXTEEN_FOLD, Jitter, drawn_jitters
from anomalib_medclip.models.madclip.torch_model import ImageScore, Loss, MadCLIPModel
from anomalib_medclip.option_checks import Idle
from anomalib_medclip.training.method import ClipMethod

ABNORMAL_PHRASES = (*ABNORMAL_STATES, "disease {}", "abnormal {}")
"""MadCLIP's abnormal states: MVFA's and two more."""

WORDS = Words(NORMAL_STATES, ABNORMAL_PHRASES, TEMPLATES)


class MadCLIP(ClipMethod, AnomalibModule):
    """Dual-branch adapters and learnable prompts (MICCAI 2025), few-shot.

    The defaults are those of the published numbers. See ``anomalib_medclip.models.madclip`` for the
    paper's parts and where its code differs.

    Args:
        prompts: ``learnable``, the context of each phrase, or ``fixed``, MVFA's sentences: ablation
            (a); or other words.
        context: Number of context vectors.
        positions: Where the phrase stands; each phrase is encoded once for every position.
        causal: Let the text tower attend to earlier tokens only, as CLIP was trained.
        branches: Adapters for each class, or one set for both: ablation (c).
        subtract: Subtract the likeness to the other class: ablation (d).
        loss: SigLIP's sigmoid loss, or the softmax loss: ablation (e).
        heads: Adapter layers for detection and segmentation, or one for both: ablation (f).
        image_score: Maximum of the map or mean over patches; by default the maximum for sets with
            masks and the mean for others.
        jitter: Over what the change of contrast takes its mean; ``"column"`` as published.
        **kwargs: The options that all methods share; see ``SharedOptions``. Ablation (b) is
            ``object_name`` at ``"medical image"``; empty, prompts name no object.
    """

    augmentations = Copies.alike(SIXTEEN_FOLD)
    default_batch_size = 16
    default_epochs = 60
    prompt_kinds = ("learnable", "fixed")
    idle = (
        Idle(
            ("context", "positions", "causal"),
            lambda given: given["prompts"] == "fixed",
            "prompts: fixed",
        ),
    )
    model: MadCLIPModel

    def __init__(
        self,
        prompts: str | dict[str, Any] | None = None,
        context: int = 8,
        positions: Sequence[Position] = ("end", "front", "middle"),
        causal: bool = False,
        branches: Literal["two", "shared"] = "two",
        subtract: bool = True,
        loss: Loss = "sigmoid",
        heads: Literal["two", "one"] = "two",
        image_score: ImageScore | None = None,
        jitter: Jitter = "column",
        **kwargs: Any,  # noqa: ANN401 - the options that all methods share
    ) -> None:
        super().__init__(prompts=prompts, **kwargs)
        width, seed = self.backbone.text_width, self.hparams["seed"]
        words = self.worded(WORDS)
        encoder: PromptEncoder = FixedPrompts(**vars(words))
        if self.prompt_kind == "learnable":
            said = words.normal, words.abnormal
            encoder = LearnablePrompts(width, *said, context, positions, causal=causal, seed=seed)
        self.augmentations = Copies(SIXTEEN_FOLD, *drawn_jitters(seed, jitter))
        self.assemble(
            MadCLIPModel(
                self.image_tower(),
                encoder,
                self.hparams["levels"],
                shared=branches == "shared",
                one_head=heads == "one",
                subtract=subtract,
                loss=loss,
                image_score=image_score,
                seed=seed,
            )
        )
