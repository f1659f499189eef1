"""RegAD's computation: images to their distance from normal ones, and the loss of registration."""

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anomalib_medclip.baselines.common.network_model import NetworkModel
from anomalib_medclip.baselines.common.owners import others
from anomalib_medclip.baselines.common.pixels import Pixels
from anomalib_medclip.baselines.regad.copies import TWENTY_TWO
from anomalib_medclip.baselines.regad.gaussian import PositionGaussian
from anomalib_medclip.baselines.regad.network import RegistrationNetwork, pair_loss, pointwise
from anomalib_medclip.components.anomaly_map import to_map
from anomalib_medclip.components.losses import LossTerms, without_masks
from anomalib_medclip.components.model import ModelOutput
from anomalib_medclip.components.smoothing import GaussianSmoothing
from anomalib_medclip.errors import NotReadyError

Maps = list[Float[Tensor, "image width side side"]]
"""Of the three stages."""

SIGMA = 4.0
"""Of the smoothing of maps, in pixels."""


class RegADModel(NetworkModel):
    """A network that turns its maps upright, and a Gaussian of normal images at each position.

    What a checkpoint holds of the support is its images: the Gaussians, which take hundreds of
    megabytes, are made of them again.

    Args:
        clip: How images enter.
        network: What registers them.
        shots: Other images of its set that a training image is registered with.
    """

    has_memory: ClassVar[bool] = True
    most_normal: ClassVar[int] = 16  # each is there 22 times; the Gaussians take gigabytes
    without_support = "take the option register, which trains on other sets"
    images: Tensor
    mean: Tensor
    rows: Tensor

    def __init__(self, clip: Pixels, network: RegistrationNetwork, shots: int) -> None:
        super().__init__(clip)
        self.network, self.shots = network, shots
        width = network.widths[-1]
        self.encoder, self.predictor = pointwise(width, 3), pointwise(width, 2)
        self.smoothing = GaussianSmoothing(clip.size[0], SIGMA)
        self.register_buffer("images", torch.empty(0))
        for name in PositionGaussian._fields:
            self.register_buffer(name, torch.empty(0), persistent=False)
        self._samples: Maps = []
        self._owners = torch.empty(0, dtype=torch.long)
        self.register_load_state_dict_post_hook(_fit_again)  # type: ignore[no-untyped-call]

    def score(
        self,
        encoded: Float[Tensor, "batch 3 side side"],
        text: Tensor,
        leave_out: Int[Tensor, "batch"] | None = None,
    ) -> ModelOutput:
        """Score images that are normalised already; see ``ClipModel``.

        Raises:
            NotReadyError: There are no normal images, or none but those to leave out.
        """
        del text
        heat = as_unit(self.distance_map(encoded, leave_out), sum(self.network.widths))
        return ModelOutput(heat.amax(dim=(1, 2)), heat)

    def distance_map(
        self,
        encoded: Float[Tensor, "batch 3 side side"],
        leave_out: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch side side"]:
        """Mahalanobis distance of each pixel to normal images, smoothed; see ``score``."""
        if not self.mean.numel():
            msg = "there are no normal images to compare with: train with k_shot > 0, or load a "
            msg += "checkpoint"
            raise NotReadyError(msg)
        maps = embedding(self.network(encoded).upright())
        if leave_out is None:
            distance = PositionGaussian(self.mean, self.rows).distance(maps)
        else:
            pairs = zip(leave_out.tolist(), maps.split(1), strict=True)
            distance = torch.cat([self._without(owner).distance(one) for owner, one in pairs])
        enlarged = to_map(distance.unsqueeze(-1), self.clip.size, corners=False)
        return self.smoothing(enlarged[:, 0])

    def loss_terms(
        self,
        encoded: Float[Tensor, "batch 3 side side"],
        masks: Float[Tensor, "batch 1 side side"] | None,
        labels: Bool[Tensor, "batch"],
        text: Tensor,
    ) -> LossTerms:
        """Loss of registration of normal images of one set, with others of the batch."""
        del masks, labels, text
        count = len(encoded)
        order = torch.rand(count, count).fill_diagonal_(2.0).argsort(dim=1)  # itself comes last
        chosen = order[:, : min(self.shots, max(count - 1, 1))].to(encoded.device)
        return without_masks(torch.stack(self.registration_terms(encoded, encoded[chosen])) / 2)

    def registration_terms(
        self,
        query: Float[Tensor, "batch 3 side side"],
        support: Float[Tensor, "batch shot 3 side side"],
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """How far images and the mean of some others predict each other, from -1 to 1.

        Args:
            query: Images.
            support: Others of the same set, for each image.
        """
        shots = support.shape[1]
        ours = self.network(query).maps[-1]
        theirs = self.network(support.flatten(0, 1)).maps[-1].unflatten(0, (-1, shots)).mean(dim=1)
        ours, theirs = self.encoder(ours), self.encoder(theirs)
        pairs = (self.predictor(ours), theirs), (self.predictor(theirs), ours)
        first, second = (pair_loss(*pair).mean() for pair in pairs)
        return first, second

    @torch.no_grad()
    def fit_support(
        self,
        support: Float[Tensor, "image 3 side side"],
        copies: Float[Tensor, "copy normal 3 side side"],
        labels: Bool[Tensor, "image"],
        owners: Int[Tensor, "image"],
    ) -> None:
        """Keep the normal images, and the Gaussians of what the network says of their copies."""
        del support
        self.images = copies[0]
        with self.evaluated():
            found = [self.network(copy).upright() for copy in copies]
        self._samples = [torch.cat(stage) for stage in zip(*found, strict=True)]
        self._owners = owners[~labels].repeat(len(copies))
        self.mean, self.rows = PositionGaussian.of(embedding(self._samples))

    def _without(self, owner: int) -> PositionGaussian:
        """The Gaussians of all images but an owner's; -1 for nobody's."""
        if owner < 0:
            return PositionGaussian(self.mean, self.rows)
        [seen] = others(self._owners, torch.tensor([owner]))
        return PositionGaussian.of(embedding([stage[seen] for stage in self._samples]))

    def __getstate__(self) -> dict[str, Any]:
        """Without what only leave-one-out needs."""
        return self.__dict__ | {"_samples": [], "_owners": self._owners[:0]}


def _fit_again(model: RegADModel, _keys: object) -> None:
    """Make the Gaussians of the images that were restored."""
    if model.images.numel():
        copies = torch.stack([copy(model.images) for copy in TWENTY_TWO])
        labels = torch.zeros(len(model.images), dtype=torch.bool)
        model.fit_support(model.images, copies, labels, torch.arange(len(model.images)))
        model._samples, model._owners = [], model._owners[:0]  # whose they are is not restored


def embedding(maps: Maps) -> Float[Tensor, "image position channel"]:
    """Maps of all stages side by side on the grid of the first, by repetition."""
    size = maps[0].shape[2:]
    enlarged = [F.interpolate(one, size=size, mode="nearest") for one in maps]
    return torch.cat(enlarged, dim=1).flatten(2).transpose(1, 2)


def as_unit(distance: Tensor, channels: int) -> Tensor:
    """Distances in [0, 1): 1/2 at the square root of the channels, about that of a sample."""
    return distance / (distance + math.sqrt(channels))
