"""What a step of DRA's training sees: a fixed mixture of normal, seen and pseudo anomalies."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from anomalib_medclip.baselines.dra.pseudo_anomalies import pseudo_anomaly, turned

NORMAL, SEEN, PSEUDO = 0, 1, 2
"""Labels of training images."""


class TrainingBatch(NamedTuple):
    """Images of a step.

    Attributes:
        images: RGB in [0, 1]: first the references, then those that have a label.
        labels: ``NORMAL``, ``SEEN`` or ``PSEUDO``.
    """

    images: Float[Tensor, "all 3 side side"]
    labels: Int[Tensor, "labelled"]


class Walk:
    """Numbers below a count, in one random order after another.

    Args:
        count: From 1.
        random: Where chance comes from.
    """

    def __init__(self, count: int, random: np.random.Generator) -> None:
        self._count, self._random = count, random
        self._left: list[int] = []

    def take(self, number: int) -> list[int]:
        """The next ones."""
        while len(self._left) < number:
            self._left += self._random.permutation(self._count).tolist()
        taken, self._left = self._left[:number], self._left[number:]
        return taken


class TrainingImages:
    """The images that are mixed, in memory.

    Args:
        normal: RGB in [0, 1].
        abnormal: Likewise; there may be none.
        outliers: Images of other kinds, to be the pseudo anomalies; with none, these are made of
            normal images.
    """

    def __init__(
        self,
        normal: Float[Tensor, "normal 3 side side"],
        abnormal: Float[Tensor, "abnormal 3 side side"],
        outliers: Float[Tensor, "outlier 3 side side"],
    ) -> None:
        self.normal, self.abnormal, self.outliers = normal, abnormal, outliers
        self.begin(np.random.default_rng(0))

    def begin(self, random: np.random.Generator) -> None:
        """Begin an epoch, with chance of its own."""
        self._random = random
        self._normals = Walk(len(self.normal), random)
        self._references = Walk(len(self.normal), random)
        self._abnormals = Walk(max(len(self.abnormal), 1), random)

    def draw(self, count: int, references: int) -> TrainingBatch:
        """The images of a step.

        Args:
            count: Images with a label: a third of them seen anomalies, if there are any. Of the
                others each is, with probability 1/2, a pseudo anomaly, made of any normal image.
            references: How many references; of these, too, half are pseudo anomalies on average,
                since the authors' code draws them by the same rule.
        """
        seen = count // 3 if len(self.abnormal) else 0
        drawn = [self._normal_or_pseudo(number) for number in self._references.take(references)]
        images, labels = [image for image, _ in drawn], []
        for number in self._normals.take(count - seen):
            image, label = self._normal_or_pseudo(number)
            images.append(image)
            labels.append(label)
        images += [self.abnormal[number] for number in self._abnormals.take(seen)]
        labels += [SEEN] * seen
        turned_images = [turned(image, self._random) for image in images]
        return TrainingBatch(torch.stack(turned_images), torch.tensor(labels))

    def _normal_or_pseudo(self, number: int) -> tuple[Float[Tensor, "3 side side"], int]:
        if self._random.random() < 0.5:
            return self.normal[number], NORMAL
        if len(self.outliers):
            return self.outliers[self._random.integers(len(self.outliers))], PSEUDO
        other = self.normal[self._random.integers(len(self.normal))]
        return pseudo_anomaly(other, self._random), PSEUDO
