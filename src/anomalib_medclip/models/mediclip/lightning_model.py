"""MediCLIP as an anomalib model: its options, and its training images."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from anomalib.data import ImageBatch
from anomalib.models.components.base import AnomalibModule
from PIL import Image
from torch import Tensor

from anomalib_medclip.components.augmentation import Copies, unchanged
from anomalib_medclip.components.class_names import ABNORMAL, NORMAL
from anomalib_medclip.components.learnable_prompts import LearnablePrompts, Position
from anomalib_medclip.components.prompts import TEMPLATES, FixedPrompts, PromptEncoder
from anomalib_medclip.components.words import Words
from anomalib_medclip.errors import NotReadyError
from anomalib_medclip.metrics.known_pixels import ignored_of
from anomalib_medclip.models.mediclip.synthesis import (
    TASKS,
    contact_sheet,
    synthesize,
    task_chances,
)
from anomalib_medclip.models.mediclip.tasks import Pixels
from anomalib_medclip.models.mediclip.torch_model import MediCLIPModel, Projection, Softmax
from anomalib_medclip.option_checks import Idle
from anomalib_medclip.readers.resize import Resample
from anomalib_medclip.training.method import ClipMethod

logger = logging.getLogger(__name__)


class MediCLIP(ClipMethod, AnomalibModule):
    """Synthetic anomalies on K normal images, adapters and learnable prompts (MICCAI 2024).

    The defaults are those of the published numbers. See ``anomalib_medclip.models.mediclip`` for
    the paper's parts and where its code differs. Each training run that keeps checkpoints draws
    what the synthesis makes of its images to ``synthetic_anomalies.png`` in its folder.

    Args:
        backbone: As in all methods; the published numbers use this one.
        image_size: Side of the square input in pixels.
        quick_gelu: The activation that OpenAI trained with.
        normalize: Apply CLIP's mean and standard deviation.
        synthesis: Make anomalies on normal images; without, learn from abnormal images and their
            masks as they are, for the auxiliary data sets of table 5.
        tasks: Weights of the synthesis tasks ``CutPaste``, ``GaussIntensityChange``, ``Source`` and
            ``Identity``; by default a quarter each. Table 5.
        poisson: Blend CutPaste's patches into the image.
        prompts: ``learnable``, the context of each class name, or ``fixed`` sentences: table 4; or
            other class names.
        projection: Linear adapters, or pooled channels: table 4.
        context: Number of context vectors.
        positions: Where the class name stands; each is encoded once for every position.
        shared_context: One context for all class names of a group.
        causal: Let the text tower attend to earlier tokens only, as CLIP was trained.
        temperature: What cosines are divided by before the softmax; 0.07 in the paper.
        softmax: After the ``mean`` over levels, or at each of the ``levels``, as in eq. 2.
        **kwargs: The options that all methods share; see ``SharedOptions``. Only tokens of
            validation images are kept, since training images are new each time.
    """

    augmentations = Copies.alike((unchanged,))
    default_batch_size = 8
    default_epochs = 200
    names_the_object = False
    prompt_kinds = ("learnable", "fixed")
    idle = (
        Idle(
            ("context", "positions", "shared_context", "causal"),
            lambda given: given["prompts"] == "fixed",
            "prompts: fixed",
        ),
        Idle(("tasks", "poisson"), lambda given: not given["synthesis"], "synthesis: false"),
        Idle(
            ("poisson",),
            lambda given: given["tasks"] is not None and not given["tasks"].get("CutPaste"),
            "tasks without CutPaste",
        ),
        Idle(
            ("lr", "loss_weights"),
            lambda given: (given["prompts"], given["projection"]) == ("fixed", "pooled"),
            "prompts: fixed and projection: pooled, which leave nothing to learn",
        ),
        Idle(
            ("loss_weights",),
            lambda given: {*given["loss_weights"]} == {"detection"},
            "losses without detection",
        ),
    )
    resample: ClassVar[Resample] = "bilinear"
    makes_images = True
    wants_abnormal = False
    model: MediCLIPModel

    def __init__(
        self,
        backbone: dict[str, Any] | str = "ViT-L-14",
        image_size: int = 224,
        quick_gelu: bool = True,
        normalize: bool = True,
        synthesis: bool = True,
        tasks: dict[str, float] | None = None,
        poisson: bool = False,
        prompts: str | dict[str, Any] | None = None,
        projection: Projection = "linear",
        context: int = 8,
        positions: Sequence[Position] = ("end",),
        shared_context: bool = False,
        causal: bool = False,
        temperature: float = 1.0,
        softmax: Softmax = "mean",
        **kwargs: Any,  # noqa: ANN401 - the options that all methods share
    ) -> None:
        super().__init__(
            backbone=backbone,
            image_size=image_size,
            quick_gelu=quick_gelu,
            normalize=normalize,
            prompts=prompts,
            **kwargs,
        )
        self.wants_abnormal = not synthesis
        self.makes_images = synthesis
        self.tasks = dict(TASKS if tasks is None else tasks)
        task_chances(self.tasks)
        self._normals: dict[str, Pixels] = {}
        width, seed = self.backbone.text_width, self.hparams["seed"]
        words = self.worded(Words(NORMAL, ABNORMAL, TEMPLATES))
        encoder: PromptEncoder = FixedPrompts(**vars(words))
        if self.prompt_kind == "learnable":
            said = words.normal, words.abnormal
            encoder = LearnablePrompts(
                width, *said, context, positions, shared_context, causal, seed
            )
        levels, tower = self.hparams["levels"], self.image_tower()
        maps = projection, temperature, softmax
        self.assemble(MediCLIPModel(tower, encoder, levels, *maps, seed))

    def __getstate__(self) -> dict[str, Any]:
        """Without the training images."""
        return super().__getstate__() | {"_normals": {}}

    def on_fit_start(self) -> None:
        """Read the normal images, and draw what the synthesis makes of the first two.

        Raises:
            NotReadyError: There is no datamodule.
        """
        super().on_fit_start()
        if not self.makes_images:
            return
        data = self.data.train_data
        if data is None:
            msg = "MediCLIP makes its training images from those of a datamodule; pass one"
            raise NotReadyError(msg)
        images = (data[index] for index in range(len(data)))
        self._normals = {str(item.image_path): _grey(item.image) for item in images}
        # A copy that is cross-fitted keeps nothing.
        if self.trainer.checkpoint_callbacks and self.trainer.is_global_zero:
            self._draw_examples()

    def _draw_examples(self) -> None:
        pixels = list(self._normals.values())
        path = Path(self.trainer.default_root_dir, "synthetic_anomalies.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        seed = self.hparams["seed"]
        contact_sheet(pixels[:2], pixels, self.tasks, seed, self.hparams["poisson"]).save(path)
        logger.info("what the synthesis makes of the images is drawn in %s", path)

    def examples(self, batch: ImageBatch) -> tuple[Tensor, Tensor | None, Tensor]:
        """Synthetic anomalies; each sample has its own stream of chance, so that runs repeat."""
        if not self.makes_images:
            return super().examples(batch)
        sources = list(self._normals.values())
        index_of = {path: index for index, path in enumerate(self._normals)}
        made = []
        for path in cast("list[str]", batch.image_path):
            index = index_of[str(path)]
            random = np.random.default_rng([self.hparams["seed"], self.current_epoch, index])
            poisson = self.hparams["poisson"]
            made.append(synthesize(sources[index], sources, random, self.tasks, poisson))
        images = torch.from_numpy(np.stack([one.image for one in made])).to(self.device)
        masks = torch.from_numpy(np.stack([one.label for one in made])).float().to(self.device)
        encoded = self.model.encode(images[:, None].expand(-1, 3, -1, -1).float() / 255)
        labels = torch.tensor([one.label.any() for one in made], device=self.device)
        ignored = ignored_of(batch)
        if ignored is not None:
            masks = masks.masked_fill(ignored.as_subclass(Tensor), torch.nan)
        return encoded, masks[:, None], labels


def _grey(image: Tensor) -> Pixels:
    """Grey levels of an image in [0, 1]; the synthesis is defined on whole ones."""
    pixels = (image.as_subclass(Tensor).permute(1, 2, 0).cpu().numpy() * 255).round()
    return np.array(Image.fromarray(pixels.astype(np.uint8)).convert("L"))
