"""BMAD, six public sets of medical images, in every layout it is published in."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from anomalib.data.datamodules.image.bmad import DOWNLOAD_INFO
from anomalib.data.utils import download_and_extract
from pandas import DataFrame, concat

from anomalib_medclip.data.datamodule import MedicalDataModule
from anomalib_medclip.data.integrity import with_name
from anomalib_medclip.data.tree_notes import volumes_of
from anomalib_medclip.errors import DataRootError
from anomalib_medclip.files import fault_of
from anomalib_medclip.readers.intensity import IntensityPolicy
from anomalib_medclip.readers.left_out import LeftOut
from anomalib_medclip.readers.listing import (
    Masks,
    entries_of,
    list_images,
    masks_for,
    rest_below,
)


class BmadSet(NamedTuple):
    """What is known of a set.

    Attributes:
        words: What the prompt calls its images; sets of one anatomy share them.
        has_masks: Whether lesions are outlined.
        patient: Where a file name tells the patient; ``None`` where it does not.
    """

    words: str
    has_masks: bool
    patient: str | None


BMAD_SETS = {
    "Brain": BmadSet("Brain", has_masks=True, patient=r"(\d+)_"),
    "Liver": BmadSet("Liver", has_masks=True, patient=r"(\d+)_"),
    "Retina_RESC": BmadSet("retinal OCT", has_masks=True, patient=r"(\d+)_"),
    "Retina_OCT2017": BmadSet("retinal OCT", has_masks=False, patient=r"[A-Za-z]+-(\d+)-"),
    "Chest": BmadSet("Chest X-ray film", has_masks=False, patient=None),
    "Histopathology": BmadSet("histopathological image", has_masks=False, patient=None),
}

_TRAINING_IS_NORMAL = (
    "is abnormal and in the training split, which is of normal images as published",
    "move it to another split if it is to be used",
)

_NO_PLACE = (
    "lies in none of the folders that BMAD's images and masks are read from",
    "move it there if it should be read",
)
_MANIFEST = "manifest.json"

Category = Literal["Brain", "Liver", "Retina_RESC", "Retina_OCT2017", "Chest", "Histopathology"]


class BMAD(MedicalDataModule):
    """One set of BMAD; the support comes from its labelled ``valid`` split.

    Read are ``<root>/<category>/{train,valid,test}/{good,Ungood}``, with or without ``_AD`` after
    the category, with or without ``img/`` below, masks in ``anomaly_mask/`` or ``label/``, names in
    any case, any image format. Patients are known from file names where these tell. The test split
    is kept as published, even where it shares patients with ``valid``: the support is drawn from
    the other patients, and only where these have too few images of a class, or a list file says
    so, from test patients, which a warning counts.

    Args:
        root: Folder that holds the sets.
        category: Which set.
        download: Let anomalib download BMAD to ``root`` if the set is not there.
        **kwargs: Options of ``MedicalDataModule``.
    """

    published_test = True

    def __init__(
        self,
        root: Path | str = "datasets/BMAD",
        category: Category = "Brain",
        download: bool = False,
        **kwargs: Any,  # noqa: ANN401 - passed on
    ) -> None:
        super().__init__(**kwargs)
        if category not in BMAD_SETS:
            msg = f"BMAD has no set {category!r}; it has {', '.join(BMAD_SETS)}"
            raise DataRootError(msg)
        self.root = with_name(root)
        # anomalib names pictures by the folders after this name in the path of an image; were it
        # not there, good/img/1.png and Ungood/img/1.png would be one picture.
        self.data_name = "BMAD" if "bmad" in map(str.lower, self.root.parts) else self.root.name
        self.category = category
        self.download = download
        self.object_name, self.has_masks, _ = BMAD_SETS[category]

    def prepare_data(self) -> None:
        """Download BMAD, if that was asked for and the set is not there."""
        if self.download and find_set(self.root, self.category) is None:
            download_and_extract(self.root, DOWNLOAD_INFO)

    def load_table(self) -> DataFrame:
        """List the images of the set as published."""
        table, self.left_out = list_set(self.root, self.category)
        return table


class BMADLeaveOneOut(BMAD):
    """Zero-shot: train on the other sets of BMAD, test on one that was never seen.

    Trained on are the test splits of the other sets, as published; validated on are their valid
    splits, so that not even the threshold knows the tested set. A batch never mixes sets.

    Args:
        root: Folder that holds the sets.
        category: The set that is tested.
        strict: Leave out sets of the same anatomy, too (Retina_RESC and Retina_OCT2017).
        download: Let anomalib download BMAD to ``root`` if a set is not there.
        intensity: What to do with images of more than 8 bits.
        train_batch_size: Images a training batch; by default what the model prefers, else 8.
        eval_batch_size: Images a validation or test batch.
        num_workers: Processes that read images.
    """

    zero_shot = True

    def __init__(
        self,
        root: Path | str = "datasets/BMAD",
        category: Category = "Brain",
        strict: bool = False,
        download: bool = False,
        intensity: IntensityPolicy = None,
        train_batch_size: int | None = None,
        eval_batch_size: int = 16,
        num_workers: int = 4,
    ) -> None:
        super().__init__(
            root,
            category,
            download,
            intensity=intensity,
            train_batch_size=train_batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
        )
        self.strict = strict

    @property
    def sources(self) -> list[str]:
        """The sets that are trained on."""
        others = [name for name in BMAD_SETS if name != self.category]
        return [n for n in others if not (self.strict and BMAD_SETS[n].words == self.object_name)]

    @property
    def object_names(self) -> list[str]:
        """Words for the prompts of the tested set and of the sources."""
        return list(dict.fromkeys([self.object_name, *(BMAD_SETS[n].words for n in self.sources)]))

    def prepare_data(self) -> None:
        """Download BMAD, if that was asked for and a set is not there."""
        sets = [self.category, *self.sources]
        if self.download and any(find_set(self.root, name) is None for name in sets):
            download_and_extract(self.root, DOWNLOAD_INFO)

    def load_table(self) -> DataFrame:
        """List the test split of the set, and the labelled splits of the sources."""
        sets = [list_set(self.root, name) for name in (self.category, *self.sources)]
        self.left_out = [one for _, left_out in sets for one in left_out]
        target, *sources = (table for table, _ in sets)
        others = concat(sources)
        others = others[others["split"] != "train"].replace({"split": {"test": "train"}})
        return concat([target[target["split"] == "test"], others])


def find_set(root: Path, category: str) -> Path | None:
    """Folder of a set, in ``root`` or in a folder BMAD below it."""
    for base in (root, child(root, "bmad")):
        if base and (folder := child(base, category, f"{category}_AD")):
            return folder
    return None


def list_set(root: Path, category: str) -> tuple[DataFrame, list[LeftOut]]:
    """Table of all images of a set, and what else lies among them.

    Raises:
        DataRootError: There is no such folder.
    """
    folder = find_set(root, category)
    if folder is None:
        there = "holds no folder" if root.is_dir() else "does not exist and should hold a folder"
        msg = (
            f"{root} {there} {category} or {category}_AD; point --data.root to BMAD, or "
            "download it with --data.download true"
        )
        raise DataRootError(msg)
    columns = ["image_path", "label_index", "split", "mask_path"]
    found = list(_samples(folder, BMAD_SETS[category].has_masks))
    left_out = [one for one in found if isinstance(one, LeftOut)]
    rows = [one for one in found if not isinstance(one, LeftOut)]
    known = _patients_of_manifest(folder)
    taken = [path for image, _, _, mask in rows for path in (image, mask) if path]
    taken += [*(str(one.path) for one in left_out), str(folder / _MANIFEST)]
    left_out += rest_below(folder, taken, *_NO_PLACE)
    table = DataFrame(rows, columns=columns).assign(
        group=[known.get(path) or _patient(Path(path).name, category) for path, *_ in rows],
        object_name=BMAD_SETS[category].words,
        has_masks=BMAD_SETS[category].has_masks,
        set_name=category,
    )
    return table, left_out


def _samples(folder: Path, has_masks: bool) -> Iterator[tuple[str, int, str, str] | LeftOut]:
    """Image, label, split and mask of every image of a set, and what else lies there."""
    for split, names in {"train": ["train"], "valid": ["valid", "val"], "test": ["test"]}.items():
        for label, word in enumerate(("good", "ungood")):
            home = child(child(folder, *names), word)
            if home is None:
                continue
            place, outlines = child(home, "img") or home, child(home, "anomaly_mask", "label")
            # Masks of normal images say what is not known.
            is_outlined = has_masks and (label == 1 or outlines is not None)
            outlines = outlines or home / "label"
            images, others = list_images(place, [outlines] if is_outlined else ())
            masks = Masks([""] * len(images), [])
            if is_outlined:
                masks = masks_for(images, place, outlines)
            taken = set(masks.paths)
            yield from (one for one in others + masks.left_out if str(one.path) not in taken)
            if split == "train" and label == 1:
                outlined = [path for path in map(Path, masks.paths) if fault_of(path) is None]
                yield from (LeftOut(path, *_TRAINING_IS_NORMAL) for path in images + outlined)
                continue
            for image, mask in zip(images, masks.paths, strict=True):
                yield str(image), label, split, mask


def child(folder: Path | None, *names: str) -> Path | None:
    """The subfolder of one of these names, in any case; the first name that there is."""
    if folder is None:
        return None
    there = {path.name.lower(): path for path in entries_of(folder) if fault_of(path)}
    return next((there[name.lower()] for name in names if name.lower() in there), None)


def _patients_of_manifest(folder: Path) -> dict[str, str]:
    """Patients by image, where ``anomalib-medclip slice`` has made the set and says so."""
    manifest = folder / _MANIFEST
    if not manifest.is_file():
        return {}
    return {
        str(folder / made["file"]): volume["patient"]
        for volume in volumes_of(manifest)
        for made in volume["slices"]
    }


def _patient(file_name: str, category: str) -> str:
    pattern = BMAD_SETS[category].patient
    match = re.match(pattern, file_name) if pattern else None
    return match[1] if match else ""
