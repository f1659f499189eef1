"""AdaCLIP as an anomalib model: its options."""

from typing import Any, ClassVar

import torch
from anomalib.models.components.base import AnomalibModule

from anomalib_medclip.clip.backbone import PositionResize
from anomalib_medclip.clip.towers import TextTower
from anomalib_medclip.components.augmentation import ELEVEN_FOLD, Copies
from anomalib_medclip.models.adaclip.fusion import Fusion, FusionKind
from anomalib_medclip.models.adaclip.text_prompts import WORDS
from anomalib_medclip.models.adaclip.torch_model import AdaCLIPModel, Dice
from anomalib_medclip.option_checks import Idle, checked
from anomalib_medclip.training.method import ClipMethod


class AdaCLIP(ClipMethod, AnomalibModule):
    """Hybrid learnable prompts in both towers (ECCV 2024).

    The defaults are those of the published numbers. See ``anomalib_medclip.models.adaclip`` for the
    method's parts and where this differs from its code.

    Args:
        image_size: Side of the square input in pixels.
        normalize: Apply CLIP's mean and standard deviation.
        prompt_length: Number of prompts in each tower.
        prompted_blocks: Blocks of each tower, from the first, before which they are set anew; the
            text tower's first block sees the words. By default 4, or all where there are fewer.
        fusion: What the class token is mixed with for the image score: the mean of the centres of
            the most abnormal patches' clusters, the mean of these patches, or nothing. Clusters
            are found by k-means, which no export has; the mean is nearly the same.
        clusters: Number of clusters; five times as many patches are taken.
        fusion_weight: Weight of the patches in that mixture.
        sigma: Standard deviation in pixels of the Gaussian that smooths the map; 0 for none.
        dice: Whether the dice loss is that of each row of pixels, or of each image.
        weight_decay: Of AdamW.
        **kwargs: The options that all methods share; see ``SharedOptions``.
    """

    augmentations = Copies.alike(ELEVEN_FOLD)
    default_batch_size = 1
    default_epochs = 5
    default_lr = 1e-2
    position_resize: ClassVar[PositionResize] = "bicubic"
    idle = (
        Idle(
            ("clusters", "fusion_weight"), lambda given: given["fusion"] == "none", "fusion: none"
        ),
    )
    needs_abnormal = True
    model: AdaCLIPModel

    def __init__(
        self,
        image_size: int = 518,
        normalize: bool = True,
        prompt_length: int = 5,
        prompted_blocks: int | None = None,
        fusion: FusionKind = "clusters",
        clusters: int = 20,
        fusion_weight: float = 0.2,
        sigma: float = 4.0,
        dice: Dice = "rows",
        weight_decay: float = 1e-2,
        **kwargs: Any,  # noqa: ANN401 - the options that all methods share
    ) -> None:
        super().__init__(image_size=image_size, normalize=normalize, **kwargs)
        checked("prompt_length", prompt_length, 1, whole=True)
        checked("clusters", clusters, 1, whole=True)
        checked("fusion_weight", fusion_weight, 0, 1)
        checked("sigma", sigma, 0)
        checked("weight_decay", weight_decay, 0)
        seed, levels = self.hparams["seed"], self.hparams["levels"]
        tower, text_tower = self.image_tower(), TextTower(self.backbone)
        if prompted_blocks is not None:
            most = min(tower.depth, text_tower.depth)
            checked("prompted_blocks", prompted_blocks, 2, most, whole=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fused = Fusion(fusion, clusters, fusion_weight, seed)
            numbers = prompt_length, prompted_blocks or 4, fused, levels, sigma, dice
            model = AdaCLIPModel(tower, text_tower, *numbers, self.worded(WORDS))
        self.assemble(model)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW on whatever requires a gradient."""
        trained = [p for p in self.parameters() if p.requires_grad]
        decay = self.hparams["weight_decay"]
        return torch.optim.AdamW(
            trained, lr=self.learning_rate, betas=(0.5, 0.999), weight_decay=decay
        )
