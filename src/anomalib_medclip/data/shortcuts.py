"""Numbers that have nothing to do with lesions, and yet tell the classes of some data apart."""

from collections.abc import Iterator

from pandas import DataFrame

from anomalib_medclip.data.integrity import Problem

_SHORTCUT = 0.75
_CHANCE = 0.01  # p-value above which few images separate by chance


def separations(images: DataFrame, chance: float = 1.0) -> dict[str, float]:
    """How well one number alone tells the classes apart.

    Args:
        images: Table with ``label_index``, ``mean``, ``height`` and ``width``.
        chance: Leave out what separates no better than chance, by the p-value of a rank test.

    Returns:
        The AUROC, in whichever direction is better, of ``mean intensity`` and of ``size``, the best
        of height, width and area; nothing where a class is lacking.
    """
    from scipy.stats import mannwhitneyu

    ill = images["label_index"] == 1
    if ill.all() or not ill.any():
        return {}
    area = images["height"] * images["width"]
    found: dict[str, float] = {}
    for name, numbers in (
        ("mean intensity", images["mean"]),
        ("size", images["height"]),
        ("size", images["width"]),
        ("size", area),
    ):
        test = mannwhitneyu(numbers[ill], numbers[~ill])
        auroc = float(test.statistic) / (int(ill.sum()) * int((~ill).sum()))
        if not test.pvalue > chance:  # it is no number where all are alike
            found[name] = max(found.get(name, 0.5), auroc, 1 - auroc)
    return found


def shortcut_problems(images: DataFrame, name: str) -> Iterator[Problem]:
    """Numbers that tell the classes of a set apart and have nothing to do with lesions."""
    for what, auroc in separations(images, _CHANCE).items():
        if auroc >= _SHORTCUT:
            yield Problem(
                "class shortcut",
                name,
                f"has classes that {what} alone tells apart, AUROC {auroc:.2f}",
                "compare every result with this one, and the sources of both classes",
                "warning",
            )
