"""A baseline whose epoch has a number of training images, however many there are."""

import torch
from anomalib.data import ImageBatch
from torch import Tensor

from anomalib_medclip.baselines.common.baseline import Baseline
from anomalib_medclip.data.batch import MedicalBatch


class Redrawn(Baseline):
    """What has the option ``draws``: training images of an epoch.

    Images of the support come again until there are about so many, all of them equally often.
    Where a baseline learns from all normal images of training, each comes once an epoch, and
    epochs may have to be fewer.
    """

    @property
    def copies(self) -> int:
        """How often each training image comes."""
        data, samples = self.data, getattr(self.data.support_data, "samples", None)
        if samples is None or (data.trains_on_split and not self.wants_abnormal):
            return 1
        learnt = len(samples) if self.wants_abnormal else int((samples["label_index"] == 0).sum())
        return max(1, round(int(self.hparams["draws"]) / max(learnt, 1)))

    def examples(self, batch: ImageBatch) -> tuple[Tensor, Tensor | None, Tensor]:
        """What a batch teaches: images that come again are the same."""
        if isinstance(batch, MedicalBatch) and batch.copy is not None:
            batch.copy = torch.zeros_like(batch.copy)
        return super().examples(batch)
