"""MadCLIP as an anomalib model: its options."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

from anomalib.models.components.base import AnomalibModule

from anomalib_medclip.cache import CachePrecision
from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.clip.blocks import Precision
from anomalib_medclip.clip.towers import ImageTower
from anomalib_medclip.components.augmentation import Augmentation
from anomalib_medclip.components.learnable_prompts import LearnablePrompts, Position
from anomalib_medclip.components.prompts import ABNORMAL_STATES, NORMAL_STATES, ensemble
from anomalib_medclip.models.madclip.adapters import load_released
from anomalib_medclip.models.madclip.jitter import SIXTEEN_FOLD, Jitter, drawn_jitters
from anomalib_medclip.models.madclip.torch_model import ImageScore, Loss, MadCLIPModel
from anomalib_medclip.training.method import ClipMethodMixin, EpochChoice

ABNORMAL = (*ABNORMAL_STATES, "disease {}", "abnormal {}")
"""MadCLIP's abnormal states: MVFA's and two more."""


class MadCLIP(ClipMethodMixin, AnomalibModule):
    """Dual-branch adapters and learnable prompts (MICCAI 2025), few-shot.

    The defaults are those of the published numbers. See ``anomalib_medclip.models.madclip`` for the
    paper's parts and where its code differs.

    Args:
        backbone: open_clip name of a ViT, or keyword arguments of ``open_clip.CLIP``.
        pretrained: open_clip tag, local weights file, or ``None`` for random weights.
        image_size: Side of the square input in pixels.
        quick_gelu: The activation that OpenAI trained with; the published numbers use exact GELU.
        normalize: Apply CLIP's mean and standard deviation; the published numbers do not.
        backbone_seed: Seed of random backbone weights.
        precision: What the frozen image tower computes its products in. ``bf16`` is faster where
            the hardware has it; ``docs/performance.md`` says how much.
        levels: Blocks with adapters, from 1; by default the four quarters (6, 12, 18, 24 of 24).
        lr: Adam's step size.
        object_name: Words for the prompt; by default as the data say. Empty for prompts without an
            object, ``"medical image"`` for ablation (b).
        prompts: Learn the context of each phrase, or take MVFA's sentences: ablation (a).
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
        adapters: File of adapters and prompts as the authors released them, to start from.
        epoch_choice: Keep the last epoch, or the one with the best validation AUROC.
        cross_fit: Where thresholds come from the support: find them by models trained without parts
            of it, which takes twice as long as training; by default where that is below 30 s.
        cache: How frozen tokens are kept, so that later epochs need no image tower.
        cache_memory: GB of memory for them; what exceeds it goes to disk.
        seed: Seed of adapters, prompts, jitter, order of training images, and everything else.
        **kwargs: ``pre_processor``, ``post_processor``, ``evaluator`` and ``visualizer``, as in
            every anomalib model.
    """

    augmentations = SIXTEEN_FOLD
    default_batch_size = 16
    default_epochs = 60
    model: MadCLIPModel

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
        lr: float = 1e-3,
        object_name: str | None = None,
        prompts: Literal["learnable", "fixed"] = "learnable",
        context: int = 8,
        positions: Sequence[Position] = ("end", "front", "middle"),
        causal: bool = False,
        branches: Literal["two", "shared"] = "two",
        subtract: bool = True,
        loss: Loss = "sigmoid",
        heads: Literal["two", "one"] = "two",
        image_score: ImageScore | None = None,
        jitter: Jitter = "column",
        adapters: str | None = None,
        epoch_choice: EpochChoice = "last",
        cross_fit: bool | None = None,
        cache: CachePrecision = "float32",
        cache_memory: float = 4.0,
        seed: int = 111,
        **kwargs: Any,  # noqa: ANN401 - anomalib's components
    ) -> None:
        super().__init__(**kwargs)
        self.hparams.pop("adapters", None)  # a checkpoint holds them; the file may be gone
        clip = Backbone(backbone, pretrained, image_size, quick_gelu, normalize, backbone_seed)
        learnable = prompts == "learnable" and LearnablePrompts(
            clip.text_width, NORMAL_STATES, ABNORMAL, context, positions, causal=causal, seed=seed
        )
        self.model = MadCLIPModel(
            ImageTower(clip, precision),
            learnable or partial(ensemble, normal=NORMAL_STATES, abnormal=ABNORMAL),
            levels,
            shared=branches == "shared",
            one_head=heads == "one",
            subtract=subtract,
            loss=loss,
            image_score=image_score,
            seed=seed,
        )
        self._copies = drawn_jitters(seed, jitter)
        if adapters:
            load_released(self.model, learnable or None, adapters)

    def augmentations_of(self, abnormal: bool) -> Sequence[Augmentation]:
        """The copies of normal or of abnormal images; masks have those without the jitter."""
        return self._copies[abnormal]
