"""Plain CLIP as an anomalib model: its options, and nothing to train."""

from typing import Any, Literal

import torch
from anomalib.models.components.base import AnomalibModule

from anomalib_medclip.components.augmentation import Copies, unchanged
from anomalib_medclip.components.class_names import ABNORMAL, NORMAL
from anomalib_medclip.components.prompts import FixedPrompts, NoPrompts, PromptEncoder
from anomalib_medclip.models.plain_clip.torch_model import Mode, PlainCLIPModel
from anomalib_medclip.option_checks import Idle
from anomalib_medclip.training.method import ClipMethod


class PlainCLIP(ClipMethod, AnomalibModule):
    """CLIP as it is: compared with sentences, or with K normal images. Nothing trains.

    See ``anomalib_medclip.models.plain_clip`` for what rows of the papers' tables this is, and is
    not.

    Args:
        mode: Compare the image with sentences, its patches with normal images, or, as MediCLIP's
            table 4 without anything learnt, its averaged channels with class names.
        quick_gelu: The activation that OpenAI trained with.
        normalize: Apply CLIP's mean and standard deviation.
        add_text: In the mode ``memory``, average the map's maximum, scaled on the support, with the
            score of the mode ``text``.
        bank_precision: Precision of the memory bank's rows.
        **kwargs: The options that all methods share; see ``SharedOptions``.

    Raises:
        ConfigError: An option does not go with the mode; or ``lr`` is given.
    """

    augmentations = Copies.alike((unchanged,))
    default_batch_size = 8
    default_epochs = 1
    learns = False
    wants_abnormal = False
    idle = (
        Idle(("loss_weights", "epoch_choice"), lambda given: bool(given), "nothing that learns"),
        Idle(("bank_precision",), lambda given: given["mode"] != "memory", "a mode without a bank"),
        Idle(
            ("prompts",),
            lambda given: given["mode"] == "memory" and not given["add_text"],
            "mode: memory without add_text",
        ),
    )
    model: PlainCLIPModel

    def __init__(
        self,
        mode: Mode = "memory",
        quick_gelu: bool = True,
        normalize: bool = True,
        add_text: bool = False,
        bank_precision: Literal["float16", "float32"] = "float16",
        **kwargs: Any,  # noqa: ANN401 - the options that all methods share
    ) -> None:
        self.names_the_object = mode != "hard_prompts"
        super().__init__(quick_gelu=quick_gelu, normalize=normalize, **kwargs)
        tower = self.image_tower()
        prompts: PromptEncoder = FixedPrompts()
        if mode == "hard_prompts":
            prompts = FixedPrompts(NORMAL, ABNORMAL)
        elif mode == "memory" and not (add_text or self.backbone.has_text):
            prompts = NoPrompts(tower.embed_dim)
        model = PlainCLIPModel(
            tower,
            mode,
            self.hparams["levels"],
            prompts,
            add_text,
            {"float16": torch.float16, "float32": torch.float32}[bank_precision],
        )
        self.assemble(model, few_shot=True if mode == "memory" else None)
