"""What the table says, in a few sentences."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from anomalib_medclip.report.numbers import percent
from anomalib_medclip.report.rows import ReportRow

_METRIC = "image_AUROC"
_FEW = 4


def k_in_words(row: ReportRow) -> str:
    """K in words, for the table.

    >>> k_in_words(ReportRow("A", "support", "method", "", False, "x", "x", 4, 2, 0, {}, {}, {}))
    '4'
    """
    if row.k_shot is not None:
        return str(row.k_shot)
    return "all" if row.normals == "train" else "0"


def learns_from(row: ReportRow) -> str:
    """Which images of the training set a model is given, in words."""
    if row.kind == "trivial":
        return "learns nothing"
    if row.normals == "train":
        return "all normals"
    if row.k_shot is None:
        return "zero-shot"
    if not row.draws:
        return "K images"  # a cell that failed does not know
    return "K + K images" if row.learns_abnormal else "K normals"


def amount(value: float) -> str:
    """Seconds or megabytes in three digits.

    >>> amount(0.01234), amount(5.678), amount(123.4), amount(0.0000042)
    ('0.0123', '5.68', '123', '< 0.001')
    """
    if 0 < value < 0.001:
        return "< 0.001"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def setup_in_words(row: ReportRow) -> str:
    """The test set and K of a row, in words."""
    source = "" if row.trained_on == row.tested_on else f" after training on {row.trained_on}"
    return f"{row.tested_on}{source} (K = {k_in_words(row)})"


def conclusions(rows: Sequence[ReportRow]) -> list[str]:
    """Which method is best where, how large the gap is, and what trivial scores reach.

    Returns:
        Sentences on image AUROC; one that says so if no cell has it.
    """
    scored = [row for row in rows if _METRIC in row.honest]
    if not scored:
        return ["No training has finished with an image AUROC, so there is nothing to compare yet."]
    return [*_best(scored), *_gap(scored), *_trivial(scored)]


def limits(rows: Sequence[ReportRow]) -> list[tuple[str, str]]:
    """What the intervals cannot say: each sentence, and where it holds."""
    return _places(rows, [row.caveats for row in rows])


def aggregations(rows: Sequence[ReportRow]) -> list[tuple[str, str]]:
    """How images become one score of a volume or patient: each way, and where it was taken."""
    return _places(rows, [row.aggregated for row in rows])


def _places(rows: Sequence[ReportRow], told: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    """Each sentence that is told of some rows, and where that is."""
    found: dict[str, dict[str, list[str]]] = {}
    for row, sentences in zip(rows, told, strict=True):
        for sentence in sentences:
            found.setdefault(sentence, {}).setdefault(setup_in_words(row), []).append(row.model)
    every = Counter(setup_in_words(row) for row in rows)
    return [(sentence, _where(places, every)) for sentence, places in found.items()]


def _where(places: Mapping[str, Sequence[str]], every: Mapping[str, int]) -> str:
    """Places, with the models where it is not all of them."""
    if all(len(places.get(where, ())) == count for where, count in every.items()):
        return "everywhere"
    named = [
        where if len(models) == every[where] else f"{where}: {', '.join(dict.fromkeys(models))}"
        for where, models in places.items()
    ]
    more = f"; and {len(named) - _FEW} more" if len(named) > _FEW else ""
    return "; ".join(named[:_FEW]) + more


def _best(rows: Sequence[ReportRow]) -> Iterable[str]:
    rivals = Counter(setup_in_words(row) for row in rows if row.kind != "trivial")
    places = [where for where, count in rivals.items() if count > 1]
    best = [row for row in rows if _METRIC in row.best]
    if best:
        yield f"Patients and draws support a best method by image AUROC for: {_named(best)}."
    without = len(set(places) - {setup_in_words(row) for row in best})
    if best and without:
        yield f"In the other {without} of {len(places)} comparisons they support none."
    elif without:
        where = "in the one comparison" if without == 1 else f"in any of the {without} comparisons"
        yield f"Patients and draws support no best method by image AUROC {where}."


def _named(best: Sequence[ReportRow]) -> str:
    """Each of the best where they are few, else how often each model is."""
    if len(best) > _FEW:
        counts = Counter(f"{row.model}{', all normals' * (row.normals == 'train')}" for row in best)
        return ", ".join(f"{model} in {count}" for model, count in counts.most_common()) + " cases"
    return ", ".join(
        f"{row.model} on {setup_in_words(row)} with {percent(row.honest[_METRIC].mean)} %"
        for row in best
    )


def _gap(rows: Sequence[ReportRow]) -> Iterable[str]:
    found = [row for row in rows if _METRIC in row.gap and row.kind == "method"]
    if not found:
        return
    largest = max(found, key=lambda row: row.gap[_METRIC].mean)
    mean = fmean(row.gap[_METRIC].mean for row in found)
    if largest.gap[_METRIC].mean < 0.0005:
        yield "Choosing the epoch on the test images would raise no method's image AUROC."
        return
    change = f"{'+' if mean >= 0 else ''}{percent(mean)}"
    yield (
        "Choosing the epoch on the test images, as published tables do, would change the methods' "
        f"image AUROC by {change} points on average, and raise it at most by "
        f"{percent(largest.gap[_METRIC].mean)}, for {largest.model} on {setup_in_words(largest)}."
    )


def _trivial(rows: Sequence[ReportRow]) -> Iterable[str]:
    trivial: dict[str, float] = {}
    for row in rows:
        if row.kind == "trivial":
            mean = row.honest[_METRIC].mean
            trivial[setup_in_words(row)] = max(mean, trivial.get(setup_in_words(row), mean))
    rivals = [row for row in rows if row.kind != "trivial" and setup_in_words(row) in trivial]
    beaten = [row for row in rivals if row.honest[_METRIC].mean <= trivial[setup_in_words(row)]]
    if beaten:
        compared = Counter(row.model for row in rivals)
        counts = Counter(row.model for row in beaten)
        named = ", ".join(f"{name} in {n} of {compared[name]}" for name, n in counts.items())
        if len(counts) > _FEW:
            named = f"{len(counts)} of {len(compared)} models, in {len(beaten)} of {len(rivals)}"
        yield f"No better than a trivial score, by the mean: {named} comparisons."
    elif rivals:
        yield "All are better than the trivial scores, by the mean."
