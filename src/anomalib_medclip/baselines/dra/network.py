"""DRA's network: a trunk that trains, and four heads on its last maps."""

from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from anomalib_medclip.errors import ConfigError


class HeadScores(NamedTuple):
    """What the heads say of images, all at least 0.

    Attributes:
        normality: High on normal images.
        seen: High on anomalies like those learnt from.
        pseudo: High on anomalies like those made.
        residual: High on what differs from the references.
    """

    normality: Float[Tensor, "batch"]
    seen: Float[Tensor, "batch"]
    pseudo: Float[Tensor, "batch"]
    residual: Float[Tensor, "batch"]


class NormalityHead(nn.Module):
    """One number for a whole map.

    Args:
        width: Channels of the map.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 256)
        self.fc2 = nn.Linear(256, 1)

    def forward(
        self, features: Float[Tensor, "batch width height across"]
    ) -> Float[Tensor, "batch"]:
        """Score images."""
        return self.fc2(F.relu(self.fc1(features.mean(dim=(2, 3))))).abs()[:, 0]


class PatchHead(nn.Module):
    """One number for each position.

    Args:
        width: Channels of the map.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scoring = nn.Conv2d(width, 1, 1)

    def forward(
        self, features: Float[Tensor, "batch width height across"]
    ) -> Float[Tensor, "batch height across"]:
        """Score positions."""
        return self.scoring(features).abs()[:, 0]


class ResidualHead(PatchHead):
    """The same of what is missing from an image, compared with references."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        convolution = nn.Conv2d(width, width, 3, padding=1)
        self.conv = nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU())

    def forward(
        self, features: Float[Tensor, "batch width height across"]
    ) -> Float[Tensor, "batch height across"]:
        """Score positions, ``features`` being reference minus image."""
        return super().forward(self.conv(features))


class DRANetwork(nn.Module):
    """A trunk on an image and its halves, whose weights they share, and four heads.

    Args:
        trunk: Gives the last maps by ``forward_features``, as timm's networks do.
        width: Channels of these.
        scales: Sizes of an image that are looked at, each half of the one before.
    """

    def __init__(self, trunk: nn.Module, width: int, scales: int) -> None:
        super().__init__()
        self.trunk, self.scales = trunk, scales
        self.normality = NormalityHead(width)
        self.seen, self.pseudo = PatchHead(width), PatchHead(width)
        self.residual = ResidualHead(width)

    def features(
        self, images: Float[Tensor, "batch 3 side side"]
    ) -> list[Float[Tensor, "batch width height across"]]:
        """The trunk's last maps, scale by scale.

        Raises:
            ConfigError: The trunk gives no maps, or the smallest image is too small for it.
        """
        side = images.shape[-1]
        # Every second pixel, without smoothing, as the authors' code.
        sizes = [side // 2**scale for scale in range(self.scales)]
        return [self._maps(F.interpolate(images, size=(one, one))) for one in sizes]

    def _maps(self, images: Tensor) -> Tensor:
        found: Tensor = self.trunk.forward_features(images)  # type: ignore[operator]  # timm's
        if found.ndim != 4:
            msg = f"DRA's heads are convolutions, and {type(self.trunk).__name__} gives no maps; "
            msg += "take a convolutional backbone, such as resnet18"
            raise ConfigError(msg)
        return found


def top_mean(scores: Float[Tensor, "batch height across"], share: float) -> Float[Tensor, "batch"]:
    """Mean of the highest scores of each image.

    Args:
        scores: Of positions.
        share: How many of them, in (0, 1]; at least one.
    """
    flat = scores.flatten(1)
    return flat.topk(max(int(share * flat.shape[1]), 1), dim=1).values.mean(dim=1)
