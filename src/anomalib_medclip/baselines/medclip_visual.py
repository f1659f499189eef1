"""MedCLIP's two image networks, stage by stage: a Swin transformer, and a residual network."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn
from torchvision.models import resnet50

EMBED_DIM = 512
"""Width of the space that images and text share."""


class StageVisual(nn.Module):
    """Images to the patches of four stages, each half as large and twice as wide as the one before.

    Attributes:
        model: The network.
        projection_head: Into the space shared with text, without bias.
        widths: Of the four stages.
        sides: Of their square grids.
    """

    model: Any
    projection_head: nn.Linear
    widths: Sequence[int]
    sides: Sequence[int]

    @abstractmethod
    def stages(
        self, images: Float[Tensor, "batch 3 side side"]
    ) -> list[Float[Tensor, "batch _ _"]]:
        """Patches after each stage, row by row of the image."""

    def project(self, patches: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch embed_dim"]:
        """Patches of the last stage, or their mean, in the space shared with text."""
        return self.projection_head(patches)

    def pool(self, patches: Float[Tensor, "batch patch width"]) -> Float[Tensor, "batch embed_dim"]:
        """The image in the space shared with text: its mean patch there, un-normalised."""
        return self.project(patches).mean(dim=1)

    def forward(self, images: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch embed"]:
        """The image's embedding, un-normalised."""
        return self.pool(self.stages(images)[-1])


class SwinVisual(StageVisual):
    """timm's Swin transformer, and a linear layer.

    Args:
        side: Side of the images in pixels.
        options: Keyword arguments of timm's ``SwinTransformer``; by default those of Swin-tiny.
    """

    def __init__(self, side: int, options: dict[str, Any]) -> None:
        super().__init__()
        self.model = SwinTransformer(img_size=side, num_classes=0, **options)
        self.projection_head = nn.Linear(self.model.num_features, EMBED_DIM, bias=False)
        first = self.model.patch_embed.grid_size[0]
        self.widths = [self.model.num_features >> 3 - stage for stage in range(4)]
        self.sides = [first >> stage for stage in range(4)]

    def stages(
        self, images: Float[Tensor, "batch 3 side side"]
    ) -> list[Float[Tensor, "batch _ _"]]:
        """Patches after each stage, un-normalised."""
        found, stream = [], self.model.patch_embed(images)
        for stage in self.model.layers:
            stream = stage(stream)
            found.append(stream.flatten(1, 2))
        return found

    def project(self, patches: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch embed_dim"]:
        """After the last norm; the mean comes last, which of linear maps is the same."""
        return self.projection_head(self.model.norm(patches))


class ResNetVisual(StageVisual):
    """torchvision's ResNet-50, whose last layer leads into the shared space.

    Args:
        side: Side of the images in pixels.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.model = resnet50(weights=None)
        self.projection_head = nn.Linear(self.model.fc.in_features, EMBED_DIM, bias=False)
        self.model.fc = nn.Identity()
        self.widths = [256, 512, 1024, 2048]
        self.sides = [-(-side // (4 << stage)) for stage in range(4)]

    def stages(
        self, images: Float[Tensor, "batch 3 side side"]
    ) -> list[Float[Tensor, "batch _ _"]]:
        """Positions after each stage."""
        net, found = self.model, []
        stream = net.maxpool(net.relu(net.bn1(net.conv1(images))))
        for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
            stream = stage(stream)
            found.append(stream.flatten(2).transpose(1, 2))
        return found


def in_grey(images: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch 1 side side"]:
    """Luminance, as Pillow's mode ``L`` weighs colours.

    Example:
        >>> import torch
        >>> in_grey(torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)).flatten()
        tensor([0.2990])
    """
    weights = images.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True)
