"""MKD as an anomalib model: its options."""

from typing import Any

import torch
from anomalib.models.components.base import AnomalibModule

from anomalib_medclip.baselines.common.baseline import Baseline
from anomalib_medclip.baselines.mkd.torch_model import Localisation, MKDModel
from anomalib_medclip.baselines.mkd.trunk import VggSource, VggTrunk
from anomalib_medclip.option_checks import Idle, checked


class MKD(Baseline, AnomalibModule):
    """A small network that imitates a large one on normal images alone (CVPR 2021).

    The defaults are those of BMAD's copy of the code, from which medical tables are. See
    ``anomalib_medclip.baselines.mkd`` for where the code differs.

    Args:
        backbone: ``timm:NAME`` of a VGG without batch norms, or ``{timm: NAME, blocks: ...}`` with
            the widths of each block's convolutions for one of one's own.
        pretrained: Local file of its weights, torchvision's or timm's; ``None`` for random ones.
            Nothing is downloaded.
        image_size: Side of the square input in pixels.
        cloner_width: Width of the small network where it is not compared; ``None`` for that of the
            large one.
        bias: Whether the small network's convolutions have one.
        value_weight: Weight of the distance in value; that in direction has 1.
        direction_only: Leave the distance in value out of scores and of training; maps have both.
        localisation: What maps are made of: ``guided`` back-propagation, plain ``gradients``,
            ``smooth_grad``, their mean over noisy copies; or, of our own making, the ``distance``
            of both networks at each position, which takes no gradient and can be exported.
        stretch: Stretch each map to [0, 1] by itself, as the authors do: that of a normal image
            reaches as high as any. Without, maps of different images can be compared.
        sigma: Standard deviation of the Gaussian that smooths maps, in pixels.
        smoothings: How often it does; the authors' own code does so once.
        **kwargs: The options that all methods share; see ``SharedOptions``.
    """

    default_batch_size = 64
    default_epochs = 200
    idle = (
        Idle(
            ("stretch", "sigma", "smoothings"),
            lambda given: given["localisation"] == "distance",
            "localisation: distance",
        ),
    )
    source = VggSource
    backbone: VggSource  # type: ignore[assignment]  # as in Baseline
    model: MKDModel

    def __init__(
        self,
        backbone: dict[str, Any] | str = "timm:vgg16",
        pretrained: str | None = None,
        image_size: int = 224,
        cloner_width: int | None = 16,
        bias: bool = False,
        value_weight: float = 0.01,
        direction_only: bool = False,
        localisation: Localisation = "guided",
        stretch: bool = True,
        sigma: float = 4.0,
        smoothings: int = 2,
        **kwargs: Any,  # noqa: ANN401 - the options that all methods share
    ) -> None:
        super().__init__(backbone=backbone, pretrained=pretrained, image_size=image_size, **kwargs)
        if cloner_width is not None:
            checked("cloner_width", cloner_width, 1, whole=True)
        checked("value_weight", value_weight, 0)
        checked("sigma", sigma, 0)
        checked("smoothings", smoothings, 0, whole=True)
        trunk = VggTrunk(self.backbone)
        compared = cloner_width, bias, value_weight, direction_only
        shown = localisation, stretch, sigma, smoothings
        self.assemble(MKDModel(trunk, *compared, *shown, self.hparams["seed"]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam as torch has it."""
        return torch.optim.Adam(self.model.cloner.parameters(), lr=self.learning_rate)
