"""AnoDDPM's network, which MONAI has, and the average of its weights over training."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call

from anomalib_medclip.errors import ConfigError

GROUPS = 32
"""Of the group norms."""

_ATTENTIVE = (32, 16, 8)
"""Sides of the maps that attention is on, in pixels."""

MULTIPLES = {256: (1, 1, 2, 2, 4, 4), 128: (1, 1, 2, 3, 4), 64: (1, 2, 3, 4), 32: (1, 2, 3, 4)}
"""Of the base's channels, level by level, by the image's side in pixels."""


def noise_network(
    side: int, base: int, multiples: Sequence[int] | None, blocks: int, heads: int
) -> nn.Module:
    """A network that estimates the noise in images.

    Args:
        side: Of the images in pixels.
        base: Channels of the first level.
        multiples: Of these, level by level; by default the authors' for this side.
        blocks: Residual blocks of a level.
        heads: Of attention.

    Raises:
        ConfigError: Sides or channels do not go with each other.
    """
    from monai.networks.nets import DiffusionModelUNet  # takes seconds

    known = MULTIPLES.get(side) if multiples is None else tuple(multiples)
    if not known:
        msg = f"the authors have levels for images of {', '.join(map(str, MULTIPLES))} px, and "
        msg += f"image_size is {side}; pass channel_multiples, such as [1, 2, 3, 4]"
        raise ConfigError(msg)
    channels = [base * multiple for multiple in known]
    if wrong := [one for one in channels if one % GROUPS or one % heads]:
        msg = (
            f"base_channels {base} gives a level {wrong[0]} channels, and they must be a multiple "
        )
        msg += f"of {GROUPS} and of the {heads} heads; correct base_channels"
        raise ConfigError(msg)
    if side % 2 ** (len(known) - 1):
        msg = f"image_size {side} cannot be halved {len(known) - 1} times; take a multiple of "
        msg += f"{2 ** (len(known) - 1)}, or fewer channel_multiples"
        raise ConfigError(msg)
    return DiffusionModelUNet(
        spatial_dims=2,
        in_channels=1,
        out_channels=1,
        channels=channels,
        attention_levels=[side // 2**level in _ATTENTIVE for level in range(len(known))],
        num_res_blocks=blocks,
        num_head_channels=[one // heads for one in channels],
        resblock_updown=True,
        norm_num_groups=GROUPS,
        norm_eps=1e-5,  # MONAI's own is 1e-6
        use_flash_attention=True,  # the same numbers in a quarter of the time
    )


class Average(nn.Module):
    """Running average of a network's weights, to score with.

    Args:
        network: Whose.
        decay: What is left of the average after a step.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self._names = [name for name, _ in network.named_parameters()]
        for number, weight in enumerate(network.parameters()):
            self.register_buffer(str(number), weight.detach().clone())

    @torch.no_grad()
    def begin(self, network: nn.Module) -> None:
        """Take the network's weights."""
        for mean, weight in zip(self.buffers(), network.parameters(), strict=True):
            mean.copy_(weight)

    @torch.no_grad()
    def follow(self, network: nn.Module) -> None:
        """Take a step towards the network's weights."""
        for mean, weight in zip(self.buffers(), network.parameters(), strict=True):
            mean.lerp_(weight, 1 - self.decay)

    def estimate(
        self,
        network: nn.Module,
        noisy: Float[Tensor, "batch 1 side side"],
        steps: Int[Tensor, "batch"],
    ) -> Float[Tensor, "batch 1 side side"]:
        """The noise that the network would see in images, had it the averaged weights."""
        weights = dict(zip(self._names, self.buffers(), strict=True))
        found: Tensor = functional_call(network, weights, (noisy, steps))
        return found
