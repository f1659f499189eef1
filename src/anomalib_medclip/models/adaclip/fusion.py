"""The class token of an image, mixed with its most abnormal patches (hybrid semantic fusion)."""

import warnings
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

FusionKind = Literal["clusters", "mean", "none"]
"""What is mixed with the class token: the mean of the centres of clusters, of patches, nothing."""


class Fusion(nn.Module):
    """From patches and class token to the feature that the image score is made of.

    Args:
        kind: What is mixed.
        clusters: Number of clusters (K); 5 K patches are taken.
        weight: Weight of the patches; that of the class token is the rest to 1.
        seed: Seed of the clusters, for every image anew.
    """

    def __init__(
        self, kind: FusionKind = "clusters", clusters: int = 20, weight: float = 0.2, seed: int = 0
    ) -> None:
        super().__init__()
        self.kind, self.clusters, self.weight, self.seed = kind, clusters, weight, seed

    def forward(
        self,
        token: Float[Tensor, "batch embed_dim"],
        patches: Float[Tensor, "level batch patch embed_dim"],
        score: Float[Tensor, "batch patch"],
    ) -> Float[Tensor, "batch embed_dim"]:
        """The feature of each image, L2-normalised.

        Args:
            token: Its class token, L2-normalised.
            patches: Its patches, each L2-normalised.
            score: How abnormal each of them is.
        """
        if self.kind == "none":
            return token
        centre = self.centre(patches, score)
        return F.normalize(self.weight * centre + (1 - self.weight) * token, dim=-1)

    def centre(
        self,
        patches: Float[Tensor, "level batch patch embed_dim"],
        score: Float[Tensor, "batch patch"],
    ) -> Float[Tensor, "batch embed_dim"]:
        """Centre of the most abnormal patches over all levels, L2-normalised."""
        chosen = self.chosen(score)
        index = chosen[None, :, :, None].expand(len(patches), -1, -1, patches.shape[-1])
        features = patches.gather(2, index).movedim(0, 2)
        if self.kind == "mean":
            return F.normalize(features.mean(dim=(1, 2)), dim=-1)
        labels = self.labels(features.detach().flatten(2)).to(score.device)
        members = F.one_hot(labels, self.clusters).to(score.dtype)
        sizes = members.sum(dim=1)
        means = members.transpose(1, 2) @ features.mean(dim=2) / sizes.clamp(min=1)[..., None]
        # Clusters that are empty, of which there are some where patches are alike, add nothing.
        return F.normalize(means.sum(dim=1), dim=-1)

    def chosen(self, score: Float[Tensor, "batch patch"]) -> Int[Tensor, "batch chosen"]:
        """Numbers of the most abnormal patches; all, where there are not so many."""
        return score.topk(min(score.shape[1], 5 * self.clusters), dim=1).indices

    def labels(self, features: Float[Tensor, "batch chosen value"]) -> Int[Tensor, "batch chosen"]:
        """Number of the cluster of each patch, by one run of k-means++ from the seed."""
        from sklearn.cluster import KMeans  # takes a second, and not every fusion needs it
        from sklearn.exceptions import ConvergenceWarning

        found = []
        count = min(self.clusters, features.shape[1])
        for image in features.float().cpu().numpy():
            with warnings.catch_warnings():
                # Patches that are alike make fewer clusters, and empty ones are left out.
                warnings.simplefilter("ignore", ConvergenceWarning)
                means = KMeans(count, n_init=1, random_state=self.seed).fit(image)
            found.append(means.labels_.astype(np.int64))
        return torch.from_numpy(np.stack(found))
