"""Intervals equal brute force and textbook values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from anomalib_medclip.errors import MetricError
from anomalib_medclip.metrics import bootstrap, compare_by_patient, delong, mean_interval
from anomalib_medclip.metrics.images import ScoredImages
from anomalib_medclip.metrics.intervals import weighted_auroc, weighted_average_precision

finite = st.floats(-1e3, 1e3)
tied = st.sampled_from([0.0, 0.25, 0.5, 1.0])


@st.composite
def images(draw, least=4):
    """Scores of two methods, often tied, with labels, two or more of each, and patients."""
    count = draw(st.integers(least, 24))
    scores = draw(arrays.arrays(np.float64, (2, count), elements=st.one_of(finite, tied)))
    labels = draw(arrays.arrays(bool, count))
    labels[:least] = np.arange(least) < least // 2
    return scores, labels, draw(arrays.arrays(np.int64, count, elements=st.integers(0, 5)))


@pytest.fixture
def study():
    """Forty patients of three images each, alike, and two methods, the first one better."""
    random = np.random.default_rng(0)
    labels = np.repeat(random.random(40) < 0.5, 3)
    patients = np.repeat([f"P{number:02}" for number in range(40)], 3)
    alike = np.repeat(random.normal(size=40), 3)
    noise = random.normal(size=(2, 120))
    return 2.0 * labels + alike + noise[0], 0.5 * labels + alike + noise[1], labels, patients


# --- over draws


@given(values=st.lists(finite, min_size=2, max_size=12), confidence=st.sampled_from([0.5, 0.95]))
def test_the_interval_of_a_mean_is_students(values, confidence):
    found = mean_interval(values, confidence)
    deviation = stats.sem(values)
    low, high = (
        stats.t.interval(confidence, len(values) - 1, np.mean(values), deviation)
        if deviation > 0
        else (np.mean(values),) * 2
    )
    assert found == pytest.approx((np.mean(values), low, high), abs=1e-9)


def test_the_interval_of_three_draws_is_the_textbooks():
    # t(0.975, 2) is 4.3027, the standard error 0.02 / sqrt(3).
    found = mean_interval([0.90, 0.92, 0.94])
    assert found == pytest.approx((0.92, 0.92 - 0.049683, 0.92 + 0.049683), abs=1e-6)


@pytest.mark.parametrize("values", [[], [0.9], [0.9, float("nan")], [[0.1, 0.2]]])
def test_one_draw_has_no_interval(values):
    with pytest.raises(MetricError, match="give two or more finite values, one a draw"):
        mean_interval(values)


@pytest.mark.parametrize("confidence", [0, 1, 95])
def test_confidence_is_a_share(confidence):
    with pytest.raises(MetricError, match="give a number between 0 and 1"):
        mean_interval([0.1, 0.2], confidence)


# --- by patient


@pytest.mark.parametrize(
    ("statistic", "reference"),
    [(weighted_auroc, roc_auc_score), (weighted_average_precision, average_precision_score)],
    ids=["auroc", "average precision"],
)
@given(case=images(), seed=st.integers(0, 99))
def test_a_weight_of_two_is_the_image_twice(statistic, reference, case, seed):
    (scores, _), labels, _ = case
    weights = np.random.default_rng(seed).integers(0, 4, (5, len(labels))).astype(float)
    weights[:, [0, 2]] += 1  # one of each class
    found = statistic(scores, labels, weights)
    for value, row in zip(found, weights.astype(int), strict=True):
        copies = np.repeat(np.arange(len(labels)), row)
        assert value == pytest.approx(reference(labels[copies], scores[copies]), abs=1e-9)


@given(case=images())
def test_a_patient_is_drawn_with_all_images_and_both_classes_stay(case):
    scores, labels, patients = case
    labels = labels.copy()
    labels[patients == patients[0]] = np.arange(np.sum(patients == patients[0])) % 2 == 0
    table = ScoredImages.of(scores, labels | (np.arange(len(labels)) == 0), patients)
    weights = np.concatenate(list(table.weights(50, seed=1)))
    for patient in np.unique(patients):
        assert np.ptp(weights[:, patients == patient], axis=1).max() == 0
    firsts = np.unique(patients, return_index=True)[1]
    assert (weights[:, firsts].sum(axis=1) == len(firsts)).all()
    assert (weights @ table.abnormal > 0).all()
    assert (weights @ ~table.abnormal > 0).all()


def test_the_interval_is_the_percentiles_of_resampled_patients(study):
    scores, _, labels, patients = study
    found = bootstrap(scores, labels, patients, draws=4000, seed=3)
    random, values = np.random.default_rng(8), []
    names = np.unique(patients)
    owned = {name: np.flatnonzero(patients == name) for name in names}
    for _ in range(1000):
        drawn = np.concatenate([owned[name] for name in random.choice(names, len(names))])
        ill = labels[drawn]
        values.append((scores[drawn][ill][:, None] > scores[drawn][~ill]).mean())
    assert found.estimate == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)
    assert (found.low, found.high) == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.012)


def test_patients_make_the_interval_wider_than_their_images(study):
    scores, _, labels, patients = study
    by_patient = bootstrap(scores, labels, patients)
    by_image = bootstrap(scores, labels, np.arange(len(labels)))
    assert by_patient.high - by_patient.low > 1.2 * (by_image.high - by_image.low)


def test_the_same_seed_draws_the_same_patients(study, monkeypatch):
    scores, _, labels, patients = study
    found = bootstrap(scores, labels, patients, draws=300, seed=1)
    assert found == bootstrap(scores, labels, patients, draws=300, seed=1)
    assert found == bootstrap(2 * scores + 5, labels, patients, draws=300, seed=1)
    assert found != bootstrap(scores, labels, patients, draws=300, seed=2)
    whole = bootstrap(scores, labels, patients, draws=300, statistic=weighted_average_precision)
    monkeypatch.setattr("anomalib_medclip.metrics.images.AT_A_TIME", len(labels) * 7)
    again = bootstrap(scores, labels, patients, draws=300, statistic=weighted_average_precision)
    assert again[0] == whole[0]  # drawn in small parts, of as many draws
    assert again == pytest.approx(whole, abs=0.02)


def test_seeds_are_averaged_for_the_same_patients(study):
    first, second, labels, patients = study
    both = bootstrap([first, second], labels, patients, draws=300)
    single = [bootstrap(scores, labels, patients, draws=300) for scores in (first, second)]
    assert both.estimate == pytest.approx(np.mean([one.estimate for one in single]))
    assert bootstrap([first, first], labels, patients, draws=300) == pytest.approx(single[0])
    found = compare_by_patient([first, second], second, labels, patients, draws=300)
    whole = compare_by_patient(first, second, labels, patients, draws=300)
    assert found[:3] == pytest.approx([value / 2 for value in whole[:3]])


# --- two methods


def test_a_better_method_is_better_and_the_same_is_the_same(study):
    first, second, labels, patients = study
    better = compare_by_patient(first, second, labels, patients, draws=1000)
    gap = roc_auc_score(labels, first) - roc_auc_score(labels, second)
    assert better.difference == pytest.approx(gap, abs=1e-9)
    assert 0 < better.low < gap < better.high
    assert better.p_value == pytest.approx(2 / 1001)  # no draw says otherwise
    worse = compare_by_patient(second, first, labels, patients, draws=1000)
    assert worse[:3] == pytest.approx((-better[0], -better[2], -better[1]))
    same = compare_by_patient(first, first, labels, patients, draws=100)
    assert same == (0, 0, 0, 1)


def delong_by_hand(scores, labels):
    """Variance of the difference, from every pair of images."""

    def wins(one):
        ill, well = one[labels][:, None], one[~labels][None]
        return (ill > well) + 0.5 * (ill == well)

    pairs = [wins(one) for one in scores]
    of_ill, of_well = (np.array([pair.mean(axis=axis) for pair in pairs]) for axis in (1, 0))
    spread = np.cov(of_ill) / of_ill.shape[1] + np.cov(of_well) / of_well.shape[1]
    contrast = np.array([1, -1])
    return pairs[0].mean() - pairs[1].mean(), contrast @ spread @ contrast


@given(case=images(least=10))
def test_delong_is_its_definition(case):
    scores, labels, _ = case
    found = delong(*scores, labels)
    gap, variance = delong_by_hand(scores, labels)
    assert found.difference == pytest.approx(gap, abs=1e-9)
    if variance < 1e-12:
        assert found[1:] == (-1, 1, 1)
        return
    half = stats.norm.ppf(0.975) * np.sqrt(variance)
    assert (found.low, found.high) == pytest.approx((gap - half, gap + half), abs=1e-6)
    p_value = 2 * stats.norm.sf(abs(gap) / np.sqrt(variance))
    assert found.p_value == pytest.approx(p_value, abs=1e-6)


@pytest.mark.parametrize(("normal", "abnormal"), [(2, 2), (4, 30), (30, 4)])
def test_of_few_images_delong_is_refused_and_never_certain(normal, abnormal):
    labels = np.repeat([0, 1], [normal, abnormal])
    right = np.arange(normal + abnormal, dtype=float)
    with pytest.raises(MetricError, match="would be too sure; add images, to 5 of each class"):
        delong(right, -right, labels)


def test_without_variance_delong_knows_nothing():
    labels = np.repeat([0, 1], 5)
    right = np.arange(10.0)
    assert delong(right, right, labels) == (0, -1, 1, 1)
    assert delong(right, -right, labels) == (1, -1, 1, 1)
    # Shares that float64 cannot hold leave a variance of rounding, which is none.
    labels, right = np.repeat([0, 1], [7, 6]), np.arange(13.0)
    assert delong(right, np.ones(13), labels) == (0.5, -1, 1, 1)


def test_delongs_p_value_is_uniform_without_a_difference():
    random = np.random.default_rng(2)
    labels = np.arange(60) % 2 == 0
    found = [delong(*(labels + random.normal(size=(2, 60))), labels).p_value for _ in range(300)]
    assert stats.kstest(found, "uniform").pvalue > 0.01


# --- what is refused


def test_every_image_has_a_score_a_label_and_a_patient():
    with pytest.raises(MetricError, match="3 scores, 3 labels and 2 patients; give one of each"):
        bootstrap([0.1, 0.2, 0.3], [0, 1, 0], ["a", "b"])
    with pytest.raises(MetricError, match=r"scores of shapes \(2,\) and \(3,\)"):
        delong([0.1, 0.2], [0.1, 0.2, 0.3], [0, 1])


@pytest.mark.parametrize("labels", [[0, 0], [1, 1], [0, 2]])
def test_both_classes_and_nothing_else_are_needed(labels):
    with pytest.raises(MetricError, match="give images of both classes, 0 normal and 1 abnormal"):
        bootstrap([0.1, 0.2], labels, ["a", "b"])


def test_odd_scores_and_too_few_are_refused():
    with pytest.raises(MetricError, match="a score is NaN or infinite"):
        bootstrap([0.1, np.nan], [0, 1], ["a", "b"])
    with pytest.raises(MetricError, match="0 draws make no interval"):
        bootstrap([0.1, 0.2], [0, 1], ["a", "b"], draws=0)


def test_a_lone_patient_of_a_class_who_is_hardly_drawn_is_told(monkeypatch):
    monkeypatch.setattr("anomalib_medclip.metrics.images._TRIES", 1)
    with pytest.raises(MetricError, match="2 patients hardly ever give both classes"):
        bootstrap([0.1, 0.2], [0, 1], ["a", "b"])
