"""MedCLIP's image tower, frozen: which weights, and patches after each of its stages."""

import hashlib
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from anomalib_medclip.baselines.medclip_visual import (
    EMBED_DIM,
    ResNetVisual,
    StageVisual,
    SwinVisual,
    in_grey,
)
from anomalib_medclip.baselines.medclip_weights import of_images, read_released
from anomalib_medclip.clip.source import Stated
from anomalib_medclip.clip.towers import ImageTower
from anomalib_medclip.clip.trunks import Trunk
from anomalib_medclip.errors import WeightsError
from anomalib_medclip.files import as_json
from anomalib_medclip.provenance import sha256_of_tensors

Network = Literal["vit", "resnet50"]
"""The two networks that its authors release: Swin-tiny, which they call ViT, and ResNet-50."""

MEAN, STD = 0.5862785803043838, 0.27950088968644304
"""Of the grey levels that it was trained on, in [0, 1]."""

SIDE = 224
"""Side of the images that it was trained on, in pixels; its windows fit no other."""

FACTOR = 1 / 0.07
"""On cosines, before training; trained weights say their own, from 1 to 100."""


class MedCLIPImages(nn.Module):
    """The image network, by the name that open_clip gives it."""

    def __init__(self, visual: StageVisual) -> None:
        super().__init__()
        self.visual = visual


class LoadedMedCLIP(NamedTuple):
    """The image network, its fingerprint, and the factor on cosines."""

    clip: MedCLIPImages
    fingerprint: str
    factor: float


@dataclass(frozen=True)
class MedCLIPBackbone:
    """Which image network of MedCLIP, and how images enter it.

    Attributes:
        model: One of those released, or keyword arguments of timm's ``SwinTransformer``.
        pretrained: The authors' archive, or the file in it; ``None`` for random weights.
        image_size: Side of the square input in pixels.
        normalize: Subtract MedCLIP's mean and divide by its deviation.
        seed: Seed of random weights.
    """

    model: Network | dict[str, Any]
    pretrained: str | None = None
    image_size: int = SIDE
    normalize: bool = True
    seed: int = 0

    @property
    def name(self) -> str:
        """The network's name, for messages."""
        return f"MedCLIP {self.model if isinstance(self.model, str) else 'of a custom Swin'}"

    def __str__(self) -> str:
        """All that matters, for messages and for files that travel: of a path its last name."""
        weights = f"random seed {self.seed}"
        if self.pretrained:
            weights = f"weights {Path(self.pretrained).name}"
        entry = "MedCLIP's normalisation" if self.normalize else "no normalisation"
        return f"{self.name}, {weights}, {self.image_size} px, {entry}"

    def load(self) -> LoadedMedCLIP:
        """Build the network and load its weights.

        Raises:
            WeightsError: The weights cannot be read, or do not fit.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            visual = self._built()
        told: dict[str, Any] = {"image_size": self.image_size, "normalize": self.normalize}
        if self.pretrained is None:
            told |= {"model": self.model, "seed": self.seed}
            return LoadedMedCLIP(MedCLIPImages(visual), _digest(as_json(told)), FACTOR)
        state = read_released(self.pretrained)
        try:
            visual.load_state_dict(own := of_images(state), strict=False)
            _refuse_missing(visual, own)
        except (RuntimeError, KeyError) as error:
            reason = textwrap.shorten(str(error), 300, placeholder=" ...")
            msg = f"weights file {self.pretrained} does not fit {self.name}: {reason}"
            raise WeightsError(msg) from error
        factor = float(state["logit_scale"].exp().clamp(1, 100))
        words = _digest(as_json(told) + sha256_of_tensors(own))
        return LoadedMedCLIP(MedCLIPImages(visual), words, factor)

    def _built(self) -> StageVisual:
        if self.model == "resnet50":
            return ResNetVisual(self.image_size)
        options = {} if isinstance(self.model, str) else self.model
        return SwinVisual(self.image_size, options)


def _refuse_missing(visual: nn.Module, own: dict[str, Tensor]) -> None:
    """Counters of batches apart, every weight has to be there, and no other."""
    kept = {name for name, value in visual.state_dict().items() if value.is_floating_point()}
    if differing := sorted(kept ^ own.keys()):
        msg = f"first at {differing[0]}"
        raise KeyError(msg)


def _digest(words: str) -> str:
    return hashlib.sha256(words.encode()).hexdigest()[:16]


class StageTrunk(Trunk):
    """How the image network runs: grey levels in, and patches of stages out.

    Args:
        visual: The network.
    """

    kind = "MedCLIP's image network"
    prefix = 0

    def __init__(self, visual: StageVisual) -> None:
        self.visual = visual
        self.width, self.embed_dim = int(visual.widths[-1]), EMBED_DIM

    def blocks_of(self, visual: StageVisual) -> Sequence[nn.Module]:
        """The network itself, as often as it has stages: nothing can act between two of them."""
        return [visual] * len(visual.widths)

    def embed(
        self, images: Float[Tensor, "batch 3 side side"]
    ) -> Float[Tensor, "batch 3 side side"]:
        """Grey levels, three times, as the network takes them."""
        return in_grey(images).expand(-1, 3, -1, -1)

    def pool(self, stream: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch embed_dim"]:
        """The image's embedding, of the patches of the last stage."""
        return self.visual.pool(stream)

    def project(
        self, tokens: Float[Tensor, "*batch width"], norm: bool
    ) -> Float[Tensor, "*batch embed_dim"]:
        """Patches of the last stage in the space shared with text; their mean is ``pool``."""
        del norm
        return self.visual.project(tokens)


class MedCLIPTower(ImageTower):
    """MedCLIP's image network, frozen: the patches of its stages, each with a grid and a width.

    Levels are stages, from 1. Since stages differ, ``taps`` gives them flat, one after the other,
    and ``parted`` takes them apart again.

    Args:
        backbone: Which weights.

    Attributes:
        factor: On cosines of images and text.
    """

    backbone: MedCLIPBackbone  # type: ignore[assignment]  # what is asked of one, it has

    def __init__(self, backbone: MedCLIPBackbone) -> None:
        nn.Module.__init__(self)
        self.backbone, self.precision = backbone, "fp32"
        clip, self.fingerprint, self.factor = backbone.load()
        self.visual = clip.visual.requires_grad_(requires_grad=False).eval()
        self._trunk = StageTrunk(self.visual)
        self.stated = Stated((MEAN,) * 3, (STD,) * 3, "bicubic", quick_gelu=False)
        for name, value in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(value), persistent=False)

    @torch.no_grad()
    def taps(
        self, images: Float[Tensor, "batch 3 side side"], levels: Sequence[int]
    ) -> Float[Tensor, "batch value"]:
        """Patches of stages, un-normalised, flat and one stage after the other.

        Args:
            images: RGB in [0, 1] at the network's image size.
            levels: Stages counted from 1, in ascending order.

        Raises:
            ConfigError: They are of another size.
        """
        found = self.visual.stages(self._embed(images))
        return torch.cat([found[level - 1].flatten(1) for level in levels], dim=1)

    def parted(
        self, encoded: Float[Tensor, "batch value"], levels: Sequence[int]
    ) -> list[Float[Tensor, "batch _ _"]]:
        """What ``taps`` gives of these stages, stage by stage: ``(batch, patch, width)``."""
        visual = self.visual
        shapes = [(visual.sides[level - 1] ** 2, visual.widths[level - 1]) for level in levels]
        parts = encoded.split([count * width for count, width in shapes], dim=1)
        return [one.unflatten(1, shape) for one, shape in zip(parts, shapes, strict=True)]
