"""Everything that can be found wrong with data before a method learns from them."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import compress
from typing import Any

from pandas import DataFrame, Series, concat

from anomalib_medclip.data.datamodule import MedicalDataModule
from anomalib_medclip.data.duplicates import exact_duplicates, near_duplicate_problems
from anomalib_medclip.data.few_shot import UNUSED, count_support, patients
from anomalib_medclip.data.image_checks import image_checker
from anomalib_medclip.data.integrity import Problem, is_usable, patient_problems, problem_of
from anomalib_medclip.data.lesions import total
from anomalib_medclip.data.shortcuts import separations, shortcut_problems
from anomalib_medclip.errors import MaskError, MedclipError
from anomalib_medclip.provenance import NOTICE
from anomalib_medclip.readers.lesion import Number
from anomalib_medclip.readers.lesion_number import LesionNumber

_SIDE = 240  # pixels, of the methods' square by default


@dataclass
class Report:
    """What was found.

    Attributes:
        problems: All problems, errors first.
        splits: By split: ``normal`` and ``abnormal`` images, ``patients``, and ``unknown``, the
            images without a known patient, each of which counts as one.
        patients: By split: how many are ``normal``, by all of their images there, and how many
            ``abnormal``.
        volumes: The same of volumes, in splits whose images are slices.
        support: By class word, what K really means; see ``few_shot.count_support``.
        shortcuts: By set: how well mean intensity and size alone tell the classes apart, as the
            AUROC in whichever direction is better, from 0.5 to 1.
        side: Side of the square that lesions were counted at, in pixels.
        lesions: How many the masks outline, and how many are lost there; see ``lesions.total``.
    """

    problems: list[Problem] = field(default_factory=list)
    splits: dict[str, dict[str, int]] = field(default_factory=dict)
    patients: dict[str, dict[str, int]] = field(default_factory=dict)
    volumes: dict[str, dict[str, int]] = field(default_factory=dict)
    support: dict[str, dict[str, int]] = field(default_factory=dict)
    shortcuts: dict[str, dict[str, float]] = field(default_factory=dict)
    side: int = _SIDE
    lesions: dict[str, int] = field(default_factory=dict)

    def count(self, severity: str) -> int:
        """Number of problems of a severity."""
        return sum(one.severity == severity for one in self.problems)

    def as_plain(self, config: str) -> dict[str, Any]:
        """The report as JSON holds it, with the config that it is of."""
        return {
            "notice": NOTICE,
            "config": config,
            "errors": self.count("error"),
            "warnings": self.count("warning"),
            "problems": [one.as_plain() for one in self.problems],
            "splits": self.splits,
            "patients": self.patients,
            "volumes": self.volumes,
            "support": self.support,
            "shortcuts": self.shortcuts,
            "lesions": {"image_size": self.side, **self.lesions},
        }


def check_data(
    data: MedicalDataModule,
    progress: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, _: items,
    side: int = _SIDE,
) -> Report:
    """Read every file of some data, and list all that is wrong.

    Whatever fails becomes a problem, and the rest is checked all the same.

    Args:
        data: The data, which need not have been set up.
        progress: Passes an iterator on and shows how far it is, given the number of items.
        side: Side of the square that a method is to resize images and masks to, in pixels.
    """
    report = Report(side=side)
    table = _list_all(data, report)
    if len(table.columns):
        report.problems += data.file_problems(table)
        splits = _splits(data, table, report)
        rows = _readable(table) if data.in_files else table
        # One cache holds the slices of volumes, and its file has one place to read from.
        with ThreadPoolExecutor(None if data.in_files else 1) as pool:
            looks = list(
                progress(pool.map(image_checker(data, side), rows.to_dict("records")), len(rows))
            )
        for look in looks:
            report.problems += look.problems
        if data.in_files:
            report.problems += _other_numbers(rows, [look.number for look in looks])
            report.problems += _like_masks(rows["image_path"], [look.two_values for look in looks])
        report.lesions = total(look.lesions for look in looks if look.lesions)
        rows = rows.assign(
            digest=[look.digest for look in looks],
            mean=[look.mean for look in looks],
            height=[look.size[0] for look in looks],
            width=[look.size[1] for look in looks],
        )
        report.problems += exact_duplicates(rows)
        report.problems += near_duplicate_problems(rows, [look.small for look in looks])
        for name, images in rows[rows["height"] > 0].groupby("set_name"):
            report.shortcuts[str(name)] = separations(images)
            report.problems += shortcut_problems(images, str(name))
        _count(report, {name: images for name, images in splits.items() if len(images)})
    own = list(_own_problems(data))
    causes = [id(one.cause) for one in own if one.cause]  # which may have ended the listing, too
    report.problems = own + [one for one in report.problems if id(one.cause) not in causes]
    unique = dict.fromkeys(report.problems)
    report.problems = sorted(unique, key=lambda one: (one.severity, one.kind))
    return report


def _own_problems(data: MedicalDataModule) -> Iterator[Problem]:
    try:
        yield from data.find_problems()
    except MedclipError as error:
        yield problem_of(error, "data cannot be checked", data.where)


def _list_all(data: MedicalDataModule, report: Report) -> DataFrame:
    """Every image that the data name, with its split, as far as lists and splits can be made."""
    found: list[DataFrame] = []
    for listed in (data.load_table, data.list_images):
        try:
            found.append(data.complete(listed()))
        except MedclipError as error:
            report.problems.append(problem_of(error, "data cannot be listed", data.where))
    if not found:
        return DataFrame()
    if len(found) == 1:
        return found[0] if "split" in found[0] else found[0].assign(split="unsplit")
    table, everything = found
    unused = everything[~everything["image_path"].isin(table["image_path"])]
    return concat([table, unused.assign(split=UNUSED)], ignore_index=True)


def _splits(data: MedicalDataModule, table: DataFrame, report: Report) -> dict[str, DataFrame]:
    """The splits and the support, as training makes them."""
    splits = data.split(table[table["split"] != UNUSED])
    if set(table["split"]) <= {"unsplit"}:
        return {"unsplit": table}
    report.problems += data.split_problems(splits)
    if data.zero_shot:
        return splits
    learnt = [splits["train"], splits["valid"], splits["support"]]
    report.problems += patient_problems(concat(learnt), splits["test"], data.published_test)
    try:
        splits["support"] = data.find_support(splits)
        report.support = count_support(splits["support"])
    except MedclipError as error:
        report.problems.append(problem_of(error, "support cannot be drawn", data.where))
    return {**splits, UNUSED: table[table["split"] == UNUSED]}


def _like_masks(paths: Iterable[str], two_values: Sequence[bool]) -> Iterator[Problem]:
    """Pictures of two values among others of many."""
    said, remedy = "has two values, as a mask has", "take it out of the images if it is one"
    if sum(two_values) <= len(two_values) / 2:
        for path in compress(paths, two_values):
            yield Problem("looks like a mask", path, said, remedy, "warning")


def _other_numbers(rows: DataFrame, numbers: Sequence[Number | None]) -> Iterator[Problem]:
    """Numbers by which masks of a set mark lesions beside that of its first, each with one mask."""
    for _, masks in rows.assign(number=Series(numbers, dtype=object)).groupby("set_name"):
        first = LesionNumber()
        once = masks[masks["number"].notna()].sort_values("image_path").drop_duplicates("number")
        for number, mask in zip(once["number"], once["mask_path"], strict=True):
            try:
                first.meet(number, mask)
            except MaskError as error:
                yield problem_of(error, "mask values", mask)


def _readable(table: DataFrame) -> DataFrame:
    """A row for each picture file that is there."""
    once = table[~table["image_path"].map(os.path.realpath).duplicated()]
    pictures = [is_usable(path) for path in once["image_path"]]
    return once.loc[pictures].reset_index(drop=True)


def _count(report: Report, splits: dict[str, DataFrame]) -> None:
    """Images, patients and volumes of each split, which has some."""
    for name, images in splits.items():
        report.splits[name] = {
            "normal": int((images["label_index"] == 0).sum()),
            "abnormal": int((images["label_index"] == 1).sum()),
            "patients": int(patients(images).nunique()),
            "unknown": int((images["group"] == "").sum()),
        }
        report.patients[name] = _by_class(images, patients(images))
        slices = images[images["volume"] != ""]
        if len(slices):
            report.volumes[name] = _by_class(slices, slices["volume"])


def _by_class(images: DataFrame, owner: Series) -> dict[str, int]:
    """How many owners of images have normal ones alone, and how many have abnormal ones."""
    abnormal = owner[images["label_index"] == 1].nunique()
    return {"normal": owner.nunique() - abnormal, "abnormal": abnormal}
