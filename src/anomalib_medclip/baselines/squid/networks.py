"""SQUID's blocks, its windows, and its discriminator."""

from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Block(nn.Module):
    """A convolution, and a residual of two more.

    Args:
        before: Channels that come in.
        after: Channels that go out.
        stride: Of the first convolution.
    """

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()

        def layer(channels: int, step: int = 1) -> list[nn.Module]:
            return [nn.Conv2d(channels, after, 3, step, padding=1), nn.BatchNorm2d(after)]

        self.conv1 = nn.Sequential(*layer(before, stride), nn.ReLU())
        self.conv2 = nn.Sequential(*layer(after), nn.ReLU(), *layer(after))

    def forward(
        self, maps: Float[Tensor, "batch before height width"]
    ) -> Float[Tensor, "batch after _ _"]:
        """Maps, smaller by the stride."""
        first = self.conv1(maps)
        return F.relu(first + self.conv2(first))


def cut(
    maps: Float[Tensor, "batch channel height width"], parts: int
) -> Float[Tensor, "batch*parts*parts channel _ _"]:
    """Windows of each map, image by image and row by row.

    Args:
        maps: Of images.
        parts: Windows of a row.

    Example:
        >>> import torch
        >>> cut(torch.arange(4.0).view(1, 1, 2, 2), 2).flatten()
        tensor([0., 1., 2., 3.])
    """
    rows = maps.unflatten(3, (parts, -1)).unflatten(2, (parts, -1))
    return rows.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


def glued(
    windows: Float[Tensor, "window channel height width"], parts: int
) -> Float[Tensor, "batch channel _ _"]:
    """The maps that were ``cut`` so."""
    of_images = windows.unflatten(0, (-1, parts, parts))
    return of_images.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


class Discriminator(nn.Module):
    """Images to a number that is high for real ones.

    Args:
        side: Of the images in pixels, a multiple of 32.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        widths = (1, 16, 32, 64, 128, 128)
        layers: list[nn.Module] = []
        for place, (before, after) in enumerate(pairwise(widths)):
            layers.append(nn.Conv2d(before, after, 5, stride=2, padding=2))
            layers += [nn.BatchNorm2d(after)] if place else []
            layers.append(nn.LeakyReLU(0.2))
        self.conv_model = nn.Sequential(*layers)
        self.regressor = nn.Linear(widths[-1] * (side // 32) ** 2, 1)

    def forward(self, images: Float[Tensor, "batch 1 side side"]) -> Float[Tensor, "batch"]:
        """A logit of each image."""
        found: Tensor = self.regressor(self.conv_model(images).flatten(1))
        return found[:, 0]


def in_grey(images: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch 1 side side"]:
    """Luminance, as Pillow's mode ``L`` weighs colours."""
    weights = images.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True)
