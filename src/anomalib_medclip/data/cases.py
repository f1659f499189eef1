"""Which volumes there are: patterns of paths become cases."""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePath, PurePosixPath
from typing import NamedTuple, TypeAlias

import numpy as np

from anomalib_medclip.data.labels import class_label, plain_label
from anomalib_medclip.data.patients import first_spellings
from anomalib_medclip.data.tables import read_rows, split_name
from anomalib_medclip.errors import DataRootError
from anomalib_medclip.files import A_FOLDER, fault_of
from anomalib_medclip.readers.lesion import LesionLabels, MaskLabels
from anomalib_medclip.readers.listing import files_below

Labels: TypeAlias = Mapping[tuple[str, int | None], int]
"""0 or 1 by the path of a volume below the root and the number of a slice, ``None`` for all."""

ANY_NAME = re.compile(r"\{\w+\}")
"""A name in braces, in a pattern."""

_MOST_DIGITS = 9  # of a slice's number; Python takes no more than 4,300 for a number


@dataclass(frozen=True)
class VolumeSource:
    """Volumes that are laid out alike.

    Attributes:
        image: Pattern of the volumes' paths below the root, such as
            ``"{patient}/{patient}_flair.nii.gz"``, of multi-frame DICOM files, or of folders with a
            DICOM series or pictures. ``{patient}`` tells patients apart; ``{split}`` may be train,
            valid or test; other names in braces stand for anything.
        mask: Pattern of the lesion masks, with names in braces that ``image`` has.
        lesion_labels: Which numbers of a mask are lesions, or ``all`` but 0; needed where one holds
            more than 0 and one other.
        ignore_labels: Which numbers mean that nobody knows; what they mark counts in no loss and
            in no figure.
        organ: Pattern of label volumes of organs, to crop to one.
        organ_labels: Which of their numbers are the organ.
        healthy: Whether no volume has a lesion, so that there are no masks.
    """

    image: str
    mask: str | None = None
    lesion_labels: LesionLabels | None = None
    ignore_labels: tuple[int, ...] | None = None
    organ: str | None = None
    organ_labels: tuple[int, ...] | None = None
    healthy: bool = False

    def mask_labels(self, otherwise: MaskLabels) -> MaskLabels:
        """What the numbers of its masks mean, where it does not say as others of the data do."""
        ignored = otherwise.ignored if self.ignore_labels is None else self.ignore_labels
        return MaskLabels(self.lesion_labels or otherwise.lesion, tuple(ignored))


class Case(NamedTuple):
    """One volume and what belongs to it.

    Attributes:
        image: Its path.
        mask: Where its lesion mask is, or should be; ``None`` where there is none.
        organ: Where its organ labels are.
        patient: Whose it is.
        scan: What the other names in braces stand for, which tell a patient's volumes apart.
        split: Of which split, where that is known.
        source: How it is laid out.
    """

    image: Path
    mask: Path | None
    organ: Path | None
    patient: str
    scan: str
    split: str | None
    source: VolumeSource


def check_sources(sources: list[VolumeSource], *, has_labels: bool) -> None:
    """Refuse masks for some ill volumes and none for others, and masks of healthy ones.

    Args:
        sources: How volumes are laid out.
        has_labels: Whether there is a table of labels.

    Raises:
        DataRootError: Of such a source.
    """
    for source in sources:
        if source.healthy and source.mask:
            msg = (
                f"the volumes of {source.image!r} are healthy and have masks, which may show "
                "lesions; leave out one of the two"
            )
            raise DataRootError(msg)
    bare = [source for source in sources if not (source.mask or source.healthy)]
    if bare and any(source.mask for source in sources):
        msg = f"the volumes of {bare[0].image!r} have no masks, others have; give all or none"
        raise DataRootError(msg)
    if bare and not has_labels:
        msg = (
            f"the volumes of {bare[0].image!r} have neither masks nor labels; give the source a "
            "mask, call it healthy, or give a table of labels (--data.table)"
        )
        raise DataRootError(msg)


def find_cases(
    root: Path, sources: list[VolumeSource], splits: Mapping[str, str] | None
) -> list[Case]:
    """All volumes below a folder, by path.

    Args:
        root: The folder.
        sources: How they are laid out.
        splits: Split of each patient, if not by ``{split}`` in a pattern.

    Raises:
        DataRootError: A pattern fits no volume or is none, two fit one, a split is not known, or a
            folder on the way cannot be listed.
    """
    cases = [case for source in sources for case in _of_source(root, source, splits)]
    for path, count in Counter(case.image for case in cases).items():
        if count > 1:
            msg = f"{path} is a volume of two sources; make their patterns differ"
            raise DataRootError(msg)
    cases.sort(key=lambda case: case.image)
    spelt = first_spellings(case.patient for case in cases)
    return [case._replace(patient=name) for case, name in zip(cases, spelt, strict=True)]


