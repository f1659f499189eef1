"""The few labelled images a method learns from, and what is left for validation and test.

Pure functions on a table of samples with the columns ``image_path``, ``label_index`` (0 normal,
1 abnormal) and ``group`` (the patient; empty where unknown, and then the image stands for itself).
"""

import logging
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
import pandas as pd
from pandas import DataFrame, Series

from anomalib_medclip.data.batch import CLASS_NAMES
from anomalib_medclip.data.tables import read_text
from anomalib_medclip.errors import DataRootError, SupportError
from anomalib_medclip.files import MISSING, fault_of
from anomalib_medclip.readers.mask_names import alike
from anomalib_medclip.readers.picture import IMAGE_SUFFIXES

logger = logging.getLogger(__name__)

UNUSED = "unused"
"""Split of images that are neither learnt from nor tested on, and so leak nothing."""

_FEWEST = 2  # images of each class below which a threshold would rest on a single one


def patients(table: DataFrame) -> Series:
    """Patient of each row; an image whose patient is unknown is its own."""
    return table["group"].where(table["group"] != "", table["image_path"])


def count_support(support: DataFrame) -> dict[str, dict[str, int]]:
    """How many patients the K images of each class really are.

    Returns:
        By class word: the number of ``images``, of ``patients``, of ``unknown`` patients, which are
        images that count as one patient each, and where they are slices of ``volumes``.
    """
    by_class = {
        word: support[support["label_index"] == label] for label, word in enumerate(CLASS_NAMES)
    }
    return {
        word: {
            "images": len(rows),
            "patients": int(patients(rows).nunique()),
            "unknown": int((rows["group"] == "").sum()),
            **({"volumes": volumes} if (volumes := len({*rows["volume"]} - {""})) else {}),
        }
        for word, rows in by_class.items()
        if len(rows)
    }


def draw_support(
    pool: DataFrame,
    k: int,
    seed: int,
    avoid: Collection[str] = frozenset(),
    labels: Sequence[int] = (0, 1),
) -> DataFrame:
    """Draw ``k`` normal and ``k`` abnormal images, of as many patients as there are.

    The images of a smaller ``k`` are among those of a larger one.

    Args:
        pool: The images to draw from.
        k: Number of images of each class.
        seed: Seed of the draw.
        avoid: Patients that give images of a class only after those of all others are drawn.
        labels: The classes to draw.

    Raises:
        SupportError: ``k`` is no whole number from 1, or the pool has fewer images of a class.
    """
    check_count(k)
    drawn = []
    for label in labels:
        word, rows = CLASS_NAMES[label], pool[pool["label_index"] == label]
        if len(rows) < k:
            folder = common_folder(pool if rows.empty else rows)
            msg = (
                f"{k} {word} support images are asked for but {len(rows)} exist in {folder}; "
                f"lower k_shot (--data.k_shot) or add {word} images"
            )
            raise SupportError(msg)
        of_patient = images_of_patients(rows, [seed, label])
        first, last = ([n for n in of_patient if (n in avoid) == late] for late in (False, True))
        turns = in_turns(of_patient, first) + in_turns(of_patient, last)
        drawn.append(rows.loc[turns[:k]])
    return pd.concat(drawn)


def check_count(k: int) -> None:
    """Raise ``SupportError`` for what is no whole number of at least one."""
    if k < 1 or k % 1:
        msg = (
            f"k_shot is {k}; give a whole number of at least 1, or train without support by "
            "BMADLeaveOneOut"
        )
        raise SupportError(msg)


def images_of_patients(rows: DataFrame, seed: Sequence[int]) -> dict[str, list[int]]:
    """Row labels by patient, both in random order, which that of the rows does not change."""
    patient = patients(rows.sort_values("image_path"))
    of_patient: dict[str, list[int]] = defaultdict(list)
    for index in np.random.default_rng(seed).permutation(patient.index):
        of_patient[patient[index]].append(index)
    return of_patient


