"""AnomalyCLIP as an anomalib model: its options."""

from typing import Any, ClassVar

from anomalib.models.components.base import AnomalibModule

from anomalib_medclip.clip.backbone import PositionResize
from anomalib_medclip.components.augmentation import ELEVEN_FOLD, Copies
from anomalib_medclip.components.deep_prompts import OverwritingPrompts
from anomalib_medclip.components.learnable_prompts import LearnablePrompts
from anomalib_medclip.components.words import Words
from anomalib_medclip.models.anomalyclip.torch_model import AnomalyCLIPModel
from anomalib_medclip.option_checks import Idle, checked
from anomalib_medclip.training.method import ClipMethod

WORDS = Words(("object",), ("damaged object",))
"""As the authors', whatever the images show."""


class AnomalyCLIP(ClipMethod, AnomalibModule):
    """Object-agnostic prompts, and values that attend to one another (ICLR 2024).

    The defaults are those of the published numbers. See ``anomalib_medclip.models.anomalyclip`` for
    the method's parts and where this differs from its code.

    Args:
        image_size: Side of the square input in pixels.
        quick_gelu: The activation that OpenAI trained with.
        normalize: Apply CLIP's mean and standard deviation.
        context: Number of context vectors of each prompt.
        deep_length: Number of vectors that overwrite the first words before later blocks of the
            text tower; at most ``context``, 0 for none.
        deep_blocks: Number of its blocks, from the first, that have prompts of their own; the first
            has the words. By default 9, or all where there are fewer.
        value_blocks: Blocks of the image tower, counted from the end, whose values attend to one
            another; by default 19 of 24, and of other towers as large a part.
        temperature: What cosines are divided by before the softmax.
        sigma: Standard deviation in pixels of the Gaussian that smooths the map; 0 for none.
        pixel_weight: Weight of the maps' losses; that of the image's is 1.
        **kwargs: The options that all methods share; see ``SharedOptions``. ``levels`` is by
            default the last block alone.
    """

    augmentations = Copies.alike(ELEVEN_FOLD)
    default_batch_size = 8
    default_epochs = 15
    names_the_object = False
    position_resize: ClassVar[PositionResize] = "bilinear"
    idle = (Idle(("deep_blocks",), lambda given: not given["deep_length"], "deep_length: 0"),)
    needs_abnormal = True
    model: AnomalyCLIPModel

    def __init__(
        self,
        image_size: int = 518,
        quick_gelu: bool = True,
        normalize: bool = True,
        context: int = 12,
        deep_length: int = 4,
        deep_blocks: int | None = None,
        value_blocks: int | None = None,
        temperature: float = 0.07,
        sigma: float = 4.0,
        pixel_weight: float = 4.0,
        **kwargs: Any,  # noqa: ANN401 - the options that all methods share
    ) -> None:
        super().__init__(
            image_size=image_size, quick_gelu=quick_gelu, normalize=normalize, **kwargs
        )
        checked("context", context, 1, whole=True)
        checked("deep_length", deep_length, 0, context, whole=True)
        depth, width = self.backbone.text_depth, self.backbone.text_width
        blocks = min(9, depth) if deep_blocks is None else deep_blocks
        checked("deep_blocks", blocks, 1, depth, whole=True)
        checked("temperature", temperature, 1e-6)
        checked("sigma", sigma, 0)
        checked("pixel_weight", pixel_weight, 0)
        seed = self.hparams["seed"]
        deep = OverwritingPrompts(width, deep_length, blocks, seed + 1)
        words = self.worded(WORDS)
        said = words.normal, words.abnormal
        prompts = LearnablePrompts(width, *said, context, causal=True, seed=seed, deep=deep)
        numbers = value_blocks, temperature, sigma, pixel_weight
        levels = self.hparams["levels"]
        self.assemble(AnomalyCLIPModel(self.image_tower(), prompts, levels, *numbers))
