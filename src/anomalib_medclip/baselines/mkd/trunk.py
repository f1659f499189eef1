"""The network that is cloned: a VGG, frozen, from which gradients can come back to the image."""

from dataclasses import dataclass
from typing import Any, cast

from jaxtyping import Float
from timm.models.vgg import cfgs
from torch import Tensor, nn

from anomalib_medclip.baselines.common.network_source import NetworkSource
from anomalib_medclip.baselines.common.pixels import Pixels
from anomalib_medclip.baselines.mkd.networks import FIRST_POOL, Blocks, pooled, vgg_layers
from anomalib_medclip.errors import ConfigError, WeightsError


class Vgg(nn.Module):
    """The convolutions of a VGG, by the names that torchvision and timm give them.

    Args:
        blocks: See ``Blocks``.
    """

    def __init__(self, blocks: Blocks) -> None:
        super().__init__()
        self.features = vgg_layers(blocks)
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # it has one


@dataclass(frozen=True)
class VggSource(NetworkSource):
    """Which VGG, and how images enter it.

    ``model`` is ``timm:NAME`` of a VGG without batch norms, or ``{timm: NAME, blocks: ...}`` for
    one of other widths.
    """

    @property
    def blocks(self) -> Blocks:
        """Widths of its convolutions.

        Raises:
            WeightsError: There is no such VGG, or its widths cannot be.
        """
        name, numbers = self._asked()
        if name not in cfgs or numbers.keys() - {"blocks"}:
            msg = f"backbone is {self.model!r}, and must be 'timm:NAME' of {', '.join(cfgs)}, or "
            msg += "{timm: NAME, blocks: [[8, 8], [12, 16], ...]}"
            raise WeightsError(msg)
        return numbers.get("blocks") or _blocks_of(cfgs[name])

    def build(self, **options: Any) -> nn.Module:  # noqa: ANN401 - none
        """The network, with random weights."""
        del options
        return Vgg(self.blocks)


def _blocks_of(layout: list[int | str]) -> Blocks:
    """Blocks of a layout in which ``M`` stands for a max-pool."""
    found: list[list[int]] = [[]]
    for one in layout:
        if isinstance(one, str):
            found.append([])
        else:
            found[-1].append(one)
    return found[:-1]


class VggTrunk(Pixels):
    """A VGG's convolutions, frozen.

    Args:
        source: Which VGG, and how images enter it.

    Attributes:
        blocks: Widths of its convolutions.

    Raises:
        ConfigError: Images are too small for its max-pools.
        WeightsError: See ``NetworkSource.load``.
    """

    def __init__(self, source: VggSource) -> None:
        blocks = source.blocks
        smallest = 2 ** len(blocks)
        if source.image_size < smallest or len(blocks) <= FIRST_POOL:
            msg = f"{len(blocks)} blocks take images of at least {smallest} px, and there must be "
            msg += f"{FIRST_POOL + 1} blocks; correct image_size, {source.image_size}, or backbone"
            raise ConfigError(msg)
        network, fingerprint = source.load({})
        super().__init__(source, fingerprint)
        self.blocks = blocks
        layers = cast("nn.Sequential", network.features)
        self.layers = layers.requires_grad_(requires_grad=False).eval()

    @property
    def shapes(self) -> list[tuple[int, int, int]]:
        """Channels, height and width of each map."""
        sides = [self.size[0] >> pool for pool in range(1, len(self.blocks) + 1)]
        shapes = [(b[-1], side, side) for b, side in zip(self.blocks, sides, strict=True)]
        return shapes[FIRST_POOL - 1 :]

    def maps(
        self, normalised: Float[Tensor, "batch 3 side side"]
    ) -> list[Float[Tensor, "batch _ _ _"]]:
        """Its maps after all max-pools but the first, with their gradient where one is wanted."""
        return pooled(self.layers, normalised)
