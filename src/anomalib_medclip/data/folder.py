"""Anyone's images: two folders, or a CSV table."""

import csv
import io
import logging
from pathlib import Path
from typing import Any

from pandas import DataFrame, concat

from anomalib_medclip.data.datamodule import MedicalDataModule
from anomalib_medclip.data.few_shot import patients, read_utf8, split_by_patient
from anomalib_medclip.data.integrity import images_in, masks_for, with_name
from anomalib_medclip.errors import DataRootError

logger = logging.getLogger(__name__)

_SPLITS = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation"),
    "test": ("test", "testing"),
    "support": ("support",),
}
_NORMAL = ("0", "normal", "good", "healthy")
_ABNORMAL = ("1", "abnormal", "ungood", "anomalous")


class MedicalFolder(MedicalDataModule):
    """Your own images: a folder of normal and one of abnormal images, or a CSV table of them.

    Without a split column the support is drawn from all images, other images of its patients are
    set aside, and the rest is split patient by patient into validation and test. With one (train,
    valid, test), the support is drawn from the training split if that has both classes, else from
    validation; or it is the split called support. No patient of another split may be in test.

    Args:
        root: Folder that paths start from; by default that of the table.
        table: CSV file with a header; otherwise ``normal_dir`` and ``abnormal_dir`` are read.
        normal_dir: Folder of normal images, below ``root``.
        abnormal_dir: Folder of abnormal images, below ``root``.
        mask_dir: Folder of masks with the names of the abnormal images, below ``root``. Without
            masks the method is trained on labels alone.
        image_column: Column of image paths.
        label_column: Column of labels: 0 or normal, 1 or abnormal.
        normal_labels: Other labels that mean normal; then any other label means abnormal.
        mask_column: Column of mask paths; that of a normal image is empty, or its mask is.
        patient_column: Column of patients.
        unknown_patient: What that column says where the patient is unknown, besides nothing; such
            an image is its own patient.
        split_column: Column of splits.
        val_ratio: Part of the images for validation, where there is no split column.
        object_name: Words for the prompt, such as ``"breast ultrasound"``.
        name: Name of the data set in results; by default that of the root folder.
        **kwargs: Options of ``MedicalDataModule``.
    """

    def __init__(
        self,
        root: Path | str | None = None,
        table: Path | str | None = None,
        normal_dir: str = "normal",
        abnormal_dir: str = "abnormal",
        mask_dir: str | None = None,
        image_column: str = "image",
        label_column: str = "label",
        normal_labels: list[str] | None = None,
        mask_column: str | None = None,
        patient_column: str | None = None,
        unknown_patient: str | None = None,
        split_column: str | None = None,
        val_ratio: float = 0.2,
        object_name: str = "medical image",
        name: str | None = None,
        **kwargs: Any,  # noqa: ANN401 - passed on
    ) -> None:
        super().__init__(**kwargs)
        if root is None and table is None:
            msg = "MedicalFolder needs data: give --data.root, or --data.table for a CSV file"
            raise DataRootError(msg)
        self.root = with_name(Path(table or "").parent if root is None else root)
        self.data_name = name or self.root.name
        self.table = table
        self.folders = (normal_dir, abnormal_dir, mask_dir)
        self.columns = {
            "image": image_column,
            "label": label_column,
            "mask": mask_column,
            "patient": patient_column,
            "split": split_column,
        }
        self._refuse_stray_options()
        self.normal_labels = normal_labels
        self.unknown_patient = unknown_patient
        self.val_ratio = val_ratio
        self.object_name = object_name
        self.has_masks = bool(mask_dir or mask_column)

    def _refuse_stray_options(self) -> None:
        """Refuse options that belong to the other way of giving data."""
        if self.table is not None and self.folders[2] is not None:
            msg = f"mask_dir {self.folders[2]!r} is for folders; for a table, give mask_column"
            raise DataRootError(msg)
        for meaning in ("mask", "patient", "split"):
            if self.table is None and self.columns[meaning] is not None:
                msg = f"{meaning}_column {self.columns[meaning]!r} needs a table: give --data.table"
                raise DataRootError(msg)

    def load_table(self) -> DataFrame:
        """List all images, and split them if they are not yet.

        Raises:
            DataRootError: A folder, table or column does not exist, or a cell or the encoding is
                not understood.
        """
        table = self._read_folders() if self.table is None else self._read_table(Path(self.table))
        return table if self.columns["split"] else self._split(table)

    def _read_folders(self) -> DataFrame:
        rows: list[dict[str, Any]] = []
        for label, folder in enumerate(self.folders[:2]):
            images = images_in(self.root / str(folder))
            if not images:
                msg = (
                    f"no images in {self.root / str(folder)}; correct --data.root and "
                    f"--data.{('normal_dir', 'abnormal_dir')[label]}"
                )
                raise DataRootError(msg)
            masks = [""] * len(images)
            if label == 1 and self.folders[2]:
                masks = masks_for(images, self.root / self.folders[2])
            rows += [
                {"image_path": str(image), "label_index": label, "mask_path": mask, "group": ""}
                for image, mask in zip(images, masks, strict=True)
            ]
        return DataFrame(rows)

    def _read_table(self, path: Path) -> DataFrame:
        cells = self._read_cells(path)
        if not all(cells["image"] or [""]):
            msg = f"table {path} has no rows, or a row without image; complete it"
            raise DataRootError(msg)
        unknown = ("", self.unknown_patient)
        columns = {
            "image_path": [self._path(cell) for cell in cells["image"]],
            "label_index": [self._label(cell) for cell in cells["label"]],
            "mask_path": [self._path(cell) for cell in cells["mask"]],
            "group": ["" if cell in unknown else cell for cell in cells["patient"]],
        }
        if self.columns["split"]:
            columns["split"] = [self._split_name(cell) for cell in cells["split"]]
        return DataFrame(columns)

    def _read_cells(self, path: Path) -> dict[str, list[str]]:
        """Columns for image, label, mask, patient and split; empty cells for those without."""
        if not path.is_file():
            msg = f"no table {path}; correct --data.table"
            raise DataRootError(msg)
        reader = csv.DictReader(io.StringIO(read_utf8(path)))
        rows = list(reader)
        there = list(reader.fieldnames or [])
        for meaning, column in self.columns.items():
            if column is not None and column not in there:
                msg = (
                    f"table {path} has no column {column!r} but {', '.join(there)}; say which "
                    f"holds the {meaning} by --data.{meaning}_column"
                )
                raise DataRootError(msg)
        return {
            meaning: [(row.get(column or "") or "").strip() for row in rows]
            for meaning, column in self.columns.items()
        }

    def _path(self, cell: str) -> str:
        return str(self.root / cell) if cell else ""

    def _label(self, cell: str) -> int:
        if self.normal_labels and cell:
            return int(cell not in self.normal_labels)
        if cell.lower() in _NORMAL + _ABNORMAL:
            return int(cell.lower() in _ABNORMAL)
        msg = (
            f"label {cell!r} in table {self.table} is neither {' nor '.join(_NORMAL + _ABNORMAL)}; "
            "name those that mean normal by --data.normal_labels"
        )
        raise DataRootError(msg)

    def _split_name(self, cell: str) -> str:
        for split, words in _SPLITS.items():
            if cell.lower() in words:
                return split
        msg = f"split {cell!r} in table {self.table} is none of {', '.join(_SPLITS)}; correct it"
        raise DataRootError(msg)

    def _split(self, table: DataFrame) -> DataFrame:
        """Support, validation and test, no patient in two of them."""
        support = self.choose_support(table)
        rest = table.drop(support.index)
        strangers = rest[~patients(rest).isin(patients(support))]
        if len(strangers) < len(rest):
            logger.info(
                "%d images of %s are set aside: their patients are in the support",
                len(rest) - len(strangers),
                self.where,
            )
        valid, test = split_by_patient(strangers, self.val_ratio, self.draw_seed)
        parts = {"support": support, "valid": valid, "test": test}
        return concat([part.assign(split=split) for split, part in parts.items()])
