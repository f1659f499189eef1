"""How each patient moves the figures of pixels, from his counts between some thresholds.

The figures themselves are exact and come from ``ranked``. What a patient adds to their error is
taken from counts between thresholds a thousandth of either rate apart: right to about a hundredth,
which no interval shows, and one more pass over the maps instead of one for each patient.
"""

import tempfile
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from anomalib_medclip.errors import MetricError
from anomalib_medclip.metrics import rank_figures
from anomalib_medclip.metrics.images import FloatArray
from anomalib_medclip.metrics.influence import Influence, by_leaving_out
from anomalib_medclip.metrics.pairs import pairs, regions_of
from anomalib_medclip.metrics.tallies import Tally

_IN_MEMORY = 1 << 28
"""Bytes of maps and masks beyond which they go to a file without a name."""

_COUNTS = 3_000_000
"""Patients times steps, so that their counts stay below 150 MB."""


class _Image(NamedTuple):
    """Where an image lies in the file, and whose it is."""

    patient: str
    shape: tuple[int, ...]
    has_ignored: bool


class PatientPixels:
    """Maps and masks of a test, kept until thresholds are known, then counted by patient.

    A pixel takes 4 bytes and one bit, or two where an image has ignored ones, in memory up to 268
    MB, then on disk.
    """

    def __init__(self) -> None:
        self._images: list[_Image] = []
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - kept

    def add(
        self,
        maps: Tensor,
        masks: Tensor,
        patients: Sequence[str],
        ignored: Tensor | None = None,
    ) -> None:
        """Keep the maps of a batch, its masks of 0 and 1, whose each is, and what is ignored.

        Raises:
            MetricError: A score is not finite, shapes differ, or the disk is full.
        """
        for at, (patient, one, mask) in enumerate(zip(patients, maps, masks, strict=True)):
            scores, abnormal = pairs(one, mask)
            hidden = None if ignored is None or not ignored[at].any() else ignored[at].cpu().numpy()
            try:
                self._file.write(scores.tobytes())
                self._file.write(np.packbits(abnormal).tobytes())
                if hidden is not None:
                    self._file.write(np.packbits(hidden).tobytes())
            except OSError as error:
                msg = (
                    f"cannot write maps to {tempfile.gettempdir()}: {error}; let TMPDIR name a "
                    "folder with 5 bytes a pixel"
                )
                raise MetricError(msg) from error
            self._images.append(_Image(patient, tuple(mask.shape[-2:]), hidden is not None))

    @property
    def steps(self) -> int:
        """Steps of either rate that its counts have room for."""
        patients = len({image.patient for image in self._images})
        return min(1000, max(50, _COUNTS // max(1, patients)))

    def influences(
        self, thresholds: npt.NDArray[np.float32], limit: float = 0.3
    ) -> Mapping[str, Influence]:
        """Influence of every patient on ``AUROC``, ``AP`` and ``AUPRO``.

        On AUROC in the closed form, on the others by leaving out one patient at a time.

        Args:
            thresholds: Ascending, of ``RankMetric.thresholds``.
            limit: Highest rate of false alarms of AUPRO.

        Raises:
            MetricError: Fewer than two patients have abnormal pixels.
        """
        table = self._counted(thresholds)
        if np.count_nonzero(table.images[:, 1]) < 2:
            msg = "lesions of one patient say nothing of others'; add patients with lesions"
            raise MetricError(msg)
        total, regions = table.counts.sum(axis=1), int(table.regions.sum())
        whole = _figures(total, regions, limit)
        without = [
            _figures(total - table.counts[:, place], regions - int(table.regions[place]), limit)
            for place in range(len(table.patients))
        ]
        found = {
            name: by_leaving_out(
                whole[name], np.array([one[name] for one in without]), table.patients, table.images
            )
            for name in ("AP", "AUPRO")
        }
        parts = _placed(table.counts, total, whole["AUROC"])
        return {"AUROC": Influence(whole["AUROC"], table.patients, parts, table.images), **found}

    def _counted(self, thresholds: npt.NDArray[np.float32]) -> "_Counts":
        """Go through all images once more."""
        patients = tuple(sorted({image.patient for image in self._images}))
        place = {name: at for at, name in enumerate(patients)}
        bins = len(thresholds) + 1
        counts = np.zeros((3, len(patients), bins))
        images = np.zeros((len(patients), 2), dtype=np.int64)
        regions = np.zeros(len(patients), dtype=np.int64)
        self._file.seek(0)
        for image in self._images:
            at, size = place[image.patient], int(np.prod(image.shape))
            scores = np.frombuffer(self._file.read(4 * size), dtype=np.float32)
            abnormal = self._bits(size)
            normal = ~(abnormal | self._bits(size)) if image.has_ignored else ~abnormal
            images[at] += [normal.any(), abnormal.any()]
            # Sorting many and looking thresholds up is far faster than looking up each.
            below = np.searchsorted(np.sort(scores[normal]), thresholds)
            counts[0, at] += np.diff(below, prepend=0, append=np.count_nonzero(normal))
            if abnormal.any():
                number = regions_of(torch.from_numpy(abnormal.reshape(image.shape)))
                sizes = np.bincount(number)
                regions[at] += len(sizes)
                ill = np.searchsorted(thresholds, scores[abnormal], side="right")
                counts[1, at] += np.bincount(ill, minlength=bins)
                counts[2, at] += np.bincount(ill, 1 / sizes[number], minlength=bins)
        return _Counts(patients, counts, images, regions)

    def _bits(self, size: int) -> npt.NDArray[np.bool_]:
        packed = np.frombuffer(self._file.read((size + 7) // 8), dtype=np.uint8)
        return np.unpackbits(packed, count=size).astype(bool)


class _Counts(NamedTuple):
    patients: tuple[str, ...]
    counts: FloatArray
    """``[normal, abnormal, overlap; patient; bin]``; an abnormal pixel overlaps its region by one
    over the region's pixels."""
    images: npt.NDArray[np.int64]
    """``[patient, class]``: images with pixels of the class."""
    regions: npt.NDArray[np.int64]


def _figures(counts: FloatArray, regions: int, limit: float) -> dict[str, float]:
    """Figures of the counts ``[normal, abnormal, overlap; bin]``, what shares a bin being tied."""
    normal, abnormal = (int(one) for one in counts[:2].sum(axis=1))
    equal = np.rint(counts[0]).astype(np.int64)
    below = np.cumsum(equal) - equal
    here = np.flatnonzero(counts[1] > 0.5)
    scores = here.astype(np.float32)
    ill = np.rint(counts[1]).astype(np.int64)
    tally = Tally(scores, ill[here], equal[here], below[here])
    overlap = tally._replace(abnormal=counts[2][here] / regions)
    return {
        "AUROC": rank_figures.auroc([tally], normal, abnormal),
        "AP": rank_figures.average_precision([tally], normal, abnormal),
        "AUPRO": rank_figures.region_overlap([overlap], normal, limit),
    }


def _placed(counts: FloatArray, total: FloatArray, value: float) -> FloatArray:
    """What each patient's pixels add to AUROC, ``[patient, class]``."""
    normal, abnormal = total[0], total[1]
    below = (np.cumsum(normal) - normal / 2) / normal.sum()
    above = 1 - (np.cumsum(abnormal) - abnormal / 2) / abnormal.sum()
    of_normal = counts[0] @ (above - value) / normal.sum()
    of_abnormal = counts[1] @ (below - value) / abnormal.sum()
    return np.stack([of_normal, of_abnormal], axis=1)
