"""A frozen network of timm's: images to the maps of some of its stages."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from anomalib_medclip.baselines.common.network_source import NetworkSource
from anomalib_medclip.baselines.common.pixels import Pixels
from anomalib_medclip.errors import ConfigError
from anomalib_medclip.option_checks import checked


class Trunk(Pixels):
    """A network of timm's up to the last stage that is read, frozen.

    Args:
        source: Which network, and how images enter it.
        layers: Stages to read, as timm counts them: of residual networks 1 is ``layer1``.
        moved_statistics: Show it one image of ones in training mode before it is frozen, which
            moves the running statistics of its batch norms by their momentum, as PatchCore's code
            and those made of it do without meaning to.

    Attributes:
        channels: Of the map of each stage.
        shapes: Channels, height and width of the map of each stage.

    Raises:
        ConfigError: The network has no such stages.
        WeightsError: See ``NetworkSource.load``.
    """

    def __init__(
        self, source: NetworkSource, layers: Sequence[int], moved_statistics: bool = False
    ) -> None:
        refuse_other_stages(source, layers)
        told = {"layers": list(layers), "moved_statistics": moved_statistics}
        network, fingerprint = source.load(told, features_only=True, out_indices=tuple(layers))
        super().__init__(source, fingerprint)
        self.channels: list[int] = _info(network).channels()
        sides = [-(-source.image_size // step) for step in _info(network).reduction()]
        self.shapes = list(zip(self.channels, sides, sides, strict=True))
        if moved_statistics:
            with torch.no_grad():
                network.train()(torch.ones(1, 3, *self.size))
        self.network = network.requires_grad_(requires_grad=False).eval()

    @torch.no_grad()
    def maps(
        self, images: Float[Tensor, "batch 3 side side"]
    ) -> list[Float[Tensor, "batch _ _ _"]]:
        """The map of each stage, ``(batch, channel, height, width)``.

        Args:
            images: RGB in [0, 1].

        Raises:
            ConfigError: They are of another size.
        """
        found: list[Tensor] = self.network(self._embed(images))
        return found


def refuse_other_stages(source: NetworkSource, layers: Sequence[int]) -> None:
    """Refuse stages that a network does not have.

    Raises:
        ConfigError: They do not ascend, or there are not so many.
        WeightsError: See ``NetworkSource.load``.
    """
    stages = len(_info(source.planned(features_only=True, out_indices=(0,))).info)
    for number in layers:
        checked("layers", number, 0, stages - 1, whole=True)
    if not layers or list(layers) != sorted({*layers}):
        msg = f"layers are {list(layers)}, and must ascend, from 0 to {stages - 1} of "
        msg += f"{source.name}; correct them"
        raise ConfigError(msg)


def _info(network: Any) -> Any:  # noqa: ANN401 - timm's
    return network.feature_info
