"""VCP-CLIP as an anomalib model: its options."""

import logging
from typing import Any

import torch
from anomalib.models.components.base import AnomalibModule

from anomalib_medclip.clip.towers import TextTower
from anomalib_medclip.components.augmentation import ELEVEN_FOLD, Copies
from anomalib_medclip.components.image_prompts import ImagePrompts
from anomalib_medclip.components.words import Words
from anomalib_medclip.models.vcpclip.torch_model import TOP_PIXELS, VCPCLIPModel
from anomalib_medclip.option_checks import Idle, checked
from anomalib_medclip.training.gaps import refuse_normals_alone, refuse_without_masks
from anomalib_medclip.training.method import ClipMethod

logger = logging.getLogger(__name__)

WORDS = Words(("good",), ("damaged",), ("a photo of a {}",))
"""As the authors'; the class word is left to the image, and no full stop follows."""


_FEW_STEPS = 500
"""The authors take some 700 in batches of 32: ten epochs over VisA's 2,162 test images."""


class VCPCLIP(ClipMethod, AnomalibModule):
    """Visual context prompting (ECCV 2024); it learns from masks alone.

    The defaults are those of the published numbers, but for the dropout. See
    ``anomalib_medclip.models.vcpclip`` for the method's parts and where this differs from its code.

    Args:
        image_size: Side of the square input in pixels.
        normalize: Apply CLIP's mean and standard deviation.
        prompt_length: Number of vectors in the place of the class word.
        class_prompts: Let them depend on the image. The authors' option ``use_global`` switches
            this off.
        deep_prompt_length: Learnable prompts before each block of the text tower; 0 for none, and
            no norm after them.
        heads: Attention heads of the post branch; they divide the width of the image tower.
        dropout: Probability in the learnable prompts in training, another draw for each sentence of
            each image; 0.1 in the authors' training.
        alpha: Weight of the post map in the anomaly map.
        sigma: Standard deviation in pixels of the Gaussian that smooths the map; 0 for none.
        top_pixels: Share of pixels, the largest of each map, that the image score is the mean of.
        temperature_lr: Adam's step size for the temperatures of both branches.
        **kwargs: The options that all methods share; see ``SharedOptions``.
    """

    augmentations = Copies.alike(ELEVEN_FOLD)
    default_batch_size = 32
    default_epochs = 10
    default_lr = 4e-5
    names_the_object = False
    loss_names = ("focal", "dice")
    idle = (
        Idle(("dropout",), lambda given: not given["deep_prompt_length"], "deep_prompt_length: 0"),
    )
    needs_abnormal = True
    model: VCPCLIPModel

    def __init__(
        self,
        image_size: int = 518,
        normalize: bool = True,
        prompt_length: int = 2,
        class_prompts: bool = True,
        deep_prompt_length: int = 1,
        heads: int = 8,
        dropout: float = 0.0,
        alpha: float = 0.8,
        sigma: float = 8.0,
        top_pixels: float = TOP_PIXELS,
        temperature_lr: float = 1e-2,
        **kwargs: Any,  # noqa: ANN401 - the options that all methods share
    ) -> None:
        super().__init__(image_size=image_size, normalize=normalize, **kwargs)
        for name in ("dropout", "alpha", "top_pixels"):
            checked(name, self.hparams[name], 0, 1)
        checked("sigma", sigma, 0)
        checked("temperature_lr", temperature_lr, 0)
        checked("deep_prompt_length", deep_prompt_length, 0, whole=True)
        tower, text_tower = self.image_tower(), TextTower(self.backbone)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.hparams["seed"])
            prompts = ImagePrompts(
                text_tower,
                tower.embed_dim,
                self.worded(WORDS, ""),
                prompt_length,
                class_prompts,
                deep_prompt_length,
                ends=True,
                dropout=dropout,
            )
            numbers = heads, self.hparams["levels"], alpha, sigma, top_pixels
            model = VCPCLIPModel(tower, text_tower, prompts, *numbers)
        self.assemble(model)

    def setup(self, stage: str) -> None:
        """Refuse to learn from data without masks, or without anything that is outlined.

        Raises:
            EmptySplitError: All images of training are normal.
            MissingMaskError: No set of training has masks.
        """
        if stage == "fit":
            refuse_normals_alone(self.data, self)
            refuse_without_masks(self.data, type(self).__name__)
        super().setup(stage)

    def on_train_start(self) -> None:
        """Say where there are too few steps for the step size of the published numbers."""
        super().on_train_start()
        steps = self.trainer.estimated_stepping_batches
        is_copy = self.features.lent is not None  # for a threshold; it has been said
        if self.hparams["lr"] is None and steps < _FEW_STEPS and not is_copy:
            logger.warning(
                "%d steps are few for the published step size of %g: maps of the post branch may "
                "stay at one half; pass --model.lr, such as 1e-3, or train for more epochs",
                steps,
                self.default_lr,
            )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam without weight decay; both temperatures move faster than the rest."""
        temperatures = [self.model.temperature, self.model.post_temperature]
        apart = set(map(id, temperatures))
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in apart]
        faster = {"params": temperatures, "lr": self.hparams["temperature_lr"]}
        groups = [{"params": rest}, faster]
        return torch.optim.Adam(groups, lr=self.learning_rate, betas=(0.5, 0.999))
