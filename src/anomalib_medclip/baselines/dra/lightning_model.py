"""DRA as an anomalib model: its options, its training images, its optimiser."""

from typing import Any, ClassVar, cast

import numpy as np
import torch
from anomalib.data import ImageBatch
from anomalib.models.components.base import AnomalibModule
from jaxtyping import Float
from torch import Tensor

from anomalib_medclip.baselines.common.pixels import Pixels
from anomalib_medclip.baselines.common.redrawn import Redrawn
from anomalib_medclip.baselines.dra.network import DRANetwork
from anomalib_medclip.baselines.dra.outlier_folder import OutlierFolder
from anomalib_medclip.baselines.dra.torch_model import DRAModel
from anomalib_medclip.baselines.dra.training_images import TrainingImages
from anomalib_medclip.errors import ConfigError, NotReadyError
from anomalib_medclip.option_checks import checked
from anomalib_medclip.readers.picture import read_image
from anomalib_medclip.readers.resize import Resample

LARGEST_NORM = 1.0
"""What gradients are shortened to."""


class DRA(Redrawn, AnomalibModule):
    """Four heads on a network that trains: normal, seen, made and residual anomalies (CVPR 2022).

    The defaults are those of its authors' code. See ``anomalib_medclip.baselines.dra`` for the
    paper's parts and where its code differs.

    Args:
        backbone: Network of timm's with maps, which trains from its first layer.
        pretrained: Local file of its weights; ``None`` for random ones. A checkpoint needs it no
            more.
        image_size: Side of the square input in pixels; the authors take 448, or 224.
        scales: Sizes of an image that are looked at, each half of the one before.
        top_share: Part of the positions whose mean is an image's score.
        references: Normal images that a training batch is compared with; images to score are
            compared with all of the support.
        draws: Training images of an epoch, about (see ``Redrawn``): 20 batches of 48.
        outlier_root: Folder of images of another kind, to be the pseudo anomalies; the paper takes
            fundus images (LAG) for its medical sets.
        **kwargs: The options that all methods share; see ``SharedOptions``.

    Raises:
        ConfigError: A number cannot be.
        WeightsError: The network or its weights cannot be found or read.
    """

    default_lr = 2e-4
    default_batch_size = 48
    default_epochs = 30
    wants_abnormal = True
    makes_images = True
    begins_from = ("pretrained",)  # all weights train
    resample: ClassVar[Resample] = "bilinear"
    model: DRAModel

    def __init__(
        self,
        backbone: dict[str, Any] | str = "timm:resnet18",
        pretrained: str | None = None,
        image_size: int = 448,
        scales: int = 2,
        top_share: float = 0.1,
        references: int = 5,
        draws: int = 960,
        outlier_root: str | None = None,
        **kwargs: Any,  # noqa: ANN401 - the options that all methods share
    ) -> None:
        super().__init__(backbone=backbone, pretrained=pretrained, image_size=image_size, **kwargs)
        for name in ("references", "draws"):
            checked(name, self.hparams[name], 1, whole=True)
        checked("scales", scales, 1, image_size.bit_length(), whole=True)  # the last of one pixel
        checked("top_share", top_share, 0, 1)
        self._outlier_folder = OutlierFolder(outlier_root)
        given: Any = (self.hparams, self._hparams_initial)  # of which files are made
        for options in given:
            options["outlier_root"] = self._outlier_folder.told
        self._images: TrainingImages | None = None
        trunk: Any = self.backbone.load({}, num_classes=0).network  # timm's
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.hparams["seed"])
            network = DRANetwork(trunk, trunk.num_features, scales)
        # All weights are in a checkpoint; what it has to fit is the kind of network.
        entry = Pixels(self.backbone, self.backbone.fingerprint(network=self.backbone.model))
        self.assemble(DRAModel(entry, network, top_share), few_shot=True)

    def __getstate__(self) -> dict[str, Any]:
        """Without the training images."""
        return super().__getstate__() | {"_images": None}

    def setup(self, stage: str) -> None:
        """Refuse several processes, each of which would draw the same images.

        Raises:
            ConfigError: There are several.
        """
        if stage == "fit" and self.trainer.world_size > 1:
            msg = "DRA mixes the images of a step itself, and learns in one process; leave "
            msg += "trainer.devices and trainer.num_nodes at 1"
            raise ConfigError(msg)
        super().setup(stage)

    def on_fit_start(self) -> None:
        """Read the training images.

        Raises:
            NotReadyError: There is no datamodule.
            DataRootError: There is no image in ``outlier_root``.
        """
        super().on_fit_start()
        data = self.data.train_data
        if data is None:
            msg = "DRA mixes its training images from those of a datamodule; pass one"
            raise NotReadyError(msg)
        items = [data[index] for index in range(len(data) // getattr(data, "copies", 1))]
        images = torch.stack([item.image.as_subclass(Tensor) for item in items])
        abnormal = torch.tensor([bool(item.gt_label) for item in items])
        self._images = TrainingImages(images[~abnormal], images[abnormal], self.outliers())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on with pseudo anomalies of another kind; see ``ClipMethod``.

        Raises:
            ConfigError: Those of the training were images of a folder, and none is given.
        """
        began = checkpoint.get("hyper_parameters", {}).get("outlier_root")
        goes_on = self._trainer is not None and self.trainer.training
        if goes_on and began and not self.hparams["outlier_root"]:
            msg = "the pseudo anomalies of this training were images of a folder; give outlier_root"
            raise ConfigError(msg)
        super().on_load_checkpoint(checkpoint)

    def outliers(self) -> Float[Tensor, "outlier 3 side side"]:
        """Images of another kind, resized; none where there is no folder of them.

        Raises:
            DataRootError: The folder has no images.
        """
        resize = self.configure_pre_processor().resize
        found = [resize(read_image(path)) for path in self._outlier_folder.images()]
        return torch.stack([one.as_subclass(Tensor) for one in found]) if found else torch.empty(0)

    def on_train_epoch_start(self) -> None:
        """Set the step size, and begin to draw by the epoch's number, so that a run repeats."""
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.step_size(self.current_epoch)
        self._mixture.begin(np.random.default_rng([self.hparams["seed"], self.current_epoch]))

    def examples(self, batch: ImageBatch) -> tuple[Tensor, Tensor | None, Tensor]:
        """As many images as the batch has, of all that there are, behind the references."""
        count = len(cast("Tensor", batch.image))
        drawn = self._mixture.draw(count, self.hparams["references"])
        return self.model.encode(drawn.images.to(self.device)), None, drawn.labels.to(self.device)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, with decay in the gradient."""
        trained = self.model.network.parameters()
        return torch.optim.Adam(trained, lr=self.step_size(0), weight_decay=1e-5)

    def step_size(self, epoch: int) -> float:
        """A tenth from epochs 9, 19, 29 on: the code's schedule steps when an epoch begins."""
        return self.learning_rate * 0.1 ** ((epoch + 1) // 10)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Shorten gradients as the code does, or as the trainer says."""
        limit = LARGEST_NORM if gradient_clip_val is None else gradient_clip_val
        super().configure_gradient_clipping(optimizer, limit, gradient_clip_algorithm)

    @property
    def _mixture(self) -> TrainingImages:
        if self._images is None:
            msg = "DRA has read no training images yet; train it by anomalib's Engine"
            raise NotReadyError(msg)
        return self._images
