"""Scores of equal methods on patients and draws that are samples, with the truth known.

score = label x gain + patient + draw + noise, where each draw of the support adds something of its
own to each image. The truth is the mean AUROC over patients and draws.
"""

from typing import NamedTuple

import numpy as np
from scipy import stats

from anomalib_medclip.metrics import mean_interval
from anomalib_medclip.metrics.clustered import Sample, clear_best, clustered_interval, enough
from anomalib_medclip.metrics.influence import of_auroc

LIKENESS = 0.7
"""Standard deviation of what a patient adds to all of his images, in those of the noise."""


class Setting(NamedTuple):
    """A cell of the table.

    Attributes:
        patients: How many there are; with splits drawn anew, in the whole pool.
        images: Of each patient; one half of each class where ``mixed``.
        spread: Standard deviation of what a draw adds to each image by itself (tau).
        draws: Of the support.
        anew: Whether each draw tests another 80 % of the patients.
        mixed: Whether each patient has images of both classes.
        common: Standard deviation of what a draw adds to all abnormal images alike.
        auroc: The truth where ``common`` is zero and patients are of one class.
        shape: Of the noise: ``normal``, ``skewed``, ``heavy`` or ``ties``, normal in five steps.
        unequal: Whether patients have from one to twice as many images.
        ill: Abnormal patients, where they are of one class; else half of them.
    """

    patients: int
    images: int
    spread: float
    draws: int
    anew: bool = False
    mixed: bool = True
    common: float = 0.0
    auroc: float = 0.75
    shape: str = "normal"
    unequal: bool = False
    ill: int | None = None


class Study(NamedTuple):
    """Labels and patients of images, and of each method and draw the scores, and who is tested."""

    labels: np.ndarray
    patients: np.ndarray
    scores: np.ndarray
    """``[method, draw, image]``."""
    tested: np.ndarray
    """``[draw, image]``."""


def study(setting, random, methods=2):
    """One study: the patients are the same for all methods, what else is added is not."""
    labels, patients = images_of(setting, random)
    count, kinds = len(labels), (methods, setting.draws)
    gain = gain_of(setting)
    patient = LIKENESS * random.normal(size=(methods, setting.patients))[:, patients]
    scores = np.broadcast_to(patient[:, None], (*kinds, count)).copy()
    scores += labels * (gain + setting.common * random.normal(size=(*kinds, 1)))
    scores += setting.spread * random.normal(size=(*kinds, count))
    scores += noise(setting.shape, random, (methods, 1, count))
    if setting.shape == "ties":
        scores = np.round(scores)
    tested = np.ones((setting.draws, count), dtype=bool)
    if setting.anew:
        tested = np.stack([chosen(setting, random, labels, patients) for _ in tested])
    return Study(labels, patients, scores, tested)


def images_of(setting, random):
    """Label and patient of each image."""
    counts = np.full(setting.patients, setting.images)
    if setting.unequal:
        counts = random.integers(1, 2 * setting.images + 1, setting.patients)
        counts += setting.mixed * counts % 2
    patients = np.repeat(np.arange(setting.patients), counts)
    if setting.mixed and setting.images > 1:
        labels = np.concatenate([np.arange(count) % 2 for count in counts])
    else:
        ill = setting.patients // 2 if setting.ill is None else setting.ill
        labels = (patients < ill).astype(int)
    return labels, patients


def chosen(setting, random, labels, patients):
    """Images of the tested 80 % of patients, of each class where patients are of one."""
    tested = []
    kind = np.array([labels[patients == one].max() for one in range(setting.patients)])
    for group in np.unique(kind):
        of = np.flatnonzero(kind == group)
        tested.append(random.permutation(of)[: round(0.8 * len(of))])
    return np.isin(patients, np.concatenate(tested))


def noise(shape, random, size):
    """Of standard deviation one."""
    if shape == "skewed":
        return random.exponential(size=size) - 1
    if shape == "heavy":
        return random.standard_t(3, size=size) / np.sqrt(3)
    return random.normal(size=size)


def gain_of(setting):
    """What an abnormal image has above a normal one, for the AUROC asked for."""
    deviation = np.sqrt(2 * (1 + LIKENESS**2 + setting.spread**2))
    return stats.norm.ppf(setting.auroc) * deviation


def truth_of(setting, random, studies=2000, of=of_auroc):
    """Mean figure over patients and draws: exact for normal scores, else by studies."""
    plain = setting.shape == "normal" and not setting.common and not setting.unequal
    if plain and of is of_auroc:
        inside = 2 * (1 + setting.spread**2)
        across = inside + 2 * LIKENESS**2
        # Pairs within a patient do not share in his likeness.
        half = setting.images // 2
        own = half * half * setting.patients if setting.mixed and setting.images > 1 else 0
        share = own / (half * setting.patients) ** 2 if own else 0.0
        gain = gain_of(setting)
        parts = [stats.norm.cdf(gain / np.sqrt(v)) for v in (inside, across)]
        return share * parts[0] + (1 - share) * parts[1]
    alone = setting._replace(draws=1, anew=False)
    values = []
    for _ in range(studies):
        one = study(alone, random, methods=4)
        values += [of(s[0], one.labels, one.patients).value for s in one.scores]
    return float(np.mean(values))


def samples_of(one, of=of_auroc):
    """What the report makes of a study, method by method."""
    return [
        Sample.of([
            of(scores[test], one.labels[test], one.patients[test])
            for scores, test in zip(method, one.tested, strict=True)
        ])
        for method in one.scores
    ]  # fmt: skip


class Found(NamedTuple):
    """Of many studies: shares, and the median width of the intervals.

    Attributes:
        covered: How often the interval of a method holds the truth.
        marked: How often one of two equal methods beats the other, p < 0.05.
        width: Of intervals.
        ruled: How often one is marked, with the rules of enough draws and patients.
        t_covered: How often Student's interval over draws holds it.
        t_marked: How often Student's paired interval over draws marks one.
        t_width: Of Student's intervals.
    """

    covered: float
    marked: float
    width: float
    ruled: float
    t_covered: float
    t_marked: float
    t_width: float


def simulate(setting, seed, studies, of=of_auroc, kind="auroc", truth=None):
    """Shares over so many studies of two equal methods."""
    random = np.random.default_rng(seed)
    truth = truth_of(setting, random, of=of) if truth is None else truth
    every = [_judged(setting, samples_of(study(setting, random), of), truth, kind)
             for _ in range(studies)]  # fmt: skip
    columns = np.array(every, dtype=float).T
    means = np.nanmean(columns, axis=1) if setting.draws > 1 else columns.mean(axis=1)
    return Found(*means)._replace(width=np.median(columns[2]), t_width=np.median(columns[6]))


def _judged(setting, samples, truth, kind):
    found = clustered_interval(samples[0], kind)
    marked = clear_best(samples) is not None
    ruled = marked and enough(samples[0])
    old = (np.nan,) * 3
    if setting.draws > 1:
        student = mean_interval(samples[0].values)
        gap = mean_interval(samples[0].values - samples[1].values)
        old = (student.low <= truth <= student.high, gap.low > 0 or gap.high < 0,
               student.high - student.low)  # fmt: skip
    return (found.low <= truth <= found.high, marked, found.high - found.low, ruled, *old)


GRID = [
    Setting(patients, images, spread, draws, anew)
    for patients, images in ((30, 8), (100, 8), (300, 1))
    for spread in (0.3, 1.0)
    for draws in (2, 5)
    for anew in (False, True)
]
"""What the intervals have to hold in."""