def _of_source(root: Path, source: VolumeSource, splits: Mapping[str, str] | None) -> list[Case]:
    pattern = _pattern(source.image)
    anything = ANY_NAME.sub("*", source.image)
    above = PurePath(anything).parents[:-1]
    below = (path for part in above for path in root.glob(str(part)))
    for folder in [root, *(path for path in below if not path.name.startswith("."))]:
        fault = fault_of(folder)
        if fault and fault is not A_FOLDER:  # glob would pass over it
            raise DataRootError(fault.about(folder))
    found = [
        (path, pattern.fullmatch(path.relative_to(root).as_posix())) for path in root.glob(anything)
    ]
    cases = [_case(root, source, path, match.groupdict(), splits) for path, match in found if match]
    if not cases:
        remedy = "correct root or sources"
        if deeper := next(root.glob(f"*/{anything}"), None):
            remedy = f"give {root / deeper.relative_to(root).parts[0]} as root: {deeper} is there"
        elif other := next(files_below(root), None):
            remedy += f", for there is {other.relative_to(root)}"
        msg = f"no volume in {root} is like {source.image!r}; {remedy}"
        raise DataRootError(msg)
    return cases


def _pattern(image: str) -> re.Pattern[str]:
    """What a path has to be like; a name given twice stands for the same twice."""
    parts, seen = [], set()
    for text, name in re.findall(r"([^{}]*)(?:\{(\w+)\})?", image):
        parts.append(re.escape(text))
        if name:
            parts.append(f"(?P={name})" if name in seen else f"(?P<{name}>[^/]+?)")
            seen.add(name)
    if "patient" not in seen:
        msg = f"the pattern {image!r} does not say which part is the patient; write {{patient}}"
        raise DataRootError(msg)
    return re.compile("".join(parts))


def _case(
    root: Path,
    source: VolumeSource,
    path: Path,
    names: dict[str, str],
    splits: Mapping[str, str] | None,
) -> Case:
    def beside(pattern: str | None) -> Path | None:
        try:
            return None if pattern is None else root / pattern.format_map(names)
        except (LookupError, ValueError) as error:
            msg = f"{pattern!r} has a name in braces that {source.image!r} has not: {error}"
            raise DataRootError(msg) from error

    patient, split = names["patient"], names.get("split")
    if splits is not None:
        if patient not in splits:
            msg = f"splits do not say where patient {patient!r} of {path} belongs; add it"
            raise DataRootError(msg)
        split = splits[patient]
    return Case(
        image=path,
        mask=beside(source.mask),
        organ=beside(source.organ),
        patient=patient,
        scan="_".join(v for name, v in names.items() if name not in ("patient", "split")),
        split=None if split is None else split_name(split, str(path)),
        source=source,
    )


def with_splits(cases: Sequence[Case], shares: Sequence[float], seed: int) -> list[Case]:
    """Give cases without a split one, patient by patient and source by source.

    Raises:
        DataRootError: The shares are none, or one patient is of two splits.
    """
    if min(shares) < 0 or not 0 < sum(shares) < float("inf"):
        msg = f"shares {tuple(shares)} cannot be shared by; give three numbers from 0"
        raise DataRootError(msg)
    splits: dict[str, str] = {}
    for case in cases:
        if case.split and splits.setdefault(case.patient, case.split) != case.split:
            msg = (
                f"the patient of {case.image} is of the splits {splits[case.patient]} and "
                f"{case.split}; move all volumes of a patient into one split"
            )
            raise DataRootError(msg)
    for source in dict.fromkeys(case.source for case in cases):
        patients = sorted({c.patient for c in cases if c.source == source} - splits.keys())
        order = np.random.default_rng(seed).permutation(len(patients))
        ends = np.rint(np.cumsum(shares) / sum(shares) * len(patients))
        for place, index in enumerate(order):
            number = int(np.searchsorted(ends, place, side="right"))
            splits[patients[index]] = ("train", "valid", "test")[number]
    return [case._replace(split=splits[case.patient]) for case in cases]


def read_label_table(path: Path, names: Collection[str]) -> Labels:
    """Labels of volumes and slices, from a table.

    Args:
        path: Table with the columns ``image``, ``label`` and, where it applies, ``slice``.
        names: Paths of the volumes below the root.

    Raises:
        DataRootError: A row is incomplete, of an unknown volume, or contradicts another.
    """
    labels: dict[tuple[str, int | None], int] = {}
    known = {_volume_name(name): name for name in names}
    for row in read_rows(path):
        written, label, number = (row.cell(column) for column in ("image", "label", "slice"))
        label_index, number = class_label(label or ""), plain_label(number or "")
        is_number = (number or "0").isdecimal() and len(number or "0") <= _MOST_DIGITS
        if written is None or label_index is None or not is_number:
            msg = f"{row.place} needs an image, a label of 0 or 1, and a slice number or none"
            raise DataRootError(msg)
        name = known.get(_volume_name(written))
        if name is None:
            near = [f", such as to {one}" for one in get_close_matches(written, names, n=1)]
            msg = f"{row.place} has a label for {written!r}, which no source has; correct the path"
            raise DataRootError("".join([msg, *near]))
        key = name, int(number) if number else None
        if labels.setdefault(key, label_index) != label_index:
            msg = f"{row.place} gives {name!r} another label than a row before; keep the right one"
            raise DataRootError(msg)
    return labels


def _volume_name(written: str) -> PurePosixPath:
    """A volume's path as it may be written: with backslashes, or a slash at its end."""
    return PurePosixPath(unicodedata.normalize("NFC", written.replace("\\", "/")))
