"""MVFA as an anomalib model: its options."""

import logging
from collections.abc import Sequence
from typing import Any, Literal

import torch
from anomalib.models.components.base import AnomalibModule

from anomalib_medclip.cache import CachePrecision
from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.clip.blocks import Precision
from anomalib_medclip.clip.towers import ImageTower
from anomalib_medclip.components.augmentation import ELEVEN_FOLD
from anomalib_medclip.errors import NotReadyError
from anomalib_medclip.models.mvfa.torch_model import MVFAModel
from anomalib_medclip.training.method import ClipMethodMixin, EpochChoice

logger = logging.getLogger(__name__)


class MVFA(ClipMethodMixin, AnomalibModule):
    """Multi-level Visual Feature Adaptation (CVPR 2024), few-shot or zero-shot.

    The defaults are those of the published numbers. See ``anomalib_medclip.models.mvfa`` for the
    paper's equations and where its code differs.

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
        scored_levels: Those of the levels that scores are made of (table 5, multi-level training);
            by default all.
        feed_back: Let adapters change the stream; without, they are the projectors of table 4.
        few_shot: Compare with the support images, too; by default as the data allow.
        lr: Adam's step size; by default 1e-3 few-shot and 1e-4 zero-shot.
        object_name: Words for the prompt; by default as the data say.
        adapters: File of adapters as the authors released them, to start from.
        epoch_choice: Keep the last epoch, or the one with the best validation AUROC.
        cross_fit: Where thresholds come from the support: find them by models trained without parts
            of it, which takes twice as long as training; by default where that is below 30 s.
        bank_precision: Precision of the memory bank's rows.
        transductive: Scale the branches on the test images themselves, as the authors' tables
            do; for comparison only, because then no image can be scored alone.
        cache: How the stream after the first level is kept, so that later epochs begin there.
        cache_memory: GB of memory for it; what exceeds them goes to disk.
        seed: Seed of adapters, order of training images, and everything else random.
        **kwargs: ``pre_processor``, ``post_processor``, ``evaluator`` and ``visualizer``, as in
            every anomalib model.
    """

    augmentations = ELEVEN_FOLD
    model: MVFAModel

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
        scored_levels: Sequence[int] | None = None,
        feed_back: bool = True,
        few_shot: bool | None = None,
        lr: float | None = None,
        object_name: str | None = None,
        adapters: str | None = None,
        epoch_choice: EpochChoice = "last",
        cross_fit: bool | None = None,
        bank_precision: Literal["float16", "float32"] = "float16",
        transductive: bool = False,
        cache: CachePrecision = "float32",
        cache_memory: float = 4.0,
        seed: int = 111,
        **kwargs: Any,  # noqa: ANN401 - anomalib's components
    ) -> None:
        super().__init__(**kwargs)
        self.hparams.pop("adapters", None)  # a checkpoint holds them; the file may be gone
        clip = Backbone(backbone, pretrained, image_size, quick_gelu, normalize, backbone_seed)
        tower = ImageTower(clip, precision)
        dtype = getattr(torch, bank_precision)
        self.model = MVFAModel(
            tower, levels, few_shot is not False, dtype, seed, scored_levels, feed_back
        )
        if adapters:
            self.model.adapters.load_released(adapters)

    @property
    def learning_rate(self) -> float:
        """As asked, or as the authors' code: 1e-3 few-shot, 1e-4 zero-shot."""
        asked = self.hparams["lr"]
        return float(asked) if asked is not None else 1e-3 if self.model.few_shot else 1e-4

    def on_test_start(self) -> None:
        """Scale the branches on the test images, if that is asked for.

        Raises:
            NotReadyError: ``transductive``, but there is one branch only, or no test set.
        """
        super().on_test_start()
        if not self.hparams["transductive"]:
            return
        loader = self._data("test_dataloader", default=None)
        if not self.model.few_shot or loader is None:
            msg = "transductive scales two branches on a whole test set; pass few-shot data"
            raise NotReadyError(msg)
        logger.warning(
            "transductive: scores depend on the whole test set, and the threshold, found on "
            "validation images, does not fit them: AUROC can be compared with the papers, F1 cannot"
        )
        self._inductive_scales = self.model.fusion.scales
        images = (batch.image.to(self.device) for batch in loader())
        self.model.set_scales((self.model.encode(i), None) for i in images)

    def on_test_end(self) -> None:
        """Forget the test images."""
        super().on_test_end()
        if self.hparams["transductive"]:
            self.model.fusion.scales = self._inductive_scales

    def _meet_data(self) -> None:
        super()._meet_data()
        zero_shot = self._data("zero_shot", default=False)
        if self.hparams["few_shot"] is None:
            self.model.few_shot = not zero_shot
        elif self.hparams["few_shot"] and zero_shot:
            msg = "few_shot compares with support images, and zero-shot data have none; drop it"
            raise NotReadyError(msg)
