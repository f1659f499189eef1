"""MKD's computation: how far a small network, trained on normal images, is from a large one."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from anomalib_medclip.baselines.common.joined import joined, parted
from anomalib_medclip.baselines.common.network_model import NetworkModel
from anomalib_medclip.baselines.mkd.maps import salience, stretched_to_percentile
from anomalib_medclip.baselines.mkd.networks import (
    distances,
    guided_relu,
    narrow,
    pooled,
    vgg_layers,
)
from anomalib_medclip.baselines.mkd.trunk import VggTrunk
from anomalib_medclip.components.anomaly_map import to_map
from anomalib_medclip.components.losses import LossTerms, without_masks
from anomalib_medclip.components.model import ModelOutput
from anomalib_medclip.components.smoothing import GaussianSmoothing

Localisation = Literal["guided", "gradients", "smooth_grad", "distance"]
"""What a map is made of: guided back-propagation, plain gradients, their mean under noise, or, as
our own, the distance of both networks at each position."""

NOISY = 50
"""Noisy copies of an image whose gradients are averaged."""


class MKDModel(NetworkModel):
    """A large frozen network, and a small one that is to be like it on normal images alone.

    Args:
        clip: The frozen network.
        cloner_width: Width of the small network where it is not compared; ``None`` for that of the
            large one.
        bias: Whether the small network's convolutions have one.
        value_weight: Weight of the distance in value; that in direction has 1.
        direction_only: Leave the distance in value out of scores and of training; maps have both.
        localisation: What maps are made of.
        stretch: Stretch each map to [0, 1] by itself, as the authors do.
        sigma: Standard deviation of the Gaussian that smooths maps, in pixels.
        smoothings: How often it does.
        seed: Seed of the initial weights, and of noise.
    """

    clip: VggTrunk

    def __init__(
        self,
        clip: VggTrunk,
        cloner_width: int | None = 16,
        bias: bool = False,
        value_weight: float = 0.01,
        direction_only: bool = False,
        localisation: Localisation = "guided",
        stretch: bool = True,
        sigma: float = 4.0,
        smoothings: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__(clip)
        self.value_weight, self.direction_only = value_weight, direction_only
        self.localisation, self.stretch = localisation, stretch
        self.smoothings, self.seed = smoothings, seed
        blocks = clip.blocks if cloner_width is None else narrow(clip.blocks, cloner_width)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.cloner = vgg_layers(blocks, bias=bias, norm=True)
            for layer in self.cloner:
                if isinstance(layer, nn.Conv2d):
                    nn.init.xavier_uniform_(layer.weight)
        self.smooth = GaussianSmoothing(clip.size[0], sigma)
        if localisation != "distance":
            self.untraceable = "MKD's maps are gradients at the image, which no graph computes: "
            self.untraceable += "train it with localisation distance to export it"

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch value"]:
        """The normalised images and the large network's maps, side by side."""
        normalised = self.clip(images)
        return joined([normalised, *self.clip.maps(normalised)])

    def middle_patches(
        self, encoded: Float[Tensor, "batch value"]
    ) -> Float[Tensor, "batch patch width"]:
        """The large network's first map; see ``ClipModel``."""
        return self._parts(encoded)[1].flatten(2).transpose(1, 2)

    def score(
        self,
        encoded: Float[Tensor, "batch value"],
        text: Tensor,
        leave_out: Int[Tensor, "batch"] | None = None,
    ) -> ModelOutput:
        """Distance of both networks after all pools but two; see ``ClipModel``.

        Maps are of the distance's gradient at the image, of which nothing is kept. Under inference
        mode, too, they are computed outside of it.
        """
        del text, leave_out
        images, *source = self._parts(encoded)
        cloned = pooled(self.cloner, images)
        direction, value = self._scored(cloned, source)
        score = direction if self.direction_only else direction + self.value_weight * value
        if self.localisation == "distance":
            return ModelOutput(_below_one(score), self._distance_map(cloned, source))
        return ModelOutput(_below_one(score), self._gradient_map(images))

    def loss_terms(
        self,
        encoded: Float[Tensor, "batch value"],
        masks: Float[Tensor, "batch 1 side side"] | None,
        labels: Bool[Tensor, "batch"],
        text: Tensor,
    ) -> LossTerms:
        """Distance of both networks after each pool but the first; all images are normal."""
        del masks, labels, text
        images, *source = self._parts(encoded)
        direction, value = distances(pooled(self.cloner, images), source)
        losses = direction if self.direction_only else direction + self.value_weight * value
        return without_masks(losses.mean(dim=1))

    def input_gradients(
        self, images: Float[Tensor, "batch 3 side side"]
    ) -> Float[Tensor, "batch 3 side side"]:
        """Gradient of each image's distance, in direction and value, at its pixels.

        Args:
            images: Normalised.
        """
        with torch.inference_mode(mode=False), torch.enable_grad():
            # A clone: what was made under inference mode takes no gradient.
            pixels = images.clone().requires_grad_()
            relu = guided_relu if self.localisation == "guided" else F.relu
            cloned = pooled(self.cloner, pixels, relu)
            direction, value = self._scored(cloned, self.clip.maps(pixels))
            total = (direction + self.value_weight * value).sum()
            [found] = torch.autograd.grad(total, pixels)
        return found

    def _scored(
        self, cloned: list[Tensor], source: list[Tensor]
    ) -> tuple[Float[Tensor, "batch"], Float[Tensor, "batch"]]:
        """Distances in direction and in value, summed over all levels but the first."""
        direction, value = distances(cloned[1:], source[1:])
        return direction.sum(dim=0), value.sum(dim=0)

    def _gradient_map(self, images: Tensor) -> Float[Tensor, "batch side side"]:
        noisy = self.localisation == "smooth_grad"
        copies = self._noisy(images) if noisy else [images]
        found = []
        for copy in copies:
            map_ = salience(self.input_gradients(copy))
            found.append(stretched_to_percentile(map_) if self.stretch else map_)
        smooth = torch.stack(found).mean(dim=0)
        for _ in range(self.smoothings):
            smooth = self.smooth(smooth)
        return smooth if self.stretch else _below_one(smooth)

    def _noisy(self, images: Tensor) -> list[Tensor]:
        """Copies with noise, the same for each image in whatever batch it comes."""
        random = torch.Generator().manual_seed(self.seed)
        flat = images.flatten(1)
        spread = (flat.amax(dim=1) - flat.amin(dim=1)).clamp(min=1e-6)
        # As the code, which takes a variance for a standard deviation.
        deviation = (0.05 / spread).square()[:, None, None, None]
        noise = (torch.randn(images.shape[1:], generator=random) for _ in range(NOISY))
        return [images + deviation * one.to(images) for one in noise]

    def _distance_map(
        self, cloned: list[Tensor], source: list[Tensor]
    ) -> Float[Tensor, "batch side side"]:
        """Half of one minus the cosine of both networks at each position, mean over levels."""
        maps = []
        for a, b in zip(cloned[1:], source[1:], strict=True):
            apart = (1 - F.cosine_similarity(a, b, dim=1)) / 2
            maps.append(to_map(apart.flatten(1).unsqueeze(-1), self.clip.size)[:, 0])
        return torch.stack(maps).mean(dim=0)

    def _parts(self, encoded: Tensor) -> list[Tensor]:
        return parted(encoded, [(3, *self.clip.size), *self.clip.shapes])


def _below_one(values: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Numbers from 0 on moved into [0, 1), in the same order."""
    return values / (1 + values)
