"""What a datamodule says of its images; anomalib's own do not know most of it."""

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
from anomalib import TaskType
from lightning import Trainer

logger = logging.getLogger(__name__)


def below(path: str | Path, folder: Path) -> str:
    """A path from a folder that it lies in, else the name alone: no file says where folders lie.

    >>> below("/data/hospital/p1/3.png", Path("/data/hospital")), below("/clip.pt", Path("/data"))
    ('p1/3.png', 'clip.pt')
    """
    whole = Path(os.path.normpath(Path(path).absolute()))
    return whole.relative_to(folder).as_posix() if whole.is_relative_to(folder) else whole.name


REFERENCES = 16
"""Normal images to compare with where nobody drew a support: the largest K of the papers."""


class DatamoduleView:
    """A datamodule of any making, with a default for whatever it does not have.

    Models and datamodules meet in plain attributes, and do not import each other. Those of this
    package have all that is read here; anomalib's, and none at all, have few.

    Args:
        datamodule: The trainer's, or ``None``.
    """

    def __init__(self, datamodule: Any) -> None:  # noqa: ANN401 - of any making
        self._datamodule = datamodule

    @classmethod
    def of(cls, trainer: Trainer | None) -> "DatamoduleView":
        """That of a trainer, which has none before it was given one."""
        return cls(getattr(trainer, "datamodule", None))

    @property
    def is_ours(self) -> bool:
        """Whether it says what this package asks; anomalib's do not."""
        return self._find("zero_shot", None) is not None

    @property
    def name(self) -> str:
        """What messages call it."""
        return str(self._find("name", None) or type(self._datamodule).__name__)

    @property
    def category(self) -> str:
        """Which of several sets of this name; empty for none."""
        return str(self._find("category", "") or "")

    def place_of(self, path: str) -> Any:  # noqa: ANN401 - a SlicePlace, which is the data's
        """Where in its volume an image is; ``None`` of what is no slice."""
        place_of = self._find("place_of", None)
        return None if place_of is None else place_of(path)

    @property
    def sets_learnt(self) -> list[str]:
        """Names of the sets that training images are of."""
        samples = getattr(self.train_data, "samples", None)  # a data set of anyone's making
        if samples is None or "set_name" not in samples:
            return [self.name]
        return sorted(set(map(str, samples["set_name"])))

    @property
    def sets_without_masks(self) -> list[str]:
        """Those of ``sets_learnt`` whose lesions are not outlined."""
        samples = getattr(self.train_data, "samples", None)  # likewise
        if samples is None or not {"set_name", "has_masks"} <= set(samples):
            return [] if self.has_masks or self.train_data is None else self.sets_learnt
        outlined = set(map(str, samples["set_name"][samples["has_masks"].astype(bool)]))
        return [name for name in self.sets_learnt if name not in outlined]

    @property
    def support_images(self) -> list[dict[str, Any]]:
        """Each image of the support: its path below the root, its label, its patient.

        A patient who is not known is an empty word. None where nobody drew a support.
        """
        samples = getattr(self.support_data, "samples", None)  # likewise
        if samples is None or "group" not in samples:
            return []
        root = Path(self._find("root", "") or "").absolute()
        rows = zip(samples["image_path"], samples["label_index"], samples["group"], strict=True)
        return [
            {"image": below(path, root), "label": int(label), "patient": str(patient)}
            for path, label, patient in rows
        ]

    @property
    def identity(self) -> int | None:
        """What tells it from another, where its images have a name; ``None`` where not."""
        return id(self._datamodule) if self.object_name else None

    @property
    def object_name(self) -> str:
        """What the images show; empty where it is not said.

        Of anomalib's datamodules it is the category, such as ``metal nut``, but no number.
        """
        category = str(self._find("category", "") or "").replace("_", " ")
        return str(self._find("object_name", None) or category.strip("0123456789 "))

    @property
    def object_names(self) -> set[str]:
        """What the images of all sets show that batches may come from."""
        return set(filter(None, self._find("object_names", ()) or ()))

    @property
    def has_masks(self) -> bool:
        """Whether lesions are outlined."""
        task = self._find("task", TaskType.CLASSIFICATION)
        return bool(self._find("has_masks", task == TaskType.SEGMENTATION))

    @property
    def zero_shot(self) -> bool:
        """Whether the images learnt from are of other sets than those to score."""
        return bool(self._find("zero_shot", False))

    @property
    def knows_intensity(self) -> bool:
        """Whether it says what is done with images of more than 8 bits, be it nothing."""
        return self._find("intensity", self) is not self

    @property
    def intensity(self) -> Any:  # noqa: ANN401 - an IntensityPolicy
        """What is done with images of more than 8 bits."""
        return self._find("intensity", None)

    @property
    def slicing(self) -> dict[str, Any] | None:
        """How volumes are cut into images, in plain values; ``None`` where they are not."""
        slicing = self._find("slicing", None)
        return slicing and slicing.as_plain()

    @property
    def support_data(self) -> Any:  # noqa: ANN401 - a data set
        """The images of both classes that a method learns from; ``None`` where nobody drew any."""
        return self._find("support_data", None)

    @property
    def train_data(self) -> Any:  # noqa: ANN401 - a data set
        """The images of training; ``None`` without a datamodule."""
        return self._find("train_data", None)

    def training_images(self, *, outlined: bool) -> dict[str, int]:
        """How many images of training have lesions outlined or, if not so asked, have not, by set.

        A normal image of a set with masks counts as outlined.
        """
        samples = getattr(self.train_data, "samples", None)  # likewise
        if samples is None or not len(samples):
            return {}
        if "has_masks" not in samples:
            return {self.name: len(samples)} if self.has_masks is outlined else {}
        names = samples["set_name"][samples["has_masks"].astype(bool) == outlined]
        return {str(name): int(count) for name, count in names.value_counts(sort=False).items()}

    @property
    def normals(self) -> list[int]:
        """Numbers of the training images that are normal; none where they are of other sets."""
        samples = getattr(self.train_data, "samples", None)  # likewise
        if self.zero_shot or samples is None:
            return []
        return [int(index) for index in np.flatnonzero(samples["label_index"] == 0)]

    @property
    def trains_on_split(self) -> bool:
        """Whether models of normal images are given all of the training split, not the support."""
        return bool(self._find("normals", "support") == "train")

    @property
    def trains_on_normals_alone(self) -> bool:
        """Whether the images of training are all normal, of whatever set they are."""
        samples = getattr(self.train_data, "samples", None)  # likewise
        return samples is not None and len(samples) > 0 and not any(samples["label_index"])

    @property
    def has_support(self) -> bool:
        """Whether there are images of the target to compare with: a support, or normal images."""
        return self.support_data is not None or bool(self.normals)

    def support_items(self) -> list[Any]:
        """The support; where nobody drew one, at most ``REFERENCES`` of the normal images.

        These are spread evenly over the table, in which images of a patient lie together.
        """
        if self.support_data is not None:
            return [self.support_data[index] for index in range(len(self.support_data))]
        return self._normal_items(REFERENCES)

    def compared_items(self, most: int) -> list[Any]:
        """What a memory is of: the support or, where models train on a split, its normal images.

        Args:
            most: How many these may be; of more, some are spread evenly over the table.
        """
        if self.support_data is None or not (self.trains_on_split and self.trains_on_normals_alone):
            return self.support_items()
        if most < (count := len(self.normals)):
            logger.warning(
                "images are compared with %d of the %d normal images of training", most, count
            )
        return self._normal_items(most)

    def _normal_items(self, most: int) -> list[Any]:
        normals = self.normals
        chosen = np.linspace(0, len(normals) - 1, min(most, len(normals))).round().astype(int)
        return [self.train_data[normals[index]] for index in chosen]

    @property
    def val_data(self) -> Any:  # noqa: ANN401 - a data set
        """The images of validation; ``None`` without a datamodule."""
        return self._find("val_data", None)

    @property
    def val_samples(self) -> Any:  # noqa: ANN401 - a table
        """A row of each image of validation; ``None`` where they have no table."""
        return getattr(self.val_data, "samples", None)

    @property
    def support_counts(self) -> dict[str, Any]:
        """Images and patients of each class in the support; empty where nobody counted."""
        return dict(self._find("support_counts", {}))

    @property
    def validates_on_support(self) -> bool:
        """Whether the images of validation are those that were learnt from."""
        return bool(self._find("validates_on_support", False))

    @property
    def validates_on_one_class(self) -> bool:
        """Whether the images of validation are known to be of one class only, or none."""
        return self.val_classes is not None and len(self.val_classes) < 2

    @property
    def val_classes(self) -> set[int] | None:
        """Classes of the images of validation; ``None`` where they are not known."""
        samples = getattr(self.val_data, "samples", None)  # a data set of anyone's making
        return None if samples is None else set(samples["label_index"].astype(int))

    @property
    def validates_on_test(self) -> bool:
        """Whether the images of validation are those of the test."""
        return bool(self._find("val_split_mode", "") == "same_as_test")

    @property
    def has_folds(self) -> bool:
        """Whether it can leave parts of its support out."""
        return self._find("support_folds", None) is not None

    def support_folds(self, count: int) -> list[Any]:
        """Datamodules of the same images, each without a part of the support."""
        return list(self._datamodule.support_folds(count)) if self.has_folds else []

    def test_batches(self) -> Any:  # noqa: ANN401 - batches
        """The images of the test, in batches; ``None`` without a datamodule."""
        loader = self._find("test_dataloader", None)
        return loader and loader()

    def _find(self, name: str, default: Any) -> Any:  # noqa: ANN401 - any attribute
        # Asked by name, because it may be of anyone's making.
        return getattr(self._datamodule, name, default)
