"""The support without some of its patients: what is then learnt from, and who validates."""

from pandas import DataFrame, concat

from anomalib_medclip.data.few_shot import UNUSED, parts_by_patient, patients


def without_patients(
    splits: dict[str, DataFrame], count: int | None, seed: int, labels: tuple[int, ...] = (0, 1)
) -> list[dict[str, DataFrame]]:
    """Splits in each of which other patients of the support validate, and are nowhere else.

    Args:
        splits: Rows by split; ``support`` is among them, and in ``UNUSED`` may be other images of
            its patients, who validate with all they have.
        count: Number of folds; fewer where a class has fewer patients. ``None`` for one a patient.
        seed: Seed of the cut.
        labels: The classes of which support images must remain.

    Returns:
        The splits of each fold; none where no patient can be left out.
    """
    support = splits["support"]
    if count is None:
        parts = _each_patient(support, labels)
    else:
        parts = parts_by_patient(support, count, seed, labels)
    return [_without(splits, part) for part in parts]


def _each_patient(support: DataFrame, labels: tuple[int, ...]) -> list[DataFrame]:
    """The images of one patient each; none where a class would be lost without one of them."""
    owners = patients(support)
    parts = [support[owners == one] for one in dict.fromkeys(owners)]
    rests = (support["label_index"].drop(part.index) for part in parts)
    return parts if all(set(labels) <= set(rest) for rest in rests) else []


def _without(splits: dict[str, DataFrame], part: DataFrame) -> dict[str, DataFrame]:
    left_out = set(patients(part))
    rest = {name: rows[~patients(rows).isin(left_out)] for name, rows in splits.items()}
    of_part = splits[UNUSED][patients(splits[UNUSED]).isin(left_out)]
    return {**rest, "valid": concat([part, of_part])}


def others_of(support: DataFrame, table: DataFrame) -> DataFrame:
    """Other images of the support's patients, of no split that is tested.

    Args:
        support: Rows of the support.
        table: All rows.
    """
    others = table[(table["split"] != "test") & ~table["image_path"].isin(support["image_path"])]
    return others[patients(others).isin(patients(support))]
