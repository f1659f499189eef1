"""DRA's computation: images to what four heads say, and their losses."""

from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from anomalib_medclip.baselines.common.network_model import NetworkModel
from anomalib_medclip.baselines.common.pixels import Pixels
from anomalib_medclip.baselines.dra.losses import MARGIN, Prior, deviation_loss
from anomalib_medclip.baselines.dra.network import DRANetwork, HeadScores, top_mean
from anomalib_medclip.baselines.dra.references import References
from anomalib_medclip.baselines.dra.training_images import PSEUDO, SEEN
from anomalib_medclip.components.anomaly_map import to_map, unit_interval
from anomalib_medclip.components.losses import LossTerms, without_masks
from anomalib_medclip.components.model import ModelOutput

Features = list[Float[Tensor, "batch width height across"]]
"""The trunk's last maps, scale by scale."""


class PatchScores(NamedTuple):
    """What the heads that have a place say of positions, each scale by scale.

    Attributes:
        seen: See ``HeadScores``.
        pseudo: Likewise.
        residual: Likewise.
    """

    seen: list[Float[Tensor, "batch height across"]]
    pseudo: list[Float[Tensor, "batch height across"]]
    residual: list[Float[Tensor, "batch height across"]]


class DRAModel(NetworkModel):
    """A trunk that trains, its four heads, and the normal images that the last one compares with.

    Args:
        clip: How images enter.
        network: What trains.
        top_share: Part of the positions whose mean is an image's score.
    """

    has_memory: ClassVar[bool] = True

    def __init__(self, clip: Pixels, network: DRANetwork, top_share: float) -> None:
        super().__init__(clip)
        self.network, self.top_share = network, top_share
        self.references = References(network.scales)

    def score(
        self,
        encoded: Float[Tensor, "batch 3 side side"],
        text: Tensor,
        leave_out: Int[Tensor, "batch"] | None = None,
    ) -> ModelOutput:
        """Score images that are normalised already; see ``ClipModel``.

        Raises:
            NotReadyError: There are no references, or none but those to leave out.
        """
        del text
        features = self.network.features(encoded)
        patches = self.patch_scores(features, self.references(leave_out))
        heads = self.head_scores(features, patches)
        score = heads.seen + heads.pseudo + heads.residual - heads.normality
        heat = torch.stack([self._mean_map(one) for one in patches]).sum(dim=0)
        return ModelOutput(_unit(score), _unit(heat))

    def loss_terms(
        self,
        encoded: Float[Tensor, "all 3 side side"],
        masks: Float[Tensor, "batch 1 side side"] | None,
        labels: Int[Tensor, "batch"],
        text: Tensor,
    ) -> LossTerms:
        """Deviation loss of each head; see ``ClipModel``.

        Args:
            encoded: Images of the batch, behind the references; if there are none, the batch is
                compared with itself.
            masks: Of no meaning.
            labels: 0 normal, 1 abnormal, 2 pseudo anomaly.
            text: Of no meaning.
        """
        del masks, text
        features = self.network.features(encoded)
        count = len(encoded) - len(labels)
        means = [(one[:count] if count else one).mean(dim=0) for one in features]
        features = [one[count:] for one in features]
        heads = self.head_scores(features, self.patch_scores(features, means))
        losses = [
            deviation_loss(scores, target, self.prior()) for scores, target in routed(heads, labels)
        ]
        return without_masks(torch.stack(losses))

    prior = staticmethod(Prior.drawn)

    def patch_scores(self, features: Features, references: Features) -> PatchScores:
        """What the heads say of positions.

        Args:
            features: Of images.
            references: Mean of those compared with, for all images alike or for each.
        """
        missing = [mean - one for mean, one in zip(references, features, strict=True)]
        network = self.network
        return PatchScores(
            [network.seen(one) for one in features],
            [network.pseudo(one) for one in features],
            [network.residual(one) for one in missing],
        )

    def head_scores(self, features: Features, patches: PatchScores) -> HeadScores:
        """What the heads say of images: the mean over scales."""
        normality = torch.stack([self.network.normality(one) for one in features]).mean(dim=0)
        of_patches = (
            torch.stack([top_mean(one, self.top_share) for one in scores]).mean(dim=0)
            for scores in patches
        )
        return HeadScores(normality, *of_patches)

    @torch.no_grad()
    def fit_support(
        self,
        support: Float[Tensor, "image 3 side side"],
        copies: Float[Tensor, "copy normal 3 side side"],
        labels: Tensor,
        owners: Int[Tensor, "image"],
    ) -> None:
        """Keep what the trunk says of the normal images."""
        del support
        trains = self.network.training
        self.network.eval()  # training ends with this, in the middle of an epoch
        found = [self.network.features(one) for one in copies[0].split(8)]
        self.network.train(trains)
        of_scales = [torch.cat(parts) for parts in zip(*found, strict=True)]
        self.references.fill(of_scales, owners[~labels])

    def level_maps(
        self, encoded: Float[Tensor, "batch 3 side side"], text: Tensor
    ) -> dict[str, Float[Tensor, "level batch side side"]]:
        """What each head says at each scale, on the scale of the sum."""
        del text
        patches = self.patch_scores(self.network.features(encoded), self.references())
        return {
            name: _unit(torch.stack([self._map(one) for one in scores]))
            for name, scores in patches._asdict().items()
        }

    def _mean_map(self, scores: list[Tensor]) -> Float[Tensor, "batch side side"]:
        return torch.stack([self._map(one) for one in scores]).mean(dim=0)

    def _map(
        self, scores: Float[Tensor, "batch height across"]
    ) -> Float[Tensor, "batch side side"]:
        return to_map(scores.flatten(1).unsqueeze(-1), self.clip.size, corners=False)[:, 0]


def routed(
    heads: HeadScores, labels: Int[Tensor, "batch"]
) -> list[tuple[Float[Tensor, "some"], Float[Tensor, "some"]]]:
    """Scores and targets of each head, of the images that it learns from."""
    abnormal = (labels != 0).float()
    known, made = labels != PSEUDO, labels != SEEN
    return [
        (heads.normality, 1 - abnormal),
        (heads.seen[known], abnormal[known]),
        (heads.pseudo[made], abnormal[made]),
        (heads.residual, abnormal),
    ]


def _unit(scores: Tensor) -> Tensor:
    """Scores in (0, 1): training brings normal images to -5, and abnormal ones to 5 to 15."""
    return unit_interval(scores, MARGIN, 2 * MARGIN)
