"""RegAD's networks: stages of a trunk that turn their maps upright, and two heads for training."""

import math
from typing import Any, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from anomalib_medclip.errors import ConfigError

Mode = Literal[
    "rotation_scale", "affine", "translation", "rotation", "scale", "shear",
    "translation_scale", "rotation_translation", "rotation_translation_scale",
]  # fmt: skip
"""What maps may be moved by."""

Matrix = Float[Tensor, "batch 2 3"]
"""From output to input positions, in halves of a map."""

_STEM = ("conv1", "bn1", "act1", "maxpool")
_STAGES = ("layer1", "layer2", "layer3")
"""Parts of timm's residual networks that are used."""


class SpatialTransformer(nn.Module):
    """Moves each map as a small network on it says; at first it says to leave it.

    Args:
        width: Channels of the maps.
        side: Of the maps in pixels.
        mode: What they may be moved by.
    """

    def __init__(self, width: int, side: int, mode: Mode) -> None:
        super().__init__()
        self.mode = mode
        self.conv = nn.Sequential(*_halved(width, 64), *_halved(64, 16))
        quarter = math.ceil(side / 4)
        still = identity(mode)
        last = nn.Linear(1024, len(still))
        nn.init.zeros_(last.weight)
        last.bias.data = torch.tensor(still)
        self.fc = nn.Sequential(nn.Linear(16 * quarter**2, 1024), nn.ReLU(), last)

    def forward(self, maps: Float[Tensor, "batch width side side"]) -> tuple[Tensor, Matrix]:
        """Moved maps, and what moved them."""
        matrix = as_matrix(self.fc(self.conv(maps).flatten(1)), self.mode)
        return moved(maps, matrix), matrix


def _halved(width: int, channels: int) -> list[nn.Module]:
    convolution = nn.Conv2d(width, channels, 3, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)]


def identity(mode: Mode) -> list[float]:
    """Numbers that leave a map as it is."""
    if mode == "affine":
        return [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    still = {"rotation": [0.0], "translation": [0.0, 0.0], "scale": [1.0, 1.0]}
    still["shear"] = [0.0, 0.0]
    return [number for word in mode.split("_") for number in still[word]]


def as_matrix(numbers: Float[Tensor, "batch number"], mode: Mode) -> Matrix:
    """The map that some numbers mean: first the angle, then shifts, then scales.

    Scales stand on the diagonal alone, as in the authors' code.
    """
    if mode == "affine":
        return numbers.unflatten(1, (2, 3))
    columns = iter(numbers.unbind(dim=1))
    zero = torch.zeros_like(numbers[:, 0])
    one, words = zero + 1, mode.split("_")
    if mode == "shear":
        rows = [one, next(columns), zero, next(columns), one, zero]
        return torch.stack(rows, dim=1).unflatten(1, (2, 3))
    angle = next(columns) if "rotation" in words else zero
    right, down = (next(columns) if "translation" in words else zero for _ in range(2))
    wide, high = (next(columns) if "scale" in words else one for _ in range(2))
    cosine, sine = angle.cos(), angle.sin()
    rows = [wide * cosine, -sine, right, sine, high * cosine, down]
    return torch.stack(rows, dim=1).unflatten(1, (2, 3))


def moved(maps: Float[Tensor, "batch width side side"], matrix: Matrix) -> Tensor:
    """Maps sampled elsewhere, bilinear, mirrored at the edges."""
    grid = F.affine_grid(matrix, list(maps.shape), align_corners=False)
    return F.grid_sample(maps, grid, padding_mode="reflection", align_corners=False)


def back(matrix: Matrix) -> Matrix:
    """What undoes a move, without a gradient."""
    turn, shift = matrix.detach().split([2, 1], dim=2)
    (a, b), (c, d) = (row.unbind(dim=1) for row in turn.unbind(dim=1))
    adjugate = torch.stack([d, -b, -c, a], dim=1).unflatten(1, (2, 2))
    inverse = adjugate / (a * d - b * c)[:, None, None]
    return torch.cat([inverse, -inverse @ shift], dim=2)


class Registered(NamedTuple):
    """What the stages say of images.

    Attributes:
        maps: Moved maps, stage by stage; each stage sees those of the one before.
        matrices: What moved them.
    """

    maps: list[Float[Tensor, "batch width side side"]]
    matrices: list[Matrix]

    def upright(self) -> list[Float[Tensor, "batch width side side"]]:
        """The maps moved back to where the image has them."""
        found = []
        for stage, maps in enumerate(self.maps):
            for matrix in reversed(self.matrices[: stage + 1]):
                maps = moved(maps, back(matrix))
            found.append(maps)
        return found


class RegistrationNetwork(nn.Module):
    """The stem and three stages of a residual network, a transformer after each stage.

    Args:
        trunk: timm's residual network.
        side: Of the images in pixels.
        mode: What maps may be moved by.

    Raises:
        ConfigError: It is no residual network.
    """

    def __init__(self, trunk: nn.Module, side: int, mode: Mode) -> None:
        super().__init__()
        if lacking := [name for name in (*_STEM, *_STAGES) if not hasattr(trunk, name)]:
            msg = "RegAD's backbone is a residual network, such as timm:resnet18, and this has no "
            msg += f"{lacking[0]}; name one"
            raise ConfigError(msg)
        self.stem = nn.Sequential(*(trunk.get_submodule(name) for name in _STEM))
        self.stages = nn.ModuleList(trunk.get_submodule(name) for name in _STAGES)
        facts = {one["module"]: one for one in cast("Any", trunk).feature_info}
        self.widths = [int(facts[name]["num_chs"]) for name in _STAGES]
        self.sides = [-(-side // int(facts[name]["reduction"])) for name in _STAGES]
        pairs = zip(self.widths, self.sides, strict=True)
        self.transformers = nn.ModuleList(SpatialTransformer(*pair, mode) for pair in pairs)

    def forward(self, images: Float[Tensor, "batch 3 side side"]) -> Registered:
        """What the stages say of images in [0, 1]."""
        maps, matrices, stream = [], [], self.stem(images)
        for stage, transformer in zip(self.stages, self.transformers, strict=True):
            stream, matrix = transformer(stage(stream))
            maps.append(stream)
            matrices.append(matrix)
        return Registered(maps, matrices)


def pointwise(width: int, layers: int) -> nn.Sequential:
    """Convolutions of 1 x 1, with a batch norm and a ReLU between two.

    Args:
        width: Channels.
        layers: Three make the encoder of what is compared in training, two its predictor.
    """
    first = [
        part
        for _ in range(layers - 1)
        for part in (nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
    ]
    return nn.Sequential(*first, nn.Conv2d(width, width, 1, bias=False))


def pair_loss(
    predicted: Float[Tensor, "batch width height across"],
    other: Float[Tensor, "batch width height across"],
) -> Float[Tensor, "batch height across"]:
    """Minus the cosine at each position; no gradient reaches the other side."""
    return -F.cosine_similarity(predicted, other.detach(), dim=1)
