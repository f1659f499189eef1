"""Anyone's images: two folders, or tables."""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pandas import DataFrame

from anomalib_medclip.data.class_folders import ClassFolders, read_folders
from anomalib_medclip.data.datamodule import MedicalDataModule
from anomalib_medclip.data.integrity import Problem, warn, with_name
from anomalib_medclip.data.labels import label_of
from anomalib_medclip.data.names_on_disk import NamesOnDisk
from anomalib_medclip.data.patients import first_spellings, is_unknown
from anomalib_medclip.data.tables import TableRow, read_rows, split_name
from anomalib_medclip.errors import DataRootError
from anomalib_medclip.files import MISSING, fault_of, is_folder
from anomalib_medclip.option_checks import checked
from anomalib_medclip.readers.left_out import LeftOut
from anomalib_medclip.readers.listing import entries_of, rest_below

logger = logging.getLogger(__name__)

_OF_TABLES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".yaml", ".yml")
"""Endings of tables, configs and lists of support images, which lie beside tables."""


class MedicalFolder(MedicalDataModule):
    """Your own images: a folder of normal and one of abnormal images, or tables of them.

    Where no splits are given the support is drawn from all images, so that both classes are left to
    other patients, whose images are split by patient into validation and test; other images of its
    own patients are set aside. Where splits are given, by a column or a table each (train, valid,
    test), the support is drawn from the training split if that has both classes, else from
    validation; or it is the split called support. No patient of another split may be in test.

    Args:
        root: Folder that paths start from; by default that of the table, or of the first.
        table: CSV file with a header, or JSON (``.json``, ``.jsonl``): a list, or an object a line,
            its keys being the columns; or a file for each split: ``{train: a.json, test: b.json}``.
            Otherwise ``normal_dir`` and ``abnormal_dir`` are read.
        normal_dir: Folder of normal images, below ``root``; folders in it are looked into.
        abnormal_dir: Folder of abnormal images, below ``root``.
        normal_only: Say that there are no abnormal images; one that is found is an error. Then
            methods that learn from normal images alone train, their threshold is the highest score
            of other normal images, and a test says nothing of abnormal ones.
        mask_dir: Folder of masks with the names of the abnormal images, below ``root``; it may be
            that of the images, if the names say mask. Without masks the method is trained on labels
            alone.
        patient_folders: Whether folders below the two are patients: of one patient are the images
            below folders of one name. Without, each image is its own patient. There is a warning
            where they may well be none: some images lie in no such folder, or most in one.
        image_column: Column of image paths. This and every other column may be a pattern of
            columns, such as ``"{disease}/{file_name}.jpg"``.
        label_column: Column of labels: 0, normal or false; 1, abnormal or true.
        normal_labels: Other labels that mean normal; then any other label means abnormal, but those
            that say nothing (empty, nan, unknown, ?, -1), which are an error.
        train_label: Label of every image of a table for training that has no labels; ``normal``.
        mask_column: Column of mask paths; that of a normal image is empty, or its mask is.
        patient_column: Column of patients; case, blanks and the zeros of a fraction do not count.
        unknown_patient: What that column says where the patient is unknown, besides nothing and
            what programs write for it (nan, NA, None, null); such an image is its own patient.
        split_column: Column of splits.
        val_ratio: Part of the images for validation, where there is no split column.
        object_name: Words for the prompt, such as ``"breast ultrasound"``.
        name: Name of the data set in results; by default that of the root folder.
        **kwargs: Options of ``MedicalDataModule``.
    """

    def __init__(
        self,
        root: Path | str | None = None,
        table: dict[str, str] | Path | str | None = None,
        normal_dir: str = "normal",
        abnormal_dir: str = "abnormal",
        normal_only: bool = False,
        mask_dir: str | None = None,
        patient_folders: bool = True,
        image_column: str = "image",
        label_column: str = "label",
        normal_labels: list[str | int] | None = None,
        train_label: str | None = None,
        mask_column: str | None = None,
        patient_column: str | None = None,
        unknown_patient: str | int | None = None,
        split_column: str | None = None,
        val_ratio: float = 0.2,
        object_name: str = "medical image",
        name: str | None = None,
        **kwargs: Any,  # noqa: ANN401 - passed on
    ) -> None:
        super().__init__(**kwargs)
        if root is None and table is None:
            msg = "MedicalFolder needs data: give --data.root, or --data.table for a table"
            raise DataRootError(msg)
        self.tables = _by_split(table)
        first = next(iter(self.tables.values()), Path())
        self.root = with_name(first.parent if root is None else root)
        self.data_name = name or self.root.name
        self.folders = ClassFolders(normal_dir, abnormal_dir, mask_dir)
        self.patient_folders = patient_folders
        self._assumed: list[Problem] = []
        self._names = NamesOnDisk()
        self.columns = {
            "image": image_column,
            "label": label_column,
            "mask": mask_column,
            "patient": patient_column,
            "split": split_column,
        }
        self.train_label = train_label
        self.only_normals = self.normal_only = normal_only
        self._refuse_stray_options()
        self.normal_labels = [str(one) for one in normal_labels or ()]
        self.unknown = "" if unknown_patient is None else str(unknown_patient)
        self.val_ratio = checked("val_ratio", val_ratio, 0, 1)
        self.object_name = object_name
        self.has_masks = bool(mask_dir or mask_column)

    def _refuse_stray_options(self) -> None:
        """Refuse options that belong to the other way of giving data, or to abnormal images."""
        if self.normal_only and (self.folders.mask_dir or self.columns["mask"]):
            msg = "normal_only says that there are no lesions; leave out mask_dir and mask_column"
            raise DataRootError(msg)
        if self.tables and self.folders.mask_dir is not None:
            msg = (
                f"mask_dir {self.folders.mask_dir!r} is for folders; for a table, give mask_column"
            )
            raise DataRootError(msg)
        for meaning in ("mask", "patient", "split"):
            if not self.tables and self.columns[meaning] is not None:
                msg = f"{meaning}_column {self.columns[meaning]!r} needs a table: give --data.table"
                raise DataRootError(msg)
        if self.columns["split"] and "" not in self.tables:
            msg = f"split_column {self.columns['split']!r} is for one table, not for one a split"
            raise DataRootError(msg)
        if self.train_label is not None and "train" not in self.tables:
            msg = f"train_label {self.train_label!r} needs a table for training: --data.table.train"
            raise DataRootError(msg)

    def list_images(self) -> DataFrame:
        """List all images, with their splits if these are given.

        Raises:
            DataRootError: A folder, table or column does not exist, or a cell or the encoding is
                not understood.
        """
        table = self._read_tables() if self.tables else self._read_folders()
        if self.normal_only and (abnormal := table[table["label_index"] == 1]["image_path"]).any():
            msg = f"{abnormal.iloc[0]} is abnormal, and these data have normal images only; leave "
            msg += "out normal_only (--data.normal_only)"
            raise DataRootError(msg)
        return table

    def load_table(self) -> DataFrame:
        """List all images, and split them if they are not yet.

        Raises:
            DataRootError: See ``list_images``.
            SupportError: The support cannot be drawn.
            EmptySplitError: No draw leaves images of every class for the test.
        """
        table = self.list_images()
        warn(self._assumed)
        if "split" in table:
            return table
        return self.share_out(table, self.val_ratio)

    def split_problems(self, splits: dict[str, DataFrame]) -> Iterator[Problem]:
        """What is wrong with the splits; patients may be none, where they are known by folders."""
        for one in super().split_problems(splits):
            yield replace(one, remedy=one.remedy + self.patients_doubted)

    def find_problems(self) -> Iterator[Problem]:
        """What is left out, and folders that may well be no patients."""
        yield from super().find_problems()
        yield from self._assumed

    def _doubts(self, table: DataFrame) -> Iterator[Problem]:
        """Folders that are taken for patients, where most images are in one, or some in none."""
        for label, folder in enumerate(self.folders[:2]):
            groups = table[table["label_index"] == label]["group"]
            counts = groups[groups != ""].value_counts()
            inside, most = int(counts.sum()), max(counts, default=0)
            if 0 < inside < len(groups) or most > len(groups) / 2:
                folders = f"{len(counts)} folder{'s' * (len(counts) > 1)}"
                said = (
                    f"has {inside} of {len(groups)} images in {folders}, taken for as many "
                    "patients, of whom none is in two splits"
                )
                remedy = "set --data.patient_folders false where folders are no patients"
                home = str(self.root / folder)
                yield Problem("folder taken for a patient", home, said, remedy, "warning")

    def _read_folders(self) -> DataFrame:
        table, self.left_out = read_folders(
            self.root, self.folders, not self.normal_only, self.has_ignored
        )
        if not self.patient_folders:
            return table.assign(group="")
        self._assumed = list(self._doubts(table))
        if count := len({*table["group"]} - {""}):
            said = ", or set --data.patient_folders false where folders are no patients"
            self.patients_doubted = said
            logger.info(
                "%d folders below %s and %s are taken for patients, which is switched off by "
                "--data.patient_folders false", count, *self.folders[:2],
            )  # fmt: skip
        return table

    def _read_tables(self) -> DataFrame:
        rows = [(row, split) for split in self.tables for row in self._rows(split)]
        self._check_columns([row for row, _ in rows])
        table = DataFrame([self._sample(row, split) for row, split in rows])
        table["group"] = first_spellings(table["group"])
        named = [*table["image_path"], *filter(None, table["mask_path"])]
        self.left_out = list(self._not_named(named))
        return table

    def _not_named(self, named: Sequence[str]) -> Iterator[LeftOut]:
        """What lies below the root, or beside named files elsewhere, and is in no table."""
        homes = {with_name(table).parent for table in self.tables.values()}
        beside = [path for home in homes for path in entries_of(home)]
        taken = [*named, *(str(path) for path in beside if path.suffix.lower() in _OF_TABLES)]
        why = "is named by no row of the table", "add a row for it"
        root = Path(os.path.realpath(self.root))
        is_whole = root.parent == root  # below which all of a machine lies
        if not is_whole:
            yield from rest_below(self.root, taken, *why)
        for folder in sorted({Path(os.path.realpath(path)).parent for path in named}):
            if is_folder(folder) and (is_whole or not folder.is_relative_to(root)):
                yield from rest_below(folder, taken, *why, deep=False)

    def _rows(self, split: str) -> list[TableRow]:
        """Rows of a table; those for training have the label that was given for all of them."""
        rows = read_rows(self._names.find(with_name(self.tables[split])))
        if split != "train" or self.train_label is None:
            return rows
        label = {str(self.columns["label"]): self.train_label}
        return [row._replace(cells={**label, **row.cells}) for row in rows]

    def _check_columns(self, rows: Sequence[TableRow]) -> None:
        """Refuse a row without image, label or split, and tables without any mask or patient."""
        for meaning, column in self.columns.items():
            lacking = [row for row in rows if column is not None and row.cell(column) is None]
            if lacking and (meaning in ("image", "label", "split") or len(lacking) == len(rows)):
                remedy = f"say which holds the {meaning} by --data.{meaning}_column"
                raise lacking[0].lacks(str(column), remedy)

    def _sample(self, row: TableRow, split: str) -> dict[str, Any]:
        """The row of one image, with the split of its table or, if there is a column, its own."""
        written, whole = (
            {
                of: row.cell(column, one) or "" if column else ""
                for of, column in self.columns.items()
            }
            for one in (False, True)
        )
        if not written["image"]:
            msg = f"{row.place} names no image; complete it"
            raise DataRootError(msg)
        sample = {
            "image_path": self._path(written["image"], whole["image"]),
            "label_index": label_of(written["label"], row.place, self.normal_labels),
            "mask_path": self._path(written["mask"], whole["mask"]),
            "group": "" if is_unknown(whole["patient"], self.unknown) else whole["patient"],
        }
        if self.columns["split"]:
            split = split_name(written["split"], row.place)
        return {**sample, "split": split} if split else sample

    def _path(self, written: str, whole: str) -> str:
        """The file of a cell or, where there is none, of one whose numbers are whole."""
        path = self._names.find(self.root / written)
        if whole != written and fault_of(path) is MISSING:
            other = self._names.find(self.root / whole)
            path = path if fault_of(other) else other
        return str(path) if written else ""


def _by_split(table: dict[str, str] | Path | str | None) -> dict[str, Path]:
    """The tables by split; one for all splits has none."""
    if table is None:
        return {}
    if not isinstance(table, dict):
        return {"": Path(table)}
    tables = {split_name(split, "--data.table"): Path(path) for split, path in table.items()}
    if len(tables) < len(table):
        msg = f"--data.table names a split twice among {', '.join(table)}; give one table a split"
        raise DataRootError(msg)
    return tables
