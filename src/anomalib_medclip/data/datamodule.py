"""A table of samples becomes what anomalib trains, validates and tests on."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pandas import DataFrame
from torchvision.tv_tensors import Image

from anomalib_medclip.data.batch import MedicalDataset
from anomalib_medclip.data.cases import Case
from anomalib_medclip.data.drawing import heat_map_problems
from anomalib_medclip.data.draws import DrawnSupport, untested_problems
from anomalib_medclip.data.few_shot import (
    UNUSED,
    count_support,
    left_for_validation,
    patients,
    warn_of_few,
)
from anomalib_medclip.data.folds import others_of, without_patients
from anomalib_medclip.data.integrity import (
    Problem,
    check_patients,
    class_problems,
    file_problems,
    refuse,
    warn,
)
from anomalib_medclip.data.loaders import OneSetLoaders
from anomalib_medclip.data.model_needs import needs_of
from anomalib_medclip.data.model_problems import model_problems
from anomalib_medclip.data.slicing import Slicing
from anomalib_medclip.data.support_words import say_support
from anomalib_medclip.readers.intensity import IntensityPolicy
from anomalib_medclip.readers.left_out import LeftOut, warn_of
from anomalib_medclip.readers.lesion import LesionLabels, MaskLabels
from anomalib_medclip.readers.lesion_number import LesionNumber
from anomalib_medclip.readers.picture import read_image, read_lesion
from anomalib_medclip.terminal.screen import under_anomalib


class MedicalDataModule(DrawnSupport, OneSetLoaders):
    """Few-shot medical data: a support of K normal and K abnormal images, validation, test.

    A method that learns from both classes (it says so by ``wants_abnormal``) trains on the support;
    any other model of anomalib is given normal images only, so that all can be compared on the
    same data. Support images are never validation or test images.

    Where only the test split holds abnormal images, nothing is taken from it: the support is of K
    normal images, thresholds are of such alone, and a method that wants abnormal ones is refused.

    A subclass implements ``load_table``, and sets the attributes that are not as they are here.

    Args:
        k_shot: Number of support images of each class.
        seed: Seed of the draw of the support, and of splits made here.
        support_list: File that names the support images; then ``k_shot`` and ``seed`` do not count.
        support_line: Which of the alternatives of that file.
        normals: What models of normal images train on: the support's, or all of the training split.
        intensity: What to do with images of more than 8 bits; see ``readers.picture``.
        lesion_labels: Which numbers of masks are lesions, or ``all`` but 0, where there are more.
        ignore_labels: Which numbers of masks mean that nobody knows, such as ``[255]``. Pixels that
            they mark count in no loss and in no figure; masks of normal images may have some, too.
        train_batch_size: Images a training batch; by default what the model prefers, else 8.
        eval_batch_size: Images a validation or test batch.
        num_workers: Processes that read images, at most one a core; none for the support.

    Attributes:
        data_name: Name in results; as a folder in every path it keeps names of pictures apart.
        object_name: Words for the prompt of the images that are tested.
        has_masks: Whether their lesions are outlined.
        lesion_labels, mask_labels: What the numbers of a mask mean, where the data say so.
        root: Folder that holds the files; reports and fingerprints name them from there.
        slicing: How volumes are cut into the images, where they are slices.
        zero_shot: Whether the table has images of other sets to train on, and there is no support.
        published_test: Whether the test split is kept even if support patients are in it.
        support_data: The support, un-augmented; ``None`` in a zero-shot setting.
        support_counts: How many images and patients it has of each class; see ``count_support``.
        validates_on_support: Whether too few other images are left: ``val_data`` is the support.
        only_normals: Whether there is no abnormal image outside the test split.
        normal_only: Whether there is none anywhere, and that is meant.
        left_out: Files below the folders of these data that are not taken, once they are listed.
        in_files: Whether every image is a file; slices of volumes are not.
        stacks: Whether a patient's images are one stack, numbered at the end of their names.
    """

    object_name: str = ""
    has_masks: bool = False
    lesion_labels: LesionLabels | None = None
    root: Path = Path()
    slicing: Slicing | None = None
    published_test: bool = False
    in_files: bool = True
    stacks: bool = False
    normal_only: bool = False
    left_out: Sequence[LeftOut] = ()

    def __init__(
        self,
        k_shot: int = 4,
        seed: int = 0,
        support_list: Path | str | None = None,
        support_line: int = 0,
        normals: Literal["support", "train"] = "support",
        intensity: IntensityPolicy = None,
        lesion_labels: LesionLabels | None = None,
        ignore_labels: tuple[int, ...] = (),
        train_batch_size: int | None = None,
        eval_batch_size: int = 16,
        num_workers: int = 4,
    ) -> None:
        under_anomalib()
        super().__init__(train_batch_size, eval_batch_size, num_workers, seed)
        self.k_shot, self.draw_seed = k_shot, seed
        self.support_list, self.support_line, self.normals = support_list, support_line, normals
        self.intensity, self._asked_batch_size = intensity, train_batch_size
        if lesion_labels is not None:
            self.lesion_labels = lesion_labels if lesion_labels == "all" else tuple(lesion_labels)
        self.mask_labels = MaskLabels(self.lesion_labels, tuple(ignore_labels))
        self._met: dict[str, LesionNumber] = {}
        self.support_data: MedicalDataset | None = None
        self.support_counts: dict[str, dict[str, int]] = {}
        self.validates_on_support = self.only_normals = False

    @abstractmethod
    def load_table(self) -> DataFrame:
        """List all samples.

        Returns:
            Table with the columns ``image_path``, ``label_index`` (0 normal, 1 abnormal) and
            ``split`` (train, valid, test; rows of split ``support`` are taken as the support), and
            where they apply ``mask_path`` (where the mask is, or should be), ``group`` (patient),
            ``volume`` (whose slice it is), ``of_ill`` (whether that has a lesion, be it in no slice
            that counts), ``object_name``, ``has_masks`` and ``set_name``.
        """

    @property
    def has_ignored(self) -> bool:
        """Whether masks may say of pixels that nobody knows."""
        return self.has_masks and bool(self.mask_labels.ignored)

    def list_images(self) -> DataFrame:
        """List all samples that these data name; splits, if they are made here, may be lacking."""
        return self.load_table()

    @property
    def object_names(self) -> list[str]:
        """All words for the prompt that training and test need, those of the tested set first."""
        return [self.object_name]

    def setup(self, stage: str | None = None) -> None:
        """Read the table, and choose what the model at hand is trained, validated and tested on.

        Raises:
            MedclipError: The data have faults, or do not go with the model; see ``model_problems``.
        """
        super().setup(stage)
        if self.trainer is not None:
            refuse(model_problems(self, self.trainer, stage))

    def _setup(self, _stage: str | None = None) -> None:
        table = self.complete(self.load_table())
        refuse(self.file_problems(table[table["split"] != UNUSED]))
        warn_of(self.left_out)
        splits = self.split(table)
        refuse(self.split_problems(splits))
        self.test_data = self._dataset(splits["test"])
        if self.zero_shot:
            self._sources, self.val_data = splits, self._dataset(splits["valid"])
            return
        support = splits["support"] = self.find_support(splits)
        check_patients(splits, self.published_test, self.where)
        rest = left_for_validation(splits["valid"], support, self._labels_learnt)
        self._learn_from({**splits, "valid": rest, UNUSED: self._others_of(support, table)})
        say_support(self.where, self.support_counts)
        if self.only_normals or rest.empty:
            warn_of_few(self.where, len(self.val_data), self.only_normals, rest.empty)

    def _others_of(self, support: DataFrame, table: DataFrame) -> DataFrame:
        """Other images of the support's patients, which are not tested."""
        others = others_of(support, table)
        faults = [replace(one, severity="warning") for one in self.file_problems(others)]
        warn(faults)  # and nothing more, since no more is asked of these images than of a threshold
        wrong = others[["image_path", "mask_path"]].isin({one.file for one in faults})
        return others[~wrong.any(axis=1)]

    def _learn_from(self, splits: dict[str, DataFrame]) -> None:
        """Take support, training and validation from these rows; lacking others, validate on it."""
        self._sources = splits
        self.support_data = self._dataset(splits["support"], in_memory=True)
        self.support_counts = count_support(splits["support"])
        rest = splits["valid"]
        self.val_data = self.support_data if rest.empty else self._dataset(rest)
        self.validates_on_support = rest.empty

    def split(self, table: DataFrame) -> dict[str, DataFrame]:
        """Rows of each split; ``support`` is empty where it is yet to be drawn."""
        abnormal = table[table["split"] != "test"]["label_index"] == 1
        self.only_normals = not (self.zero_shot or abnormal.any())
        names = ("train", "valid", "test", "support")
        return {name: table[table["split"] == name] for name in names}

    def split_problems(self, splits: dict[str, DataFrame]) -> Iterator[Problem]:
        """What is wrong with the splits, before the support is found."""
        tested = (0,) if self.normal_only else (0, 1)
        yield from untested_problems(splits, self.where, tested)
        if self.in_files:  # anomalib's visualizer, whose names these are, opens nothing else
            yield from heat_map_problems(splits["test"], self.name, self.category)
        if self.zero_shot:
            yield from class_problems(splits["train"], "training", self.where)
            yield from class_problems(splits["valid"], "validation", self.where)

    def file_problems(self, table: DataFrame) -> Iterator[Problem]:
        """What is wrong with the files of a table, as far as training looks."""
        return file_problems(table, self.root, self.mask_labels)

    def find_problems(self) -> Iterator[Problem]:
        """Problems that only a kind of data can find, for ``check``; or only what is left out."""
        for one in self.left_out:
            yield Problem("file left out", str(one.path), one.said, one.remedy, "warning")

    def read_picture(self, path: str) -> Image:
        """One image of the table, ``(3, height, width)`` in [0, 1]."""
        return read_image(path, self.intensity)

    def read_lesion(self, sample: Mapping[str, Any]) -> NDArray[np.bool_]:
        """Where the mask of a row marks a lesion, ``(height, width)``, at the image's own size."""
        return read_lesion(sample["mask_path"], self.mask_labels)

    def cases(self) -> list[Case]:
        """The volumes whose slices the images are, by path; none where images are files."""
        return []

    def _dataset(
        self, table: DataFrame, copies: int = 1, in_memory: bool = False
    ) -> MedicalDataset:
        return MedicalDataset(table, self.intensity, copies, in_memory, self.mask_labels, self._met)

    def complete(self, table: DataFrame) -> DataFrame:
        """Add the columns that a subclass need not give."""
        defaults: dict[str, str | bool] = {
            "mask_path": "", "group": "", "volume": "", "of_ill": False,
            "object_name": self.object_name, "has_masks": self.has_masks,
            "set_name": self.category or self.name,
        }  # fmt: skip
        table = table.reset_index(drop=True)
        return table.assign(**{name: v for name, v in defaults.items() if name not in table})

    def find_support(self, splits: dict[str, DataFrame]) -> DataFrame:
        """Rows of split ``support``, or else drawn from a split that has the classes learnt.

        That is training, if it holds abnormal images, or if no split but test does; else
        validation. Published splits may share patients; those of test are drawn last.
        """
        labels = self._labels_learnt
        if len(splits["support"]):
            refuse(class_problems(splits["support"], "support", self.where, labels))
            return splits["support"]
        pool = "train" if (splits["train"]["label_index"] == labels[-1]).any() else "valid"
        refuse(class_problems(splits[pool], pool, self.where, labels))
        return self.choose_support(splits[pool], avoid=set(patients(splits["test"])))

    def support_folds(self, count: int | None) -> list["MedicalDataModule"]:
        """As ``count`` data, or one a patient, each with others of the support to validate alone.

        They are fewer where patients are few, and none where no patient can be left out.
        """
        folds = without_patients(self._sources, count, self.draw_seed, self._labels_learnt)
        return [self._on(splits) for splits in folds]

    def _on(self, splits: dict[str, DataFrame]) -> "MedicalDataModule":
        """These data, set up to learn from other rows; test images are the same."""
        other = copy(self)
        other._learn_from(splits)
        other._is_setup = True  # else anomalib would have the table read again
        return other

    def _create_test_split(self) -> None:
        """Nothing to do: the table says which images are for test, and which for validation."""

    _create_val_split = _create_test_split

    def _update_augmentations(self) -> None:
        """Choose training images for the model at hand, and give every dataset its resize.

        anomalib calls this at each stage, so one datamodule can serve several models in turn.
        """
        needs = needs_of(self.trainer)
        self.train_batch_size = self._asked_batch_size or needs.default_batch_size or 8
        self.train_data = self._training_data(needs.wants_abnormal, needs.copies)
        super()._update_augmentations()
        if self.support_data is not None:
            self.support_data.augmentations = self.val_data.augmentations

    def _training_data(self, wants_abnormal: bool, copies: int) -> MedicalDataset:
        from_train = self.zero_shot or (self.normals == "train" and not wants_abnormal)
        source = self._sources["train" if from_train else "support"]
        if not wants_abnormal:
            remedy = "add some, or set normals to support (--data.normals)"
            refuse(class_problems(source, "training", self.where, (0,), remedy))
            source = source[source["label_index"] == 0]
        return self._dataset(source, copies, in_memory=not from_train)
