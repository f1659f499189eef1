"""BGAD as an anomalib model: its options, its training images, and its steps."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, cast
from zlib import crc32

import torch
from anomalib.data import ImageBatch
from anomalib.models.components.base import AnomalibModule
from jaxtyping import Bool, Float
from torch import Tensor

from anomalib_medclip.baselines.bgad.pasting import pasted
from anomalib_medclip.baselines.bgad.schedule import step_size
from anomalib_medclip.baselines.bgad.torch_model import BGADModel
from anomalib_medclip.baselines.common.stepwise import Stepwise, mean_loss
from anomalib_medclip.baselines.common.trunk import Trunk
from anomalib_medclip.components.augmentation import Copies, unchanged
from anomalib_medclip.errors import ConfigError
from anomalib_medclip.option_checks import checked
from anomalib_medclip.training.gaps import refuse_normals_alone, refuse_without_masks

PLAIN = 5
"""Of the times an abnormal image comes in an epoch, those as it is."""

TIMES = 10
"""How often an abnormal image comes in an epoch."""


class BGAD(Stepwise, AnomalibModule):
    """Flows of normal features, kept off a boundary by outlined lesions (CVPR 2023).

    It learns from normal and abnormal images with masks, and refuses data without. See
    ``anomalib_medclip.baselines.bgad`` for where its authors' code differs.

    Args:
        backbone: ``timm:NAME``, or ``{timm: NAME, ...}`` with numbers for one of one's own.
        pretrained: Local file of its weights; ``None`` for random ones. Nothing is downloaded.
        image_size: Side of the square input in pixels.
        layers: Stages of the backbone to read, as timm counts them from 0.
        blocks: Coupling blocks of each flow.
        code: Width of the position code, a multiple of 4.
        beta: Share of normal positions that lie below the boundary of normal ones.
        tau: How far below that the boundary of abnormal ones lies.
        boundary_weight: Weight of the losses at the boundaries.
        focal: Weigh positions by how hard they are.
        positions: Of a step, at most, of all those that a batch has on a level.
        sub_epochs: Epochs between two step sizes; in the first of these, normal images alone are
            learnt from.
        paste: Put lesions onto normal images, five times for each abnormal image, instead of
            showing it so often as it is.
        **kwargs: The options that all methods share; see ``SharedOptions``.
    """

    # Normal images have one copy: `examples` takes none of the others.
    augmentations = Copies((unchanged,) * TIMES, (unchanged,), (unchanged,) * TIMES)
    default_batch_size = 32
    default_epochs = 200
    default_lr = 2e-4
    wants_abnormal = True
    needs_abnormal: ClassVar[bool] = True
    model: BGADModel

    def __init__(
        self,
        backbone: dict[str, Any] | str = "timm:tf_efficientnet_b6",
        pretrained: str | None = None,
        image_size: int = 256,
        layers: Sequence[int] = (1, 2, 3),
        blocks: int = 8,
        code: int = 128,
        beta: float = 0.01,
        tau: float = 0.1,
        boundary_weight: float = 1.0,
        focal: bool = True,
        positions: int = 4096,
        sub_epochs: int = 8,
        paste: bool = True,
        **kwargs: Any,  # noqa: ANN401 - the options that all methods share
    ) -> None:
        super().__init__(backbone=backbone, pretrained=pretrained, image_size=image_size, **kwargs)
        for name in ("blocks", "positions", "sub_epochs"):
            checked(name, self.hparams[name], 1, whole=True)
        if checked("code", code, 4, whole=True) % 4:
            msg = f"code is {code}, and must be a multiple of 4; correct it"
            raise ConfigError(msg)
        checked("beta", beta, 0, 1 - 1e-9)
        checked("tau", tau, 0)
        checked("boundary_weight", boundary_weight, 0)
        flows = blocks, code, beta, tau, boundary_weight, focal, positions
        model = BGADModel(Trunk(self.backbone, layers), *flows, self.hparams["seed"])
        self.assemble(model, few_shot=True)
        self._pastes: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Without training images."""
        return super().__getstate__() | {"_pastes": {}}

    def setup(self, stage: str) -> None:
        """Refuse to learn from data without masks, or without anything that is outlined.

        Raises:
            ConfigError: There are several processes.
            EmptySplitError: All images of training are normal.
            MissingMaskError: No set of training has masks.
        """
        if stage == "fit":
            refuse_normals_alone(self.data, self)
            refuse_without_masks(self.data, type(self).__name__)
        super().setup(stage)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam as torch has it, over the flows of all levels."""
        trained = [one for one in self.model.flows.parameters() if one.requires_grad]
        return torch.optim.Adam(trained, lr=self.learning_rate)

    def on_fit_end(self) -> None:
        """Let training images go."""
        super().on_fit_end()
        self._pastes = {}

    def learn(self, batch: ImageBatch, batch_idx: int) -> Float[Tensor, ""] | None:
        """A step for some positions of a level, until all levels' are used up."""
        if batch.gt_mask is None:
            return None
        encoded, masks, _ = self.examples(batch)
        taken = self._taken(batch)
        optimizer: Any = self.optimizers()
        for group in optimizer.param_groups:
            group["lr"] = self.step_size_at(batch_idx)
        losses: list[Tensor] = []
        both_classes = self._meta > 0
        masks = None if masks is None else masks[taken]
        for loss in self.model.steps(encoded[taken], masks, focal=both_classes):
            if not self.may_step:
                break
            self.step(optimizer, loss)
            losses.append(loss.detach())
        return mean_loss(losses)

    def examples(self, batch: ImageBatch) -> tuple[Tensor, Tensor | None, Tensor]:
        """Images as they are, or lesions of theirs put onto normal images; what is drawn is kept.

        The authors draw anew in each epoch. Drawn once, they go through the frozen network once.
        """
        labels, numbers = cast("Tensor", batch.gt_label).bool(), _numbers(batch)
        masks = self.features.masks_of(batch)
        images = cast("Tensor", batch.image).as_subclass(Tensor).clone()
        if self.hparams["paste"] and masks is not None:
            for row in (labels & (numbers >= PLAIN)).nonzero()[:, 0].tolist():
                path = str((batch.image_path or ())[row])
                made = self._pasted(images[row], masks[row], path, int(numbers[row]))
                images[row], masks[row] = (one.to(images) for one in made)
        copies = {"copy": numbers * labels} if hasattr(batch, "copy") else {}
        drawn = batch.update(in_place=False, image=images, **copies)
        return self.features.of_batch(drawn), masks, labels

    def step_size_at(self, batch_idx: int) -> float:
        """Adam's step size at a batch of the epoch at hand."""
        subs = self.hparams["sub_epochs"]
        metas = math.ceil(self.epochs / subs)
        within = batch_idx / max(1, int(self.trainer.num_training_batches))
        done = (self.current_epoch % subs + within) / subs
        return step_size(self.learning_rate, self._meta, metas, done)

    @property
    def _meta(self) -> int:
        return int(self.current_epoch // self.hparams["sub_epochs"])

    def _taken(self, batch: ImageBatch) -> Bool[Tensor, "batch"]:
        """Which images of a batch are learnt from.

        Normal ones once an epoch, and abnormal ones each time they come, but for the first epochs.
        """
        labels = cast("Tensor", batch.gt_label).bool()
        if self._meta == 0:
            return ~labels & (_numbers(batch) == 0)
        return labels | (_numbers(batch) == 0)

    def _pasted(
        self, image: Tensor, mask: Tensor, path: str, number: int
    ) -> tuple[Float[Tensor, "3 side side"], Float[Tensor, "1 side side"]]:
        """A lesion on a normal image of training, always the same for an image and a number."""
        if (path, number) not in self._pastes:
            seed = [self.hparams["seed"], crc32(Path(path).name.encode()), number]
            normals, data = self.data.normals, self.data.train_data
            normal: Tensor = data[normals[sum(seed) % len(normals)]].image.as_subclass(Tensor)
            if self.pre_processor is not None:
                normal = self.pre_processor(normal[None])[0]
            lesion = mask.nan_to_num(0.0).cpu()
            made, lesion = pasted(image.cpu(), lesion, normal, seed)
            self._pastes[path, number] = (made * 255).round().byte(), lesion.bool()
        made, lesion = self._pastes[path, number]
        return made.float() / 255, lesion.float()


def _numbers(batch: ImageBatch) -> Tensor:
    """Which time each image of a batch comes; batches of others' making know of none."""
    none = torch.zeros_like(cast("Tensor", batch.gt_label), dtype=torch.long)
    found: Tensor = getattr(batch, "copy", none)  # anomalib's batches have no such field
    return found.to(none.device)
