"""PatchSVDD's computation: patches to distances from normal ones, and its encoder's losses."""

from typing import ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from anomalib_medclip.baselines.common.network_model import NetworkModel
from anomalib_medclip.baselines.common.pixels import Pixels
from anomalib_medclip.baselines.patchsvdd.distances import Spread, VectorBank
from anomalib_medclip.baselines.patchsvdd.networks import (
    BIG,
    SMALL,
    STRIDES,
    Encoder,
    PlaceClassifier,
)
from anomalib_medclip.baselines.patchsvdd.pairs import (
    Places,
    close_by,
    cut,
    jittered,
    neighbours,
)
from anomalib_medclip.components.losses import LossTerms, without_masks
from anomalib_medclip.components.model import ModelOutput
from anomalib_medclip.errors import ConfigError

Combine = Literal["product", "sum"]
"""How the maps of both kinds of patches become one."""


class PatchSVDDModel(NetworkModel):
    """An encoder of patches, and the vectors of all patches of normal images.

    Args:
        clip: Where images enter.
        width: Length of a patch's vector.
        pairs: Pairs of patches of each kind that are drawn of an image and step.
        weight: Of the losses that draw patches together.
        combine: How the maps of both kinds of patches become one.
        seed: Seed of the initial weights.

    Attributes:
        mean_image: Of the images learnt from, pixel by pixel, in [0, 1].

    Raises:
        ConfigError: Patches do not fill images of this size.
    """

    has_memory: ClassVar[bool] = True
    mean_image: Tensor

    def __init__(
        self,
        clip: Pixels,
        width: int = 64,
        pairs: int = 8,
        weight: float = 1.0,
        combine: Combine = "product",
        seed: int = 0,
    ) -> None:
        super().__init__(clip)
        side, _ = clip.size
        if side < BIG or (side - BIG) % STRIDES[BIG]:
            msg = f"image_size is {side}, and patches of {BIG} px fill images of {BIG}, "
            msg += f"{BIG + STRIDES[BIG]}, {BIG + 2 * STRIDES[BIG]}, ... px; take one of these"
            raise ConfigError(msg)
        self.pairs, self.weight, self.combine = pairs, weight, combine
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoder = Encoder(width)
            self.classifiers = nn.ModuleDict({str(k): PlaceClassifier(width) for k in STRIDES})
        self.banks = nn.ModuleDict({str(k): VectorBank() for k in STRIDES})
        self.spreads = nn.ModuleDict({str(k): Spread(side, k, STRIDES[k]) for k in STRIDES})
        self.register_buffer("mean_image", torch.zeros(3, side, side))

    def score(
        self,
        encoded: Float[Tensor, "batch 3 side side"],
        text: Tensor,
        leave_out: Int[Tensor, "batch"] | None = None,
    ) -> ModelOutput:
        """The map's maximum, of distances brought into [0, 1]; see ``ClipModel``.

        Raises:
            NotReadyError: There are no normal patches to compare with.
        """
        del text
        maps = self.distance_maps(encoded, leave_out)
        found = maps[BIG] * maps[SMALL] if self.combine == "product" else maps[BIG] + maps[SMALL]
        abnormal = found / (1 + found)
        return ModelOutput(abnormal.amax(dim=(-2, -1)), abnormal)

    def distance_maps(
        self,
        encoded: Float[Tensor, "batch 3 side side"],
        leave_out: Int[Tensor, "batch"] | None = None,
    ) -> dict[int, Float[Tensor, "batch side side"]]:
        """Mean distance of the patches on each pixel, by the patches' side."""
        found = {}
        for side, vectors in self.vectors(encoded).items():
            patches = vectors.flatten(2).transpose(1, 2)
            distances = self._bank(side).distance(patches, leave_out)
            rows = vectors.shape[-2:]
            found[side] = self.spreads[str(side)](distances.unflatten(1, rows))
        return found

    def vectors(
        self, encoded: Float[Tensor, "batch 3 side side"]
    ) -> dict[int, Float[Tensor, "batch width rows rows"]]:
        """Vectors of all patches, by the patches' side; see ``Encoder.dense``."""
        return self.encoder.dense(encoded - self.mean_image)

    def loss_terms(
        self,
        encoded: Float[Tensor, "batch 3 side side"],
        masks: Float[Tensor, "batch 1 side side"] | None,
        labels: Bool[Tensor, "batch"],
        text: Tensor,
    ) -> LossTerms:
        """Where patches lie, and how near each other close ones are, for both kinds of patches."""
        del masks, labels, text
        images, losses = encoded - self.mean_image, []
        count, (side, _), device = self.pairs * len(images), self.clip.size, images.device
        for patch in STRIDES:
            first, second, direction = neighbours(count, patch, side, device)
            one, other = (jittered(cut(images, places, patch)) for places in (first, second))
            losses.append(self.place_loss(patch, one, other, direction))
            near = self.close_loss(images, patch, *close_by(count, patch, side, device))
            losses.append(self.weight * near)
        return without_masks(torch.stack(losses))

    def place_loss(
        self,
        patch: int,
        first: Float[Tensor, "pair 3 patch patch"],
        second: Float[Tensor, "pair 3 patch patch"],
        direction: Int[Tensor, "pair"],
    ) -> Float[Tensor, ""]:
        """Cross-entropy of the directions in which second patches lie from first ones."""
        return F.cross_entropy(self.directions(patch, first, second), direction)

    def directions(
        self,
        patch: int,
        first: Float[Tensor, "pair 3 patch patch"],
        second: Float[Tensor, "pair 3 patch patch"],
    ) -> Float[Tensor, "pair 8"]:
        """Logits of the directions."""
        logits: Tensor = self.classifiers[str(patch)](self.encoder(first), self.encoder(second))
        return logits

    def close_loss(
        self, images: Float[Tensor, "batch 3 side side"], patch: int, first: Places, second: Places
    ) -> Float[Tensor, ""]:
        """Mean distance of patches that lie almost at one place."""
        vectors = [self.encoder(cut(images, places, patch)) for places in (first, second)]
        return (vectors[0] - vectors[1]).norm(dim=1).mean()

    @torch.no_grad()
    def fit_support(
        self,
        support: Float[Tensor, "image 3 side side"],
        copies: Float[Tensor, "copy normal 3 side side"],
        labels: Bool[Tensor, "image"],
        owners: Int[Tensor, "image"],
    ) -> None:
        """Keep the vectors of all patches of the normal support images."""
        del support
        found = [self.vectors(image) for image in copies[0].split(1)]
        for side in STRIDES:
            vectors = torch.cat([one[side] for one in found]).flatten(2).transpose(1, 2)
            self._bank(side).fill(vectors, owners[~labels])

    def _bank(self, side: int) -> VectorBank:
        return cast("VectorBank", self.banks[str(side)])
