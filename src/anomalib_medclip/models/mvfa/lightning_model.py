"""MVFA as an anomalib model: its options."""

import logging
from collections.abc import Sequence
from typing import Any, Literal

import torch
from anomalib.models.components.base import AnomalibModule

from anomalib_medclip.components.anchors import LearnableAnchors
from anomalib_medclip.components.anomaly_map import PatchScore
from anomalib_medclip.components.augmentation import ELEVEN_FOLD, Copies
from anomalib_medclip.components.faiss_index import IndexOptions
from anomalib_medclip.components.losses import CrossEntropy
from anomalib_medclip.components.prompts import PromptEncoder
from anomalib_medclip.errors import NotReadyError
from anomalib_medclip.models.mvfa.torch_model import MVFAModel
from anomalib_medclip.models.mvfa.variant import Activation, ImageScore, LastLevel, Variant
from anomalib_medclip.option_checks import Idle, checked
from anomalib_medclip.training.method import ClipMethod

logger = logging.getLogger(__name__)


class MVFA(ClipMethod, AnomalibModule):
    """Multi-level Visual Feature Adaptation (CVPR 2024), few-shot or zero-shot.

    The defaults are those of the published numbers. See ``anomalib_medclip.models.mvfa`` for the
    paper's equations and where its code differs.

    Args:
        scored_levels: Those of the levels that scores are made of (table 5, multi-level training);
            by default all.
        feed_back: Let adapters change the stream; without, they are the projectors of table 4.
        prompts: ``fixed`` sentences, in the paper's words or in others; or ``anchors``, two learnt
            vectors in their place, for image towers without text.
        activation: Of the adapters: ``leaky`` ReLUs after both layers, or a ``relu`` after the
            first alone, as eq. 1 prints.
        residual_ratio: Share of the stream that both adapters of a level replace, each half of it;
            0.1 in eq. 2.
        last_level: The same ``adapter`` as elsewhere or, as in the paper, a linear ``projector``.
        memory_weight: Weight of the memory branch; the text branch has the rest to 1 (eq. 6).
        patch_score: What patches become in losses and scores of images: their ``mean`` or, as in
            eq. 3 to 5, their ``max``.
        image_score: The fused ``map``'s maximum or, as in eq. 6, the ``branches``' own scores; by
            default the map for few-shot sets with masks. On these the memory branch has tokens of
            the segmentation adapters only, and its score is made of them.
        bce: Take the patch score for ``logits``, as the code does, or for the ``probabilities``
            that it is (eq. 3).
        few_shot: Compare with the support images, too; by default as the data allow.
        bank_precision: Precision of the memory bank's rows.
        index_float16: On a GPU, search the bank in half precision; see ``IndexOptions``.
        index_scratch_mb: MB of a GPU for what a search needs for a while; likewise.
        index_sharded: Search the bank on all GPUs that the process sees; likewise.
        transductive: Scale the branches on the test images themselves, as the authors' tables
            do; for comparison only, because then no image can be scored alone.
        **kwargs: The options that all methods share; see ``SharedOptions``. The published numbers
            use ``lr`` 1e-3 few-shot and 1e-4 zero-shot.
    """

    augmentations = Copies.alike(ELEVEN_FOLD)
    prompt_kinds = ("fixed", "anchors")
    idle = (
        Idle(("object_name",), lambda given: given["prompts"] == "anchors", "prompts: anchors"),
        Idle(("residual_ratio",), lambda given: not given["feed_back"], "feed_back: false"),
        Idle(
            ("bank_precision", "index_float16", "index_scratch_mb", "index_sharded", "transductive",
             "memory_weight", "image_score"),
            lambda given: given["few_shot"] is False,
            "few_shot: false",
        ),
    )  # fmt: skip
    model: MVFAModel

    def __init__(
        self,
        scored_levels: Sequence[int] | None = None,
        feed_back: bool = True,
        prompts: str | dict[str, Any] | None = None,
        activation: Activation = "leaky",
        residual_ratio: float = 0.2,
        last_level: LastLevel = "adapter",
        memory_weight: float = 0.5,
        patch_score: PatchScore = "mean",
        image_score: ImageScore | None = None,
        bce: CrossEntropy = "logits",
        few_shot: bool | None = None,
        bank_precision: Literal["float16", "float32"] = "float16",
        index_float16: bool = False,
        index_scratch_mb: int | None = None,
        index_sharded: bool = False,
        transductive: bool = False,
        **kwargs: Any,  # noqa: ANN401 - the options that all methods share
    ) -> None:
        super().__init__(prompts=prompts, **kwargs)
        checked("residual_ratio", residual_ratio, 0, 1)
        checked("memory_weight", memory_weight, 0, 1)
        adapters = activation, residual_ratio, last_level
        variant = Variant(*adapters, memory_weight, patch_score, image_score, bce)
        tower = self.image_tower()
        encoder: PromptEncoder | None = None
        if self.prompt_kind == "anchors":
            encoder = LearnableAnchors(tower.embed_dim, self.hparams["seed"])
        model = MVFAModel(
            tower,
            self.hparams["levels"],
            {"float16": torch.float16, "float32": torch.float32}[bank_precision],
            self.hparams["seed"],
            scored_levels,
            feed_back,
            IndexOptions(index_float16, index_scratch_mb, index_sharded),
            encoder,
            variant,
        )
        self.assemble(model, few_shot)

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
        batches = self.data.test_batches()
        if not self.model.few_shot or batches is None:
            msg = "transductive scales two branches on a whole test set; pass few-shot data"
            raise NotReadyError(msg)
        logger.warning(
            "transductive: scores depend on the whole test set, and the threshold, found on "
            "validation images, does not fit them: AUROC can be compared with the papers, F1 cannot"
        )
        self._inductive_scales = self.model.fusion.scales
        images = (batch.image.to(self.device) for batch in batches)
        self.model.set_scales((self.model.encode(i), None) for i in images)

    def on_test_end(self) -> None:
        """Forget the test images."""
        super().on_test_end()
        if self.hparams["transductive"]:
            self.model.fusion.scales = self._inductive_scales
