"""The support without some of its patients: what is then learnt from, and who validates."""

from pandas import DataFrame, concat

from anomalib_medclip.data.few_shot import UNUSED, parts_by_patient, patients


def without_patients(
    splits: dict[str, DataFrame], count: int, seed: int, labels: tuple[int, ...] = (0, 1)
) -> list[dict[str, DataFrame]]:
    """Splits in each of which other patients of the support validate, and are nowhere else.

    Args:
        splits: Rows by split; ``support`` is among them, and in ``UNUSED`` may be other images of
            its patients, who validate with all they have.
        count: Number of folds; fewer where a class has fewer patients.
        seed: Seed of the cut.
        labels: The classes of which support images must remain.

    Returns:
        The splits of each fold; none where no patient can be left out.
    """
    parts = parts_by_patient(splits["support"], count, seed, labels)
    return [_without(splits, part) for part in parts]


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
