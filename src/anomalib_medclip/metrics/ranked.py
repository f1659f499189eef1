"""Figures of ranks as metrics for anomalib's ``Evaluator``, of images and of pixels.

Images: ``AUROC(fields=["pred_score", "gt_label"], prefix="image_")``. Pixels:
``AUROC(fields=["anomaly_map", "gt_mask"], prefix="pixel_", strict=False)``. Where a post-processor
has kept a model's own scores beside the normalised ones, they are ranked: normalised ones can tie.

torchmetrics' own take scores outside [0, 1] for logits, batch by batch, which reorders them, and
keep every score several times. These do neither: any finite scores, at 4 bytes a pixel.
"""

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from anomalib.metrics import AnomalibMetric
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

from anomalib_medclip.devices import most_exact
from anomalib_medclip.errors import MetricError
from anomalib_medclip.metrics import rank_figures
from anomalib_medclip.metrics.gathering import gathered
from anomalib_medclip.metrics.known_pixels import ignored_of
from anomalib_medclip.metrics.pairs import pairs, regions_of
from anomalib_medclip.metrics.raw import raw
from anomalib_medclip.metrics.score_store import ScoreStore

logger = logging.getLogger(__name__)


class RankMetric(Metric):
    """A figure that depends on the order of scores only; NaN, with a warning, without both classes.

    Scores are taken as float32, in which models give them, at 4 bytes each; normal and abnormal
    pixels of equal score are ties. The state is in no ``state_dict``. Under several processes
    ``compute`` gathers the scores of all, in memory and on disk as ever, so that a process then
    holds twice ``memory``; ``dist_sync_on_step`` is without effect.

    Args:
        memory: GB of memory for scores; what exceeds them goes to disk, and the figure stays exact.
        scores_of: Another metric of the same fields and evaluator, whose scores this one reads; it
            then keeps none of its own. An ``AUPRO`` serves all others, but reads only its own.
        **options: As any torchmetrics metric takes.

    Raises:
        MetricError: A score is not finite, a label neither 0 nor 1, or their shapes differ; or the
            metric of ``scores_of`` cannot serve, or has not seen the same batches.
    """

    full_state_update = True
    higher_is_better = True
    is_differentiable = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0
    keeps_regions = False

    fields: Sequence[str] = ()  # of a batch, where the metric is anomalib's

    def __init__(
        self,
        memory: float = 1.0,
        scores_of: "RankMetric | None" = None,
        **options: Any,  # noqa: ANN401 - torchmetrics'
    ) -> None:
        super().__init__(**options)
        self.memory = memory
        # In a tuple, so that it is no part of this module.
        self._source = () if scores_of is None else (scores_of,)
        self._check_source()
        self._store = self._new_store()
        self._of_all: ScoreStore | None = None  # the scores of all processes, while they are needed

    def update(self, preds: Tensor, target: Tensor, ignored: Tensor | None = None) -> None:
        """Add scores and labels of one shape, apart from axes of length one.

        Args:
            preds: Scores.
            target: 0 for normal, 1 for abnormal.
            ignored: True where the label is not known, which is then 0, and the score left out.
        """
        if not self._source:
            self._add(preds, target, ignored)

    def _add(self, preds: Tensor, target: Tensor, ignored: Tensor | None = None) -> None:
        scores, abnormal = pairs(preds, target, ignored)
        self._store.add(scores, abnormal, regions_of(target) if self.keeps_regions else None)

    def compute(self) -> Tensor:
        """Figure of all scores so far, on the processor; in float64, if the metric's device has it.

        Lightning moves what it has logged to that device.
        """
        store = self._of_all or self._read()
        missing = {"normal": store.normal, "abnormal": store.abnormal}
        if not all(missing.values()):
            kinds = " and ".join(kind for kind, count in missing.items() if not count)
            logger.warning("%s is undefined: no %s score came", type(self).__name__, kinds)
            return torch.tensor(torch.nan, dtype=most_exact(self.device))
        return torch.tensor(self._figure(store), dtype=most_exact(self.device))

    def curve(self, steps: int = 200) -> rank_figures.Curve:
        """ROC and precision-recall curves of the scores of this process; see ``rank_figures``.

        Raises:
            MetricError: There are no scores of one class.
        """
        store = self._both_classes()
        return rank_figures.curve(store.tallies(), store.normal, store.abnormal, steps)

    def thresholds(self, steps: int = 1000) -> npt.NDArray[np.float32]:
        """Scores between which the curve of so many steps moves by one; see ``curve``."""
        store = self._both_classes()
        return rank_figures.thresholds(store.tallies(), store.normal, store.abnormal, steps)

    def _both_classes(self) -> ScoreStore:
        store = self._read()
        if not store.normal or not store.abnormal:
            msg = "a curve needs normal and abnormal scores; test on both"
            raise MetricError(msg)
        return store

    def reset(self) -> None:
        """Forget all scores."""
        super().reset()
        self._store, self._of_all = self._new_store(), None

    def forward(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as torchmetrics has it
        """Add a batch, and return the figure of this batch alone."""
        if self._source:
            msg = "a metric with scores_of has no batch of its own; call update, then compute"
            raise MetricError(msg)
        self.update(*args, **kwargs)
        kept, count, self._store = self._store, self._update_count, self._new_store()
        try:
            type(self).update(self, *args, **kwargs)
            value = type(self).compute(self)
        finally:
            self._store, self._update_count = kept, count
        self._forward_cache: Any = value
        return value

    def _figure(self, store: ScoreStore) -> float:
        """Value for a store that holds both classes."""
        raise NotImplementedError

    def _new_store(self) -> ScoreStore:
        return ScoreStore(int(self.memory * 1e9), regions=self.keeps_regions)

    def _sync_dist(
        self,
        dist_sync_fn: Callable[..., list[Tensor]] = gather_all_tensors,
        process_group: Any = None,  # noqa: ANN401 - torch's
    ) -> None:
        """Gather the scores of all processes, where torchmetrics gathers its states."""

        def gather(array: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
            sent = torch.from_numpy(array).to(self.device)
            found = dist_sync_fn(sent, group=process_group or self.process_group)
            return [one.cpu().numpy() for one in found]

        own = self._read()
        self._of_all = gathered(own, own.empty(), gather)

    def unsync(self, should_unsync: bool = True) -> None:
        """Go back to the scores of this process."""
        super().unsync(should_unsync)
        if should_unsync:
            self._of_all = None

    def _check_source(self) -> None:
        """Refuse what cannot serve, before a test has run."""
        for source in self._source:
            if source._source or (self.keeps_regions and not source.keeps_regions):
                msg = "scores_of wants a metric with scores of its own, for AUPRO another AUPRO"
                raise MetricError(msg)
            fields = [list(metric.fields) for metric in (self, source)]
            if fields[0] != fields[1]:
                msg = (
                    f"scores_of has fields {fields[1]}, not {fields[0]}; give a metric of the same"
                )
                raise MetricError(msg)

    def _read(self) -> ScoreStore:
        """Scores of this process."""
        for source in self._source:
            if source.update_count != self.update_count:
                msg = (
                    f"the metric of scores_of has seen {source.update_count} batches and this one "
                    f"{self.update_count}; put both into the same evaluator"
                )
                raise MetricError(msg)
            return source._store
        return self._store


class _AUROC(RankMetric):
    def _figure(self, store: ScoreStore) -> float:
        return rank_figures.auroc(store.tallies(), store.normal, store.abnormal)


class _AveragePrecision(RankMetric):
    def _figure(self, store: ScoreStore) -> float:
        return rank_figures.average_precision(store.tallies(), store.normal, store.abnormal)


class _F1Max(RankMetric):
    threshold = math.nan

    def _figure(self, store: ScoreStore) -> float:
        found = rank_figures.f1_max(store.tallies(), store.normal, store.abnormal)
        self.threshold = found.threshold
        return found.value


class _SpecificityAtSensitivity(RankMetric):
    threshold = math.nan

    def __init__(self, sensitivity: float = 0.95, **options: Any) -> None:  # noqa: ANN401
        _check_rate("sensitivity", sensitivity)
        super().__init__(**options)
        self.sensitivity = sensitivity

    def _figure(self, store: ScoreStore) -> float:
        found = rank_figures.specificity_at_sensitivity(
            store.tallies(), store.normal, store.abnormal, self.sensitivity
        )
        self.threshold = found.threshold
        return found.value


class _AUPRO(RankMetric):
    keeps_regions = True

    def __init__(self, fpr_limit: float = 0.3, **options: Any) -> None:  # noqa: ANN401
        _check_rate("fpr_limit", fpr_limit)
        super().__init__(**options)
        self.fpr_limit = fpr_limit

    def _figure(self, store: ScoreStore) -> float:
        sizes = np.concatenate(store.region_sizes)
        tallies = store.tallies(weights=1 / (sizes * len(sizes)))
        return rank_figures.region_overlap(tallies, store.normal, self.fpr_limit)


class _OfBatches(AnomalibMetric, RankMetric):
    """A figure of the scores of batches, as the model gave them, without ignored pixels."""

    leaves_out_ignored = True

    def update(self, batch: Any, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]  # noqa: ANN401
        """Add scores and labels of a batch."""
        kept = raw(batch)
        kwargs["ignored"] = ignored_of(batch, self.fields)
        super().update(batch if kept is None else kept, *args, **kwargs)


class AUROC(_OfBatches, _AUROC):
    """Area under the ROC curve, ties counted one half. Options: see ``RankMetric``."""


class AveragePrecision(_OfBatches, _AveragePrecision):
    """Area under precision against recall, in steps, as scikit-learn's. Options: ``RankMetric``."""


class F1Max(_OfBatches, _F1Max):
    """Highest F1 of any threshold, an optimistic figure: the threshold is chosen on these scores.

    ``threshold`` is the lowest score called abnormal, once computed. Options: see ``RankMetric``.
    """


class SpecificityAtSensitivity(_OfBatches, _SpecificityAtSensitivity):
    """Highest specificity of the thresholds that find ``sensitivity`` (0.95) of the abnormal.

    ``threshold`` is the lowest score called abnormal, once computed. Options: see ``RankMetric``.
    """


class AUPRO(_OfBatches, _AUPRO):
    """Mean overlap with each region of the masks, over false alarms up to ``fpr_limit`` (0.3).

    Every lesion counts the same, however large. Regions are connected by sides and corners, each
    image (the last two axes) for itself. The area is divided by the limit, so that 1 is the best.
    An abnormal pixel takes 8 bytes. Further options: see ``RankMetric``.
    """


def _check_rate(name: str, rate: float) -> None:
    if not 0 < rate <= 1:
        msg = f"{name} is {rate}; give a number above 0 and up to 1"
        raise MetricError(msg)
