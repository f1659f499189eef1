"""Draws of the support from images of which the others are the test.

A patient of the support is lost for the test, so that a draw decides what can be tested at all. One
patient with abnormal images is kept out of it, without whom there may be none left, and one without
as long as that can be, or nothing is known of healthy patients.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pandas import DataFrame, concat

from anomalib_medclip.data.batch import CLASS_NAMES
from anomalib_medclip.data.few_shot import (
    check_count,
    common_folder,
    draw_support,
    images_of_patients,
    in_turns,
    patients,
    read_support,
    split_around,
)
from anomalib_medclip.data.integrity import Problem, class_problems
from anomalib_medclip.errors import EmptySplitError, MedclipError, SupportError

_NESTED = 16
"""The largest K in use. Up to it, as far as any draw can, the patient who is kept for the test does
not depend on K, so that the images of a smaller K are among those of a larger one."""


def draw_beside_test(
    table: DataFrame, k: int, seed: int, labels: Sequence[int] = (0, 1), remedy: str = ""
) -> DataFrame:
    """Draw ``k`` images of each class, so that the other patients have images of each, too.

    They are of as many patients as there are, of each one image before a second of any. Normal
    images are first of patients without abnormal ones, then of those whose abnormal images are
    drawn first, who are lost for the test anyhow. One patient without abnormal images comes last.
    Who has a lesion in none of his images here counts as one without, after all others.

    The images of a smaller ``k`` are among those of a larger one up to 16, and beyond it as long as
    the patient who is kept for the test can stay the same.

    Args:
        table: All images.
        k: Number of images of each class.
        seed: Seed of the draw.
        labels: The classes to draw and to test.
        remedy: What may help, too, where nothing can be drawn: the rest of a sentence.

    Raises:
        SupportError: ``k`` is no whole number from 1, or there are fewer images of a class.
        EmptySplitError: No draw of ``k`` leaves images of every class.
    """
    check_count(k)
    normal, abnormal = (
        images_of_patients(table[table["label_index"] == label], [seed, label])
        if label in labels
        else {}
        for label in (0, 1)
    )
    sizes = _Sizes(*({name: len(rows) for name, rows in one.items()} for one in (normal, abnormal)))
    most = min([sizes.most(), *(sum(sizes[label].values()) for label in labels)])
    if k > most:
        raise _untestable(table, k, seed, sizes, labels, most, remedy)
    never, late = sizes.kept(max(k, min(most, _NESTED)))
    ill = [name for name in abnormal if name not in never]
    first = [name for name in sizes.well if name not in (*never, *late)]
    if "of_ill" in table:  # be it in none of his images here
        unseen = set(patients(table[table["of_ill"]]))
        first = sorted(first, key=lambda name: name in unseen)
    turns = [in_turns(normal, [*first, *ill]) + in_turns(normal, late), in_turns(abnormal, ill)]
    return concat([table.loc[turns[label][:k]] for label in labels])


class _Sizes(NamedTuple):
    """Numbers of normal and of abnormal images by patient, in the order in which they are drawn."""

    normal: dict[str, int]
    abnormal: dict[str, int]

    @property
    def well(self) -> list[str]:
        """Patients without abnormal images."""
        return [name for name in self.normal if name not in self.abnormal]

    def most(self) -> int:
        """The largest K that can be drawn beside a patient, or two, with images of every class.

        One is enough who has both. Else they are one with abnormal images alone and one with normal
        ones, of whom those with the fewest leave the most.
        """
        whole, ill = sum(self.normal.values()), sum(self.abnormal.values())
        well = [whole - self.normal[name] for name in self.well]
        if not self.abnormal:
            return max(well, default=0)
        alone = [ill - size for name, size in self.abnormal.items() if name not in self.normal]
        both = [
            min(whole - self.normal[name], ill - size)
            for name, size in self.abnormal.items()
            if name in self.normal
        ]
        return max([*both, min(max(alone, default=0), max(well, default=0))])

    def kept(self, k: int) -> tuple[list[str], list[str]]:
        """Whom a draw of ``k``, which is ``most`` at most, never takes, and whom it takes last.

        Of several it is who would be drawn last, as if nobody were kept.
        """
        room = sum(self.normal.values()) - k, sum(self.abnormal.values()) - k
        well = self.well[::-1]
        small = [name for name in well if self.normal[name] <= room[0]][:1]
        for name in reversed(self.abnormal):
            if self.abnormal[name] > room[1] or self.normal.get(name, 0) > room[0]:
                continue
            if name in self.normal:
                return [name], well[:1]
            if small:
                return [name, *small], []
        return small, []


class DrawnSupport:
    """The part of some data that chooses the support; options are those of ``MedicalDataModule``.

    Attributes:
        patients_doubted: The rest of a remedy, where those taken for patients may be none.
    """

    k_shot: int
    draw_seed: int
    support_list: Path | str | None
    support_line: int
    only_normals: bool
    patients_doubted: str = ""

    @property
    def _labels_learnt(self) -> tuple[int, ...]:
        return (0,) if self.only_normals else (0, 1)  # those outside the test split

    def choose_support(self, pool: DataFrame, avoid: Collection[str] = frozenset()) -> DataFrame:
        """The support images among ``pool``: those of the list file, else drawn.

        Drawn are images of the patients to ``avoid`` only where the others have too few.
        """
        labels = self._labels_learnt
        if self.support_list is None:
            return draw_support(pool, self.k_shot, self.draw_seed, avoid, labels)
        return read_support(pool, self.support_list, self.support_line, labels)

    def share_out(self, table: DataFrame, val_ratio: float) -> DataFrame:
        """All images with a split, where there were none: support, validation and test.

        Raises:
            SupportError: The support cannot be drawn, or the list does not fit.
            EmptySplitError: No draw leaves images of every class for the test.
        """
        labels, seed = self._labels_learnt, self.draw_seed
        if self.support_list is None:
            doubted = self.patients_doubted
            support = draw_beside_test(table, self.k_shot, seed, labels, doubted)
        else:
            support = self.choose_support(table)
        return split_around(table, support, val_ratio, seed, labels)


def untested_problems(
    splits: Mapping[str, DataFrame], where: str, labels: tuple[int, ...] = (0, 1)
) -> Iterator[Problem]:
    """Classes that the test split lacks, and where their patients are."""
    for label in labels:
        others = {name: rows[rows["label_index"] == label] for name, rows in splits.items()}
        counts = {name: patients(rows).nunique() for name, rows in others.items()}
        there = ", ".join(f"{name} has {count}" for name, count in counts.items() if count)
        word, fix = CLASS_NAMES[label], "check folder names and labels"
        remedy = f"leave a patient with {word} images for it ({there}), or {fix}"
        yield from class_problems(
            splits["test"], "test", where, (label,), remedy if there else f"add some, or {fix}"
        )


def _untestable(
    table: DataFrame,
    k: int,
    seed: int,
    sizes: _Sizes,
    labels: Sequence[int],
    most: int,
    remedy: str,
) -> MedclipError:
    """Why no draw of ``k`` leaves images of every class."""
    known = f"patients with lesions: {len(sizes.abnormal)}, without: {len(sizes.well)}"
    if (table["group"] == "").any():
        known += ", an image of an unknown patient being one"
    for label in labels:
        rows, word = table[table["label_index"] == label], CLASS_NAMES[label]
        if len(rows) < k:
            msg = (
                f"{k} {word} support images are asked for but {len(rows)} exist in "
                f"{common_folder(table if rows.empty else rows)} (k_shot {k}, seed {seed}; "
                f"{known}); lower k_shot (--data.k_shot) or add {word} images"
            )
            return SupportError(msg)
    lost = [
        label for label in labels if sum(sizes[label].values()) - min(sizes[label].values()) < k
    ]
    lack = f"no {CLASS_NAMES[lost[-1]]} image" if lost else "images of one class only"
    more = (" without lesions", " with lesions")[lost[-1]] if lost else ""
    lower = f"lower k_shot (--data.k_shot) to {most}, or " if most else ""
    msg = (
        f"k_shot {k} leaves {lack} for the test in {common_folder(table)}, with seed {seed} as "
        f"with any other ({known}), since patients of the support are not tested; "
        f"{lower}add patients{more}{remedy}"
    )
    return EmptySplitError(msg)
