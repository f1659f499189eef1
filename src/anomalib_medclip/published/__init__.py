"""The result tables of the four papers, cell by cell, as printed.

``tables.csv`` holds them; ``README.md`` beside it explains columns and protocols, and says what was
left out. Research use only: these figures are the papers', and no run of this package made them.
"""

from importlib.resources import files

import pandas as pd
from pandas import DataFrame

from anomalib_medclip.errors import UnknownNameError

_NUMBERS = ("k", "value", "spread")


def published(
    dataset: str | None = None,
    k: int | None = None,
    metric: str | None = None,
    setting: str | None = None,
) -> DataFrame:
    """The cells of all published tables, or of these only.

    Several rows may stand for the same cell, because papers print it anew, at times with another
    value; ``note`` then says so. Rows differ in ``protocol``, so do not rank methods by them.

    >>> cells = published(dataset="Histopathology", k=4, metric="image_AUROC", setting="few-shot")
    >>> mvfa = cells[cells["method"] == "MVFA"]
    >>> print(mvfa[["paper", "table", "value", "protocol"]].to_string(index=False))
       paper  table  value          protocol
        MVFA      1  82.71          mvfa-few
     MadCLIP      2  82.71          mvfa-few
    IQE-CLIP      2  77.09 iqeclip-few-other
    IQE-CLIP      7  77.09 iqeclip-few-other

    Args:
        dataset: ``Brain``, ``BUSI``, ... or ``mean_BMAD`` for a printed mean over sets.
        k: Normal images of the support; where the setting is few-shot, as many abnormal ones, too.
        metric: ``image_AUROC``, ``pixel_AUROC``, or ``image_and_pixel_AUROC`` for a mean of both.
        setting: ``full-shot``, ``few-normal-shot``, ``few-shot``, ``zero-shot``, ``cross-dataset``.

    Returns:
        One row a cell, in the order of the papers. ``value`` and ``spread`` are percent, in
        [0, 100]; ``spread`` is a standard deviation, NaN where none is printed. ``k`` is missing
        where no image of the target was counted. ``variant`` names an ablation and is empty for
        the method itself; ``trained_on`` is the training set of a cross-dataset cell.

    Raises:
        UnknownNameError: No table has such a dataset, k, metric or setting.
    """
    table = _read()
    wanted = {"dataset": dataset, "k": k, "metric": metric, "setting": setting}
    chosen = pd.Series(True, index=table.index)
    for column, choice in wanted.items():
        if choice is not None:
            chosen &= _rows_with(table, column, choice)
    return table[chosen].reset_index(drop=True)


def _read() -> DataFrame:
    with (files(__name__) / "tables.csv").open(encoding="utf-8") as file:
        # Empty text stays empty text; only numbers may be missing.
        empty = {name: "" for name in _NUMBERS}
        table = pd.read_csv(file, keep_default_na=False, na_values=empty)
    return table.astype({"k": "Int64"})


def _rows_with(table: DataFrame, column: str, choice: str | int) -> "pd.Series[bool]":
    known = sorted(table[column].dropna().unique())
    if choice not in known:
        there = ", ".join(map(str, known))
        msg = f"no published table has {column}={choice!r}; choose one of {there}"
        raise UnknownNameError(msg)
    return table[column].eq(choice).fillna(False).astype(bool)