def in_turns(of_patient: Mapping[str, list[int]], names: Iterable[str]) -> list[int]:
    """One image of every patient named, then a second of every patient, ...; as row labels."""
    turns = chain.from_iterable(zip_longest(*(of_patient.get(name, []) for name in names)))
    return [index for index in turns if index is not None]


def read_support(
    pool: DataFrame, path: str | Path, line: int = 0, labels: Sequence[int] = (0, 1)
) -> DataFrame:
    """Find the images that a list file names.

    Two formats are read: the MVFA and MadCLIP authors' own, a line ``n-0: name name ...`` of normal
    and a line ``a-0: name name ...`` of abnormal images, where the number tells alternative lists
    apart; or one name a line, the class being known from the data. A name may carry folders, and
    its ending does not matter, since the same images are published as PNG and as JPEG.

    Args:
        pool: The images that may be named.
        path: The list file.
        line: Number of the alternative, in the authors' format.
        labels: The classes of which there must be an image.

    Raises:
        DataRootError: The file cannot be read or is not UTF-8.
        SupportError: A name is unknown, ambiguous or given twice, or a class has no name.
    """
    if fault_of(path) is MISSING:
        msg = f"no support list {path}; correct support_list (--data.support_list)"
        raise DataRootError(msg)
    pool = pool.assign(bare=pool["image_path"].map(_bare))
    found = [_find(pool, name, label, path) for name, label in _parse(Path(path), line)]
    if twice := {pool.loc[i, "image_path"] for i in found if found.count(i) > 1}:
        msg = f"support list {path} names {min(map(str, twice))} twice; remove one"
        raise SupportError(msg)
    support = pool.loc[found].drop(columns="bare")
    for label in labels:
        if not (support["label_index"] == label).any():
            word = CLASS_NAMES[label]
            msg = f"support list {path} names no {word} image (alternative {line}); add one"
            raise SupportError(msg)
    return support


def _parse(path: Path, line: int) -> list[tuple[str, int | None]]:
    """Names and, where the format tells, their class."""
    lines = [text.strip() for text in read_text(path).splitlines()]
    lines = [text for text in lines if text]
    tagged = [re.fullmatch(r"([na])-(\d+):(.*)", text) for text in lines]
    if not any(tagged):
        return [(text, None) for text in lines]
    if not all(tagged):
        msg = f"support list {path}: {lines[tagged.index(None)]!r} lacks 'n-0:' or 'a-0:' before it"
        raise SupportError(msg)
    return [
        (name, "na".index(match[1]))
        for match in tagged
        if match is not None and int(match[2]) == line
        for name in match[3].split()
    ]


def _find(pool: DataFrame, name: str, label: int | None, path: str | Path) -> int:
    """Row label of the one image a list means by ``name``."""
    rows = pool if label is None else pool[pool["label_index"] == label]
    wanted = _bare(name)
    parts = zip(rows.index, rows["bare"], strict=True)
    found = [index for index, there in parts if there[-len(wanted) :] == wanted]
    if len(found) == 1:
        return int(found[0])
    word = "image" if label is None else f"{CLASS_NAMES[label]} image"
    where = common_folder(rows if len(rows) else pool)
    msg = (
        f"support list {path}: {len(found)} times {word} {name!r} in {where}, wanted once; "
        f"correct the name, or write {'more' if found else 'fewer'} of its folders before it"
    )
    raise SupportError(msg)


def _bare(path: str | Path) -> tuple[str, ...]:
    """The parts of a path as ``alike`` takes them, without an image ending."""
    lower = Path(alike(str(path).replace("\\", "/")))
    return (lower.with_suffix("") if lower.suffix in IMAGE_SUFFIXES else lower).parts


def is_enough(table: DataFrame, labels: Sequence[int] = (0, 1)) -> bool:
    """Whether a threshold can be set on these images: two of each class, at least."""
    return all((table["label_index"] == label).sum() >= _FEWEST for label in labels)


