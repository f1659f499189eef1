"""Volumes straight into training: NIfTI files, DICOM series, folders of slices."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pandas import DataFrame
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torchvision.tv_tensors import Image, Mask

from anomalib_medclip.cache import TensorCache
from anomalib_medclip.data.batch import MedicalDataset, SliceDataset
from anomalib_medclip.data.cases import (
    Case,
    Labels,
    VolumeSource,
    check_sources,
    find_cases,
    read_label_table,
)
from anomalib_medclip.data.datamodule import MedicalDataModule
from anomalib_medclip.data.integrity import (
    Problem,
    problem_of,
    refuse,
    volume_mask_problems,
    warn,
    with_name,
)
from anomalib_medclip.data.not_taken import not_taken
from anomalib_medclip.data.slice_places import SlicePlace, place_of
from anomalib_medclip.data.slicing import Plane, Sliced, Slicing, cut
from anomalib_medclip.data.voxel_transforms import TransformSpec, build_transforms
from anomalib_medclip.errors import EmptySplitError, MaskError, MedclipError, MissingMaskError
from anomalib_medclip.files import MISSING, fault_of
from anomalib_medclip.option_checks import checked
from anomalib_medclip.readers.left_out import LeftOut
from anomalib_medclip.readers.lesion import LESION
from anomalib_medclip.readers.lesion_number import LesionNumber

logger = logging.getLogger(__name__)


class Volumes(MedicalDataModule):
    """Slices of volumes: a support of K normal and K abnormal ones, validation, test.

    A slice is abnormal if its mask marks at least ``smallest_lesion`` pixels, and left out if it
    marks fewer; or as a table of labels says. Slices that show nothing are left out, too. Slices
    are kept as they are read, exactly, in memory up to a budget and then on disk. Patients are
    kept apart as in ``MedicalFolder``.

    Args:
        root: Folder that the patterns start from.
        sources: Where the volumes are, and their masks.
        table: CSV file or JSON lines of labels, for sources without masks, with the columns
            ``image`` (path below the root), ``label`` (0 or 1) and, unless it is the same for all
            slices of a volume, ``slice`` (number along the cut, from 0).
        plane: How volumes are cut.
        slices: First and last slice along the cut, both included, counted from 0 from the feet,
            the back or the right; by default all.
        spacing: Millimetres between rows, columns and slices to resample to; by default none.
        organ_margin: Pixels left around an organ that is cropped to.
        transforms: MONAI transforms of your own, by ``class_path`` and ``init_args``, that volumes
            pass before they are cut, once their voxels are in [0, 1].
        smallest_lesion: Pixels below which a slice with a lesion counts for nothing.
        splits: Split of each patient, such as ``{"TCGA-01": "train"}``; else by ``{split}`` in the
            patterns; else the support is drawn from all, and the rest split by patients.
        val_ratio: Part of the slices for validation, where there are no splits.
        uneven: Take DICOM series with missing, doubled or uneven slices as they come.
        dicom_where: Values of DICOM attributes by which to choose one of several volumes of a
            series, such as ``{"EchoNumbers": 2}``.
        cache_memory: GB of memory for slices; the rest goes to disk.
        object_name: Words for the prompt, such as ``"brain"``.
        name: Name of the data set in results; by default that of the root folder.
        **kwargs: Options of ``MedicalDataModule``; ``intensity`` is how voxels reach [0, 1], and
            ``num_workers`` does not count.

    Attributes:
        slicing: How the volumes are cut, which scoring uses again.
    """

    in_files = False
    slicing: Slicing

    def __init__(
        self,
        root: Path | str,
        sources: list[VolumeSource],
        table: Path | str | None = None,
        plane: Plane = "axial",
        slices: tuple[int, int] | None = None,
        spacing: tuple[float, float, float] | None = None,
        organ_margin: int = 0,
        transforms: list[TransformSpec] | None = None,
        smallest_lesion: int = 1,
        splits: dict[str, str] | None = None,
        val_ratio: float = 0.2,
        uneven: bool = False,
        dicom_where: dict[str, str | int | float] | None = None,
        cache_memory: float = 2.0,
        object_name: str = "medical image",
        name: str | None = None,
        **kwargs: Any,  # noqa: ANN401 - passed on
    ) -> None:
        super().__init__(**kwargs)
        self.num_workers = 0  # slices come from the cache of this process
        self.root = with_name(root)
        self.data_name = name or self.root.name
        self.sources = sources
        self.table = table
        self.smallest_lesion = smallest_lesion
        self.splits = splits
        self.val_ratio = checked("val_ratio", val_ratio, 0, 1)
        self.uneven = uneven
        self.dicom_where = dicom_where
        self.object_name = object_name
        self.has_masks = any(source.mask for source in sources)
        organs = next((source.organ_labels for source in sources if source.organ_labels), None)
        own = tuple(transforms or ())
        if own:
            build_transforms(own)  # so that a wrong one is refused here
        self.slicing = Slicing(plane, spacing, organs, organ_margin, slices, own)
        self._cache = TensorCache(cache_memory)
        self._places: dict[str, tuple[Case, int, SlicePlace]] = {}
        self._listed: DataFrame | None = None
        self._problems: list[Problem] = []
        self._number = LesionNumber()
        check_sources(sources, has_labels=table is not None)

    def cases(self) -> list[Case]:
        """All volumes, by path; errors are those of ``find_cases``."""
        return find_cases(self.root, self.sources, self.splits)

    @property
    def has_ignored(self) -> bool:
        """Whether masks may say of voxels that nobody knows."""
        return any(one.mask and one.mask_labels(self.mask_labels).ignored for one in self.sources)

    def not_taken(self, cases: Sequence[Case]) -> list[LeftOut]:
        """What lies below the root besides these volumes."""
        table = Path(self.table) if self.table else None
        return not_taken(self.root, self.sources, cases, table)

    def cut(self, case: Case) -> Sliced:
        """Read one volume and cut it.

        Raises:
            MissingMaskError: Its mask is not there.
            MedclipError: It cannot be read; see ``anomalib_medclip.data.slicing.cut``.
        """
        if case.mask is not None and fault_of(case.mask) is MISSING:
            msg = (
                f"no mask for volume {case.image}: looked for {case.mask}; add it, or list the "
                "volume in a source that is healthy: a missing mask is no healthy patient"
            )
            raise MissingMaskError(msg)
        slicing = replace(self.slicing, organ_labels=case.source.organ_labels)
        return cut(
            case.image, self.intensity, slicing, case.mask,
            case.source.mask_labels(self.mask_labels), case.organ, self.uneven, self.dicom_where,
        )  # fmt: skip

    def labelled(self, case: Case, sliced: Sliced) -> Iterator[tuple[int, int]]:
        """Number and label of the slices of a volume that count.

        Raises:
            MaskError: A slice of one value is labelled abnormal.
        """
        for number in self.slicing.numbers(len(sliced.images)):
            label = self._label(case, sliced, number)
            if label == 1 and sliced.images[number].amin() == sliced.images[number].amax():
                msg = (
                    f"slice {number} of {case.image} is labelled abnormal, but shows nothing; "
                    "correct its mask or label"
                )
                raise MaskError(msg)
            if label is not None and sliced.shown[number]:
                yield number, label

    def list_images(self) -> DataFrame:
        """Read all volumes, keep their slices, and list them; once, however often it is asked.

        Raises:
            DataRootError: A pattern fits no volume, or a split or label is not known.
            EmptySplitError: No volume that can be read has a slice.
        """
        if self._listed is None:
            rows = []
            cases = self.cases()
            shown = Console(stderr=True)
            for case in track(cases, f"slicing {self.name}", transient=True, console=shown):
                try:
                    rows += self._keep(case)
                except MedclipError as error:
                    problem = problem_of(error, "unreadable volume", str(case.image))
                    self._problems.append(problem)
            if not rows:
                refuse(self._problems)
                msg = f"no volume of {self.root} has a slice in {self.slicing.slices}; correct it"
                raise EmptySplitError(msg)
            self._listed = DataFrame(rows)
            self.left_out = [*self.not_taken(cases), *self.left_out]
        return self._listed

    def load_table(self) -> DataFrame:
        """List all slices, and split them if they are not yet.

        Raises:
            MedclipError: See ``list_images`` and ``share_out``; or a volume or mask cannot be read.
        """
        table = self.list_images()
        refuse(self._problems)
        warn(self._problems)
        if "split" in table:
            return table
        return self.share_out(table, self.val_ratio)

    def find_problems(self) -> Iterator[Problem]:
        """Volumes that could not be read, and what belongs to none."""
        yield from super().find_problems()
        yield from self._problems

    def _keep(self, case: Case) -> list[dict[str, Any]]:
        """Cut a volume, keep its slices, and list them."""
        sliced = self.cut(case)
        self._number.meet(sliced.number, str(case.mask))
        if sliced.masks is not None:
            marks = sliced.masks.numpy()
            self._problems += volume_mask_problems(str(case.image), str(case.mask), marks)
        self.left_out = [*self.left_out, *sliced.left_out]
        rows, split = [], {"split": case.split} if case.split else {}
        for number, label in self.labelled(case, sliced):
            path = str(case.image / f"{self.slicing.plane}_{number:03d}.png")
            self._cache.fetch([path], partial(_stack, sliced, number))
            self._places[path] = case, number, place_of(sliced, number)
            rows.append({
                "image_path": path, "label_index": label, "mask_path": str(case.mask or ""),
                "group": case.patient, "volume": str(case.image), "has_masks": self.has_masks,
                "of_ill": bool(sliced.lesions.any()), **split,
            })  # fmt: skip
        if not rows and sliced.masks is None and not case.source.healthy:
            lost = LeftOut(case.image, "has no labelled slice in the table", "complete it")
            self.left_out = [*self.left_out, lost]
        return rows

    def read_picture(self, path: str) -> Image:
        """A slice, ``(3, height, width)`` in [0, 1]."""
        return self.read_slice(path)[0]

    def read_slice(self, path: str) -> tuple[Image, Mask]:
        """A slice as ``(3, height, width)`` in [0, 1], and its mask as ``(height, width)``.

        Slices are of the cache; one that no longer fits into it is read again with its volume.
        """

        def compute(missing: list[int]) -> Tensor:
            case, number, _ = self._places[path]
            return _stack(self.cut(case), number, missing)

        image, mask = self._cache.fetch([path], compute)[0]
        return Image(image.expand(3, -1, -1).contiguous()), Mask(mask.to(torch.uint8))

    def place_of(self, path: str) -> SlicePlace:
        """Where in its volume a slice is, to be drawn and named."""
        return self._places[path][2]

    def read_lesion(self, sample: Mapping[str, Any]) -> NDArray[np.bool_]:
        """Where the mask of a slice marks a lesion, ``(height, width)``."""
        return self.read_slice(sample["image_path"])[1].numpy() == LESION

    def _label(self, case: Case, sliced: Sliced, number: int) -> int | None:
        """0, 1, or ``None`` for a slice that counts for nothing."""
        if case.source.healthy:
            return 0
        if sliced.masks is not None:
            area = int(sliced.lesions[number].sum())
            return None if 0 < area < self.smallest_lesion else int(area > 0)
        name = case.image.relative_to(self.root).as_posix()
        return self._table_labels.get((name, number), self._table_labels.get((name, None)))

    @cached_property
    def _table_labels(self) -> Labels:
        """Labels by volume and slice."""
        names = {case.image.relative_to(self.root).as_posix() for case in self.cases()}
        return read_label_table(Path(self.table), names) if self.table else {}

    def file_problems(self, table: DataFrame) -> Iterator[Problem]:
        """None: every volume has been read whole."""
        del table
        yield from ()

    def _dataset(
        self, table: DataFrame, copies: int = 1, in_memory: bool = False
    ) -> MedicalDataset:
        return SliceDataset(table, self.read_slice, copies, in_memory)


def _stack(sliced: Sliced, number: int, _: list[int]) -> Tensor:
    """A slice and its mask, ``(1, 2, height, width)``."""
    image = sliced.images[number]
    mask = torch.zeros_like(image) if sliced.masks is None else sliced.masks[number].float()
    return torch.stack([image, mask])[None]
