"""SimpleNet as an anomalib model: its options, and its optimiser."""

from collections.abc import Sequence
from typing import Any

import torch
from anomalib.models.components.base import AnomalibModule

from anomalib_medclip.baselines.common.baseline import Baseline
from anomalib_medclip.baselines.common.trunk import Trunk
from anomalib_medclip.baselines.simplenet.torch_model import SimpleNetModel
from anomalib_medclip.option_checks import checked


class SimpleNet(Baseline, AnomalibModule):
    """A discriminator of normal features from noisy ones (CVPR 2023), from normal images alone.

    See ``anomalib_medclip.baselines.simplenet`` for where its authors' code differs.

    Args:
        backbone: ``timm:NAME``, or ``{timm: NAME, ...}`` with numbers for one of one's own.
        pretrained: Local file of its weights; ``None`` for random ones. Nothing is downloaded.
        image_size: Side of the square input in pixels.
        layers: Stages of the backbone to read: of residual networks 1 is ``layer1``.
        layer_width: Values of a position and stage.
        width: Values of a position.
        hidden: Width of the discriminator's hidden layer.
        noise_std: Standard deviation of the noise that makes features abnormal.
        margin: How far scores are to be on their side of zero.
        sigma: Standard deviation of the Gaussian that smooths maps, in pixels.
        moved_statistics: Let the backbone see an image of ones in training mode first, as the
            authors' code does.
        **kwargs: The options that all methods share; see ``SharedOptions``. ``lr`` is the
            discriminator's; the adaptor has half of it.

    Raises:
        ConfigError: A number cannot be, or the backbone has no such stages.
        WeightsError: The backbone or its weights cannot be found or read.
    """

    default_lr = 2e-4
    default_epochs = 160
    model: SimpleNetModel

    def __init__(
        self,
        backbone: dict[str, Any] | str = "timm:wide_resnet50_2",
        pretrained: str | None = None,
        image_size: int = 288,
        layers: Sequence[int] = (2, 3),
        layer_width: int = 1536,
        width: int = 1536,
        hidden: int = 1024,
        noise_std: float = 0.015,
        margin: float = 0.5,
        sigma: float = 4.0,
        moved_statistics: bool = False,
        **kwargs: Any,  # noqa: ANN401 - the options that all methods share
    ) -> None:
        super().__init__(backbone=backbone, pretrained=pretrained, image_size=image_size, **kwargs)
        for name in ("layer_width", "width", "hidden"):
            checked(name, self.hparams[name], 1, whole=True)
        for name in ("noise_std", "margin", "sigma"):
            checked(name, self.hparams[name], 0)
        trunk = Trunk(self.backbone, layers, moved_statistics)
        widths = layer_width, width, hidden
        seed = self.hparams["seed"]
        self.assemble(SimpleNetModel(trunk, *widths, noise_std, margin, sigma, seed))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW of the adaptor and Adam of the discriminator, which is one Adam of two groups."""
        lr = self.learning_rate
        return torch.optim.Adam(
            [
                {
                    "params": list(self.model.adaptor.parameters()),
                    "lr": lr / 2,
                    "weight_decay": 1e-2,
                    "decoupled_weight_decay": True,
                },
                {
                    "params": list(self.model.discriminator.parameters()),
                    "lr": lr,
                    "weight_decay": 1e-5,
                },
            ]
        )