def left_for_validation(
    valid: DataFrame, support: DataFrame, labels: Sequence[int] = (0, 1)
) -> DataFrame:
    """Images of ``valid`` on which a threshold may be set once the support is taken out.

    Images of other patients than the support's, as long as there are enough; else all images
    outside the support; else none.
    """
    rest = valid[~valid["image_path"].isin(support["image_path"])]
    strangers = rest[~patients(rest).isin(patients(support))]
    enough = (table for table in (strangers, rest) if is_enough(table, labels))
    return next(enough, rest.iloc[:0])


def parts_by_patient(
    support: DataFrame, count: int, seed: int, labels: Sequence[int] = (0, 1)
) -> list[DataFrame]:
    """Cut the support into parts of other patients each, with the classes spread evenly.

    Args:
        support: The support images.
        count: Number of parts; fewer where a class has fewer patients.
        seed: Seed of the cut.
        labels: The classes of which images must remain, whatever part is left out.

    Returns:
        The parts; none where no part can be left out.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # others need not wait for it

    groups, truth = patients(support), support["label_index"]
    fewest = min(groups[truth == label].nunique() for label in labels)
    for parts in range(min(count, fewest), 1, -1):
        cut = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
        found = [support.iloc[rows] for _, rows in cut.split(truth, truth, groups)]
        rests = (truth.drop(part.index) for part in found)
        if all(set(labels) <= set(rest) for rest in rests):
            return found
    return []


def split_by_patient(
    table: DataFrame, ratio: float, seed: int, labels: Sequence[int] = (0, 1)
) -> tuple[DataFrame, DataFrame]:
    """Split into validation and test, no patient in both.

    Each class gives up to ``ratio`` of its images to validation, less where patients are large. The
    last patient with normal images, with abnormal ones, and without abnormal ones is for test.
    Where validation has not enough of ``labels`` to set a threshold, all images are for test.
    """
    ordered = table.sort_values("image_path")
    owner, abnormal = patients(ordered), ordered["label_index"]
    sizes = DataFrame({0: 1 - abnormal, 1: abnormal}).groupby(owner).sum()  # of patients, by name
    of_kind = np.column_stack([sizes > 0, sizes[1] == 0])  # with normal, abnormal, normal alone
    room = np.rint(ratio * sizes.sum().to_numpy())
    left = of_kind.sum(axis=0)
    chosen: list[str] = []
    for position in np.random.default_rng(seed).permutation(len(sizes)):
        taken, kinds = sizes.to_numpy()[position], of_kind[position]
        if (taken <= room).all() and (left > 1)[kinds].all():
            room, left = room - taken, left - kinds
            chosen.append(sizes.index[position])
    valid = ordered[owner.isin(chosen)]
    if not is_enough(valid, labels):
        valid = valid.iloc[:0]
    return valid, ordered[~ordered.index.isin(valid.index)]


def split_around(
    table: DataFrame, support: DataFrame, ratio: float, seed: int, labels: Sequence[int] = (0, 1)
) -> DataFrame:
    """All rows with a split: the support, and validation and test of other patients.

    Other images of the support's patients are set aside as ``UNUSED``.
    """
    rest = table.drop(support.index)
    strangers = rest[~patients(rest).isin(patients(support))]
    if len(strangers) < len(rest):
        count = len(rest) - len(strangers)
        level = logging.WARNING if count > len(strangers) else logging.INFO
        said = "%d of %d images are set aside: their patients are in the support"
        logger.log(level, said, count, len(table))
    valid, test = split_by_patient(strangers, ratio, seed, labels)
    aside = rest.drop(strangers.index)
    parts = {"support": support, "valid": valid, "test": test, UNUSED: aside}
    return pd.concat([part.assign(split=split) for split, part in parts.items()])


def common_folder(table: DataFrame) -> str:
    """The deepest folder that holds all images of the table."""
    return os.path.commonpath([str(Path(p).parent) for p in table["image_path"]])


def warn_of_few(where: str, count: int, only_normals: bool, on_support: bool) -> None:
    """Log on which images a threshold is found, where those of validation are not enough."""
    logger.warning(
        "%s has too few images besides support and test for validation: threshold and "
        "normalisation come from %d %s, of the %s",
        where,
        count,
        "normal images alone" if only_normals else "images",
        "support" if on_support else "validation split",
    )
