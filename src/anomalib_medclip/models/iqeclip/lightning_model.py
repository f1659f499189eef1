"""IQE-CLIP as an anomalib model: its options."""

from collections.abc import Sequence
from typing import Any

import torch
from anomalib.models.components.base import AnomalibModule

from anomalib_medclip.cache import CachePrecision
from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.clip.blocks import Precision
from anomalib_medclip.clip.towers import ImageTower, TextTower
from anomalib_medclip.components.augmentation import ELEVEN_FOLD
from anomalib_medclip.models.iqeclip.image_prompts import ImagePrompts
from anomalib_medclip.models.iqeclip.query import QueryModule
from anomalib_medclip.models.iqeclip.released import load_released
from anomalib_medclip.models.iqeclip.torch_model import CrossEntropy, IQECLIPModel
from anomalib_medclip.training.method import ClipMethodMixin, EpochChoice


class IQECLIP(ClipMethodMixin, AnomalibModule):
    """Instance-aware Query Embedding (2025), few-shot or zero-shot.

    The defaults are those of the published numbers. See ``anomalib_medclip.models.iqeclip`` for
    the paper's equations and where its code differs. The rows of the paper's ablations are said
    with the options that make them.

    Args:
        backbone: open_clip name of a ViT, or keyword arguments of ``open_clip.CLIP``.
        pretrained: open_clip tag, local weights file, or ``None`` for random weights.
        image_size: Side of the square input in pixels.
        quick_gelu: The activation that OpenAI trained with; the published numbers use exact GELU.
        normalize: Apply CLIP's mean and standard deviation; the published numbers do not.
        backbone_seed: Seed of random backbone weights.
        precision: What the frozen image tower computes its products in. ``bf16`` is faster where
            the hardware has it; ``docs/performance.md`` says how much.
        levels: Blocks to compare, from 1; by default the four quarters (6, 12, 18, 24 of 24).
        few_shot: Take the image score of the authors' few-shot code (mean over pixels) and not of
            their zero-shot code (mean over patches); by default as the data are.
        prompt_length: Number of class prompts, r in eq. 1.
        class_prompts: Let them depend on the image (table 4, "w/o CPT"). The authors' option
            ``use_global`` is this and ``class_initialisation`` together.
        deep_prompt_length: Learnable prompts before each block of the text tower, M in eq. 4; 0 for
            none, and no norm after them (table 4, "w/o LPT"; both off: table 3, "w/o prompt
            tuning").
        query_module: Have the query branch (table 3, "w/o IQM").
        blocks: Blocks of the query module.
        heads: Attention heads of the query module; they divide the width of CLIP's shared space.
        feedforward: Width of its hidden layers; by default four times that space, 3072.
        class_initialisation: Begin queries from the class token (table 5, "w/o class init").
        text_attention: Let queries read the text (table 5, "w/o text embedding").
        image_attention: Let queries read the image (table 5, "w/o image embedding").
        dropout: Probability in the query module. The authors' configuration says 0.1, but their
            code switches it off before zero-shot training and after the first epoch few-shot.
        alpha: Weight of the query map in the anomaly map (eq. 12, figure 3).
        sigma: Standard deviation in pixels of the Gaussian that smooths the map; 0 for none.
        bce: Whether the mean patch probability is put through a sigmoid, as the code does by taking
            it for a logit, or is the probability that it is.
        lr: Adam's step size.
        temperature_lr: Adam's step size for the temperature of the text branch.
        adapters: File of weights as the authors' code saves them, to start from.
        epoch_choice: Keep the last epoch, or the one with the best validation AUROC.
        cross_fit: Where thresholds come from the support: find them by models trained without parts
            of it, which takes twice as long as training; by default where that is below 30 s.
        cache: How frozen tokens are kept, so that images are encoded once.
        cache_memory: GB of memory for them; what exceeds them goes to disk.
        seed: Seed of initial weights, order of training images, and everything else random.
        **kwargs: ``pre_processor``, ``post_processor``, ``evaluator`` and ``visualizer``, as in
            every anomalib model.
    """

    augmentations = ELEVEN_FOLD
    default_batch_size = 16
    names_the_object = False
    model: IQECLIPModel

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
        few_shot: bool | None = None,
        prompt_length: int = 2,
        class_prompts: bool = True,
        deep_prompt_length: int = 1,
        query_module: bool = True,
        blocks: int = 4,
        heads: int = 8,
        feedforward: int | None = None,
        class_initialisation: bool = True,
        text_attention: bool = True,
        image_attention: bool = True,
        dropout: float = 0.0,
        alpha: float = 0.8,
        sigma: float = 8.0,
        bce: CrossEntropy = "logits",
        lr: float = 1e-4,
        temperature_lr: float = 1e-2,
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
        tower, text_tower = ImageTower(clip, precision), TextTower(clip)
        width = tower.embed_dim
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            prompts = ImagePrompts(
                text_tower, width, prompt_length, class_prompts, deep_prompt_length
            )
            queries = None
            if query_module:
                queries = QueryModule(
                    width,
                    blocks,
                    heads,
                    feedforward,
                    class_initialisation,
                    image_attention,
                    text_attention,
                    dropout,
                )
            self.model = IQECLIPModel(
                tower, text_tower, prompts, queries, levels, alpha, sigma, bce
            )
        self.model.few_shot = few_shot is not False
        if adapters:
            load_released(self.model, adapters)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam without weight decay; the temperature moves faster than the rest."""
        temperature = self.model.temperature
        rest = [p for p in self.parameters() if p.requires_grad and p is not temperature]
        faster = {"params": [temperature], "lr": self.hparams["temperature_lr"]}
        groups = [{"params": rest}, faster]
        return torch.optim.Adam(groups, lr=self.learning_rate, betas=(0.5, 0.999))

    def _meet_data(self) -> None:
        super()._meet_data()
        if self.hparams["few_shot"] is None:
            self.model.few_shot = not self._data("zero_shot", default=False)

    def _text_tower(self) -> TextTower:
        """The model's own, which it needs for every image."""
        return self.model.text_tower
