"""Industrial images to learn from, MVTec AD and VisA, as anomalib lays them out."""

from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple

from anomalib.data import AnomalibDataModule, MVTecAD, Visa
from anomalib.data.datasets.image.mvtecad import CATEGORIES
from anomalib.data.datasets.image.visa import CATEGORIES as VISA_CATEGORIES
from pandas import DataFrame, concat

from anomalib_medclip.data.datamodule import MedicalDataModule
from anomalib_medclip.data.few_shot import split_by_patient
from anomalib_medclip.data.integrity import with_name
from anomalib_medclip.errors import DataRootError
from anomalib_medclip.files import is_folder
from anomalib_medclip.option_checks import checked
from anomalib_medclip.readers.listing import entries_of, is_picture, masks_for, rest_below


class IndustrialSet(NamedTuple):
    """What anomalib knows of a set.

    Attributes:
        datamodule: Which of anomalib's downloads it.
        folder: Where the categories are, below the root.
        categories: Names of the categories.
    """

    datamodule: type[AnomalibDataModule]
    folder: str
    categories: tuple[str, ...]


INDUSTRIAL_SETS = {
    "MVTecAD": IndustrialSet(MVTecAD, "", CATEGORIES),
    "Visa": IndustrialSet(Visa, "visa_pytorch", VISA_CATEGORIES),
}

_NO_PLACE = (
    "lies in none of the folders that images and masks are read from",
    "move it there, in the format of the others, if it should be read",
)


_ALL = "all"


class Industrial(MedicalDataModule):
    """A category of MVTec AD or VisA, or all, to learn from both normal and abnormal images.

    As published, abnormal images are only for test. The K abnormal support images are therefore
    drawn from the test split, and they and some validation images are not tested on; the K normal
    ones are drawn from the training split.

    Args:
        root: Folder of the set, as anomalib downloads it.
        dataset: Which set.
        category: Which category; its name, such as "metal nut", is what the prompt says. ``all`` is
            all of them as one set, of which it says "object".
        val_ratio: Part of the test split, without the support, that is for validation.
        download: Let anomalib download the set to ``root``, or sort VisA's images into folders, if
            that is not done.
        **kwargs: Options of ``MedicalDataModule``.
    """

    has_masks = True
    lesion_labels = "all"  # VisA numbers the kinds of defects

    def __init__(
        self,
        root: Path | str = "datasets/MVTecAD",
        dataset: Literal["MVTecAD", "Visa"] = "MVTecAD",
        category: str = "bottle",
        val_ratio: float = 0.2,
        download: bool = False,
        **kwargs: Any,  # noqa: ANN401 - passed on
    ) -> None:
        super().__init__(**kwargs)
        self.industrial_set = INDUSTRIAL_SETS[dataset]
        categories = self.industrial_set.categories
        if category not in (*categories, _ALL):
            there = ", ".join((*categories, _ALL))
            msg = f"{dataset} has no category {category!r}; it has {there}"
            raise DataRootError(msg)
        self.root = with_name(root)
        self.data_name = self.root.name
        self.category = category
        self.categories = categories if category == _ALL else (category,)
        named = category.replace("_", " ").rstrip("1234")
        self.object_name = "object" if category == _ALL else named
        self.val_ratio = checked("val_ratio", val_ratio, 0, 1)
        self.download = download

    @property
    def folders(self) -> list[Path]:
        """Where the images of each category are."""
        return [self.root / self.industrial_set.folder / name for name in self.categories]

    def prepare_data(self) -> None:
        """Have anomalib download the set, if that was asked for and it is not there."""
        if self.download and not all(folder.is_dir() for folder in self.folders):
            # Of any category it has all.
            options: dict[str, Any] = {"root": self.root, "category": self.categories[0]}
            self.industrial_set.datamodule(**options).prepare_data()

    def list_images(self) -> DataFrame:
        """List the images, split as published."""
        table = DataFrame([row for folder in self.folders for row in self._read(folder)])
        taken = [*table["image_path"], *filter(None, table["mask_path"])]
        self.left_out = [
            one for folder in self.folders for one in rest_below(folder, taken, *_NO_PLACE)
        ]
        return table

    def load_table(self) -> DataFrame:
        """List the images; those of the test split that are learnt from leave it.

        Raises:
            DataRootError: The images or masks of a category are not there.
        """
        table = self.list_images()
        learnt = (table["split"] == "train") | (table["label_index"] == 1)
        support = self.choose_support(table[learnt])
        rest = table.drop(support.index)
        train, others = rest[rest["split"] == "train"], rest[rest["split"] == "test"]
        valid, test = split_by_patient(others, self.val_ratio, self.draw_seed)
        parts = {"support": support, "train": train, "valid": valid, "test": test}
        return concat([part.assign(split=split) for split, part in parts.items()])

    def _read(self, folder: Path) -> list[dict[str, Any]]:
        """All images of a category."""
        homes = [home for split in ("test", "train") for home in entries_of(folder / split)]
        rows = [row for home in homes if is_folder(home) for row in _rows(home)]
        for split, label in (("train", 0), ("test", 0), ("test", 1)):
            if not any((row["split"], row["label_index"]) == (split, label) for row in rows):
                home = folder / split / ("<defect>" if label else "good")
                raise _does_not_hold(folder, home, "has no image")
        return sorted(rows, key=itemgetter("image_path"))


def _rows(home: Path) -> Iterator[dict[str, Any]]:
    """The images of a folder of train or test, with the masks of defects."""
    category, split, label = home.parents[1], home.parent.name, int(home.name != "good")
    images = [path for path in entries_of(home) if is_picture(path)]
    masks = [""] * len(images)
    if split == "test" and label:
        masks = masks_for(images, home, category / "ground_truth" / home.name).paths
    for image, mask in zip(images, masks, strict=True):
        if label and not Path(mask).is_file():
            raise _does_not_hold(category, image, "has none")
        yield {
            "image_path": str(image), "label_index": label, "split": split,
            "mask_path": mask, "group": "",
        }  # fmt: skip


def _does_not_hold(category: Path, path: Path, said: str) -> DataRootError:
    msg = (
        f"{category} does not hold train/good, test/good, test/<defect> and, for every "
        f"image of a defect, a mask in ground_truth/<defect>: {path} {said}; correct "
        "--data.root or the files, or let anomalib download them by --data.download true"
    )
    return DataRootError(msg)
