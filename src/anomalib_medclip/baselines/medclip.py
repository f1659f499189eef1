"""MedCLIP as a row to compare with, under our definition of what it does to an anomaly.

Wang et al., "MedCLIP: Contrastive Learning from Unpaired Medical Images and Text", EMNLP 2022. It
classifies images by sentences, and knows no anomaly and no place. MVFA's table 1, which IQE-CLIP's
table 2 copies, has a row "MedCLIP, few-normal-shot": by which of its two networks, by which
prompts, with what use of the four normal images, and where its pixel figures came from is not said,
and there is no code. ``MedCLIP`` is therefore our definition: as ``PlainCLIP``, compared with
sentences, or by patches of three stages with K normal images.

It was trained on MIMIC-CXR and CheXpert: images of chest sets may have been seen.

Its authors pad images to a square; here they are stretched to it, as for every method, so that maps
lie on their masks. It sees grey levels only: the stain of histology is lost on it.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from anomalib.models.components.base import AnomalibModule

from anomalib_medclip.baselines.medclip_model import ImageScore, MedCLIPModel, Mode
from anomalib_medclip.baselines.medclip_text import (
    ABNORMAL,
    NORMAL,
    TOKENIZER,
    MedCLIPPrompts,
    read_text_features,
)
from anomalib_medclip.baselines.medclip_tower import SIDE, MedCLIPBackbone, MedCLIPTower, Network
from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.components.augmentation import Copies, unchanged
from anomalib_medclip.components.prompts import NoPrompts, PromptEncoder
from anomalib_medclip.errors import ConfigError
from anomalib_medclip.training.method import ClipMethod


class MedCLIP(ClipMethod, AnomalibModule):
    """MedCLIP as it is: compared with sentences of reports, or with K normal images.

    Nothing trains. See this module for what of the papers' rows it is, and is not.

    Args:
        mode: Compare the image with sentences, or its patches with normal images.
        backbone: Which of the released networks; or keyword arguments of timm's
            ``SwinTransformer``, for one of one's own.
        pretrained: The archive of weights as its authors release it, or the ``pytorch_model.bin``
            in it; ``None`` for random weights. Nothing is downloaded.
        image_size: Side of the square input in pixels; released networks take 224.
        normalize: Apply MedCLIP's mean and standard deviation of grey levels.
        levels: Stages to compare with normal images, from 1; by default the second to fourth.
        image_score: In the mode ``memory``, the maximum of the map, or the distance of the image's
            embedding.
        text_features: File that ``write_text_features`` has written, so that transformers is not
            needed; by default the language model in ``pretrained`` is asked.
        tokenizer: Of the language model: a repository, or a folder with its files.
        normal_prompts: Sentences for normal images, ``{}`` where the object's name goes.
        abnormal_prompts: Sentences for abnormal images.
        bank_precision: Precision of the memory banks' rows.
        **kwargs: The options that all methods share; see ``SharedOptions``. ``quick_gelu`` and
            ``precision`` stay as they are.

    Raises:
        ConfigError: An option does not go with MedCLIP.
        WeightsError: Weights or text features cannot be read.
    """

    augmentations = Copies.alike((unchanged,))
    default_batch_size = 8
    default_epochs = 1
    learns = False
    wants_abnormal = False
    model: MedCLIPModel

    def __init__(
        self,
        mode: Mode = "memory",
        backbone: Network | dict[str, Any] = "vit",
        pretrained: str | None = None,
        image_size: int = SIDE,
        normalize: bool = True,
        levels: Sequence[int] | None = None,
        image_score: ImageScore = "map_max",
        text_features: str | None = None,
        tokenizer: str = TOKENIZER,
        normal_prompts: Sequence[str] = NORMAL,
        abnormal_prompts: Sequence[str] = ABNORMAL,
        bank_precision: Literal["float16", "float32"] = "float16",
        **kwargs: Any,  # noqa: ANN401 - the options that all methods share
    ) -> None:
        super().__init__(
            backbone=backbone,
            pretrained=pretrained,
            image_size=image_size,
            normalize=normalize,
            levels=levels,
            **kwargs,
        )
        self._refuse_what_is_clips()
        entry = pretrained, image_size, normalize, self.hparams["backbone_seed"]
        tower = MedCLIPTower(MedCLIPBackbone(backbone, *entry))
        self.hparams.pop("text_features", None)  # a checkpoint holds them; the file may go
        kept = read_text_features(text_features, tower.embed_dim) if text_features else None
        prompts: PromptEncoder = NoPrompts(tower.embed_dim)
        if mode == "text":
            words = tuple(normal_prompts), tuple(abnormal_prompts)
            prompts = MedCLIPPrompts(pretrained, tokenizer, kept, *words)
        dtype = {"float16": torch.float16, "float32": torch.float32}[bank_precision]
        self.assemble(
            MedCLIPModel(tower, prompts, mode, levels, image_score, dtype),
            few_shot=True if mode == "memory" else None,
        )

    @staticmethod
    def settled(backbone: Backbone) -> Backbone:
        """As it is: open_clip knows nothing of its networks."""
        return backbone

    def _refuse_what_is_clips(self) -> None:
        options, backbone = self.hparams, self.hparams["backbone"]
        if options["quick_gelu"] or options["precision"] != "fp32":
            msg = "MedCLIP has an exact GELU and computes in fp32; leave quick_gelu and precision "
            msg += "out"
            raise ConfigError(msg)
        if isinstance(backbone, str) and backbone not in ("vit", "resnet50"):
            msg = f"MedCLIP's networks are 'vit' and 'resnet50', and not {backbone!r}"
            raise ConfigError(msg)
        if backbone == "vit" and options["image_size"] != SIDE:
            msg = f"MedCLIP's windows fit images of {SIDE} px alone; leave image_size out"
            raise ConfigError(msg)
