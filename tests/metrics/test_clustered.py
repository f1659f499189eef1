"""Variance, freedom and intervals by patients and draws equal their definitions, term by term."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from anomalib_medclip.errors import MetricError
from anomalib_medclip.metrics.clustered import (
    Sample,
    clear_best,
    clustered_interval,
    difference,
    enough,
    spread,
)
from anomalib_medclip.metrics.influence import (
    Influence,
    averaged,
    by_leaving_out,
    of_auroc,
    of_average_precision,
    of_f1,
    of_sensitivity,
    of_specificity,
)


def hospital(seed, patients=12, images=4, mixed=True, gain=1.0):
    """Scores, labels and owners; of patients who are not mixed half are abnormal."""
    random = np.random.default_rng(seed)
    owner = np.repeat(np.arange(patients), images)
    label = np.arange(patients * images) % 2 if mixed else (owner < patients // 2).astype(int)
    alike = random.normal(size=patients)[owner]
    return gain * label + alike + random.normal(size=len(label)), label, owner


def draws_of(seed, count=3, **options):
    found = []
    for draw in range(count):
        scores, label, owner = hospital(seed, **options)
        scores = scores + np.random.default_rng([seed, draw]).normal(size=len(scores))
        found.append(of_auroc(np.round(scores, 1), label, owner))
    return found


# --- influences


@given(seed=st.integers(0, 50), mixed=st.booleans())
def test_placements_of_a_patient_are_summed_over_his_images(seed, mixed):
    scores, label, owner = hospital(seed, mixed=mixed)
    scores = np.round(scores, 1)
    found = of_auroc(scores, label, owner)
    ill, well = scores[label == 1], scores[label == 0]
    wins = (ill[:, None] > well) + 0.5 * (ill[:, None] == well)
    area = wins.mean()
    assert found.value == pytest.approx(roc_auc_score(label, scores)) == pytest.approx(area)
    for place, name in enumerate(found.patients):
        abnormal = (wins.mean(axis=1) - area)[owner[label == 1] == name].sum() / len(ill)
        normal = (wins.mean(axis=0) - area)[owner[label == 0] == name].sum() / len(well)
        assert found.parts[place] == pytest.approx([normal, abnormal], abs=1e-12)
        assert found.images[place].sum() == np.count_nonzero(owner == name)


def test_average_precision_leaves_out_one_patient_at_a_time():
    scores, label, owner = hospital(3, patients=9)
    label[owner < 2] = 0  # two patients without abnormal images
    found = of_average_precision(scores, label, owner)
    without = np.array([
        average_precision_score(label[owner != p], scores[owner != p]) for p in range(9)
    ])  # fmt: skip
    for members in (np.arange(2), np.arange(2, 9)):
        count, mean = len(members), without[members].mean()
        expected = (count - 1) / count * (mean - without[members])
        assert found.parts[members].sum(axis=1) == pytest.approx(expected, abs=1e-12)
    assert found.parts[:2, 1].tolist() == [0, 0]


def test_a_patient_who_is_alone_of_his_kind_is_compared_with_all():
    images = np.array([[1, 1], [1, 0], [1, 0], [0, 1], [0, 1]])
    without = np.array([0.5, 0.7, 0.8, 0.7, 0.9])
    found = by_leaving_out(0.7, without, tuple("abcde"), images)
    assert found.parts[0] == pytest.approx(0.8 * (without.mean() - 0.5) / 2 * np.ones(2))


@pytest.mark.parametrize(
    ("of", "by_hand"),
    [
        (of_sensitivity, lambda label, called: called[label == 1].mean()),
        (of_specificity, lambda label, called: 1 - called[label == 0].mean()),
        (of_f1, f1_score),
    ],
)
def test_figures_at_a_threshold_move_as_leaving_a_patient_out_does(of, by_hand):
    scores, label, owner = hospital(1, patients=300)
    called = (scores > 0.6).astype(int)
    found = of(called, label, owner)
    assert found.value == pytest.approx(by_hand(label, called))
    for name in (0, 1, 2):
        rest = owner != name
        change = by_hand(label[rest], called[rest]) - found.value
        assert found.parts[name].sum() == pytest.approx(-change, abs=3e-5)


def test_seeds_are_averaged_on_the_same_images_only():
    one, two = draws_of(0, 2)
    both = averaged([one, two])
    assert both.value == pytest.approx((one.value + two.value) / 2)
    assert both.parts == pytest.approx((one.parts + two.parts) / 2)
    with pytest.raises(MetricError, match="averaged over the same images"):
        averaged([one, two._replace(patients=tuple("abcdefghijkl"))])


def test_an_influence_comes_back_from_json():
    one = draws_of(0, 1)[0]
    again = Influence.of_plain(one.as_plain())
    assert again.parts == pytest.approx(one.parts, rel=1e-8)
    assert (again.value, again.patients) == (one.value, one.patients)
    assert np.array_equal(again.images, one.images)


# --- variance and freedom


def variance_by_hand(parts, images):
    """Obuchowski's, group by group."""
    total, normal, abnormal = 0.0, parts[:, 0], parts[:, 1]
    for values, counts in ((normal, images[:, 0]), (abnormal, images[:, 1])):
        k = np.count_nonzero(counts)
        total += k / (k - 1) * np.sum(values**2)
    return total + 2 * len(parts) / (len(parts) - 1) * np.sum(normal * abnormal)


@given(seed=st.integers(0, 50), mixed=st.booleans(), count=st.integers(1, 5))
def test_variance_and_freedom_are_their_definitions(seed, mixed, count):
    draws = draws_of(seed, count, mixed=mixed)
    found = spread(Sample.of(draws))
    images = draws[0].images
    mean = np.mean([draw.parts for draw in draws], axis=0)
    by_patient, by_draw = variance_by_hand(mean, images), 0.0
    if count > 1:
        inner = sum(variance_by_hand(draw.parts - mean, images) for draw in draws)
        noise = inner / (count * (count - 1))
        by_draw = max(0, np.var([draw.value for draw in draws], ddof=1) / count - noise)
    assert found.variance == pytest.approx(by_patient + by_draw)
    squares = mean.sum(axis=1) ** 2
    groups = [squares] if mixed else [squares[:6], squares[6:]]
    freedom = sum(map(np.sum, groups)) ** 2 / sum(g.sum() ** 2 / (len(g) - 1) for g in groups)
    terms = by_patient**2 / freedom + (by_draw**2 / (count - 1) if by_draw else 0)
    assert found.freedom == pytest.approx(found.variance**2 / terms)


def test_one_image_a_patient_and_one_draw_is_delongs_variance():
    random = np.random.default_rng(0)
    label = np.arange(60) % 2
    scores = label + random.normal(size=60)
    ill, well = scores[label == 1], scores[label == 0]
    wins = ill[:, None] > well
    delong = sum(np.var(wins.mean(axis=axis), ddof=1) / 30 for axis in (0, 1))
    found = spread(Sample.of([of_auroc(scores, label, np.arange(60))]))
    assert found.variance == pytest.approx(delong)


def test_a_patient_of_other_draws_counts_as_untested_there():
    one, two = (of_auroc(*hospital(seed, patients=6)) for seed in (0, 1))
    two = two._replace(patients=tuple(range(3, 9)))
    sample = Sample.of([one, two])
    assert sample.patients == tuple(range(9))
    assert sample.parts[0, 6:].any() == sample.parts[1, :3].any() == False  # noqa: E712
    assert sample.tested.tolist() == [[6, 6], [6, 6]]
    assert sample.images.sum() == 9 * 4


def test_draws_without_a_support_add_nothing():
    one = draws_of(0, 1)
    assert spread(Sample.of(one * 4)) == pytest.approx(tuple(spread(Sample.of(one))))


# --- intervals


def test_inside_the_borders_the_interval_is_of_the_logit():
    sample = Sample.of(draws_of(0, 3, patients=30))
    found, value = spread(sample), sample.value
    step = stats.t.ppf(0.975, found.freedom) * np.sqrt(found.variance) / (value * (1 - value))
    ends = np.log(value / (1 - value)) + np.array([-step, step])
    assert clustered_interval(sample)[1:] == pytest.approx(tuple(1 / (1 + np.exp(-ends))))


def test_near_one_the_interval_is_newcombes_and_is_mirrored_near_zero():
    """Newcombe 2006, method 5: AUROC 1 of 20 + 20 independent images."""
    label, owner = np.arange(40) % 2, np.arange(40)
    perfect = clustered_interval(Sample.of([of_auroc(label, label, owner)]))
    low = perfect.low
    more = 19 * ((1 - low) / (2 - low) + low / (1 + low))
    variance = low * (1 - low) * (1 + more) / 400
    assert 1 - low == pytest.approx(stats.norm.ppf(0.975) * np.sqrt(variance))
    assert (perfect.estimate, perfect.high) == (1, 1)
    assert 0.8 < low < 0.95
    wrong = clustered_interval(Sample.of([of_auroc(-label, label, owner)]))
    assert wrong == pytest.approx((0, 0, 1 - low))
    scores, label, owner = hospital(2, patients=40, gain=4.5)
    near = clustered_interval(Sample.of([of_auroc(scores, label, owner)]))
    assert 0.97 < near.estimate < 1
    assert near.low < near.estimate < near.high < 1


def test_perfect_scores_of_like_images_are_as_sure_as_their_patients():
    label, owner = np.arange(80) % 2, np.arange(80) // 8
    few = clustered_interval(Sample.of([of_auroc(label, label, owner)]))
    many = clustered_interval(Sample.of([of_auroc(label, label, np.arange(80))]))
    assert few.low < many.low - 0.05


def test_constant_scores_are_not_certain():
    label, owner = np.arange(80) % 2, np.arange(80) // 4
    found = clustered_interval(Sample.of([of_auroc(np.ones(80), label, owner)] * 5))
    assert found.estimate == 0.5
    assert found.high - found.low > 0.2


def test_a_share_has_wilsons_interval_of_what_its_images_are_worth():
    label, owner = np.arange(100) % 2, np.arange(100)
    called = label.copy()
    called[1:9:2] = 0  # 46 of 50
    found = clustered_interval(Sample.of([of_sensitivity(called, label, owner)]), "sensitivity")
    wilson = stats.binomtest(46, 50).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx(tuple(wilson), abs=0.006)  # t for normal
    alike = np.arange(100) // 10
    of_ten = clustered_interval(Sample.of([of_sensitivity(called, label, alike)]), "sensitivity")
    assert of_ten.low < found.low
    none = clustered_interval(Sample.of([of_specificity(1 - label, label, owner)]), "specificity")
    assert none[:2] == (0, 0)
    assert none.high == pytest.approx(stats.binomtest(0, 50).proportion_ci(method="wilson").high)


@given(
    seed=st.integers(0, 30),
    gain=st.sampled_from([-6.0, 0.0, 1.0, 3.0, 8.0]),
    kind=st.sampled_from(["auroc", "other", "sensitivity", "specificity", "f1"]),
)
def test_an_interval_holds_its_figure_and_stays_inside_0_to_1(seed, gain, kind):
    scores, label, owner = hospital(seed, gain=gain)
    called = (scores > gain / 2).astype(int)
    makers = {"sensitivity": of_sensitivity, "specificity": of_specificity, "f1": of_f1}
    of, given_scores = (makers[kind], called) if kind in makers else (of_auroc, scores)
    found = clustered_interval(Sample.of([of(given_scores, label, owner)]), kind)
    assert 0 <= found.low <= found.estimate <= found.high <= 1
    assert found.high - found.low > 0.01


# --- two methods, and more


def test_a_difference_is_of_paired_influences():
    first, second = (Sample.of(draws_of(seed, 4)) for seed in (0, 1))
    found = difference(first, second)
    gaps = first._replace(
        values=first.values - second.values, parts=first.parts - second.parts
    )  # fmt: skip
    of = spread(gaps)
    half = stats.t.ppf(0.975, of.freedom) * np.sqrt(of.variance)
    gap = first.value - second.value
    assert found[:3] == pytest.approx((gap, gap - half, gap + half))
    assert found.p_value == pytest.approx(
        2 * stats.t.sf(abs(gap) / np.sqrt(of.variance), of.freedom)
    )
    assert difference(second, first)[:3] == pytest.approx((-gap, -gap - half, -gap + half))


def test_the_same_scores_and_no_variance_are_no_test():
    one = Sample.of(draws_of(0, 4))
    assert difference(one, one) == (0, -1, 1, 1)
    label, owner = np.arange(80) % 2, np.arange(80) // 4
    right = Sample.of([of_auroc(label, label, owner)] * 4)
    wrong = Sample.of([of_auroc(-label, label, owner)] * 4)
    assert difference(right, wrong).p_value == 1
    assert clear_best([right, wrong]) is None


def test_the_best_beats_every_other_one():
    good, fair, near = (
        Sample.of([of_auroc(gain * label + noise, label, owner)] * 4)
        for gain, noise, label, owner in (
            (gain, np.random.default_rng(seed).normal(size=240), np.arange(240) % 2,
             np.arange(240) // 8)
            for gain, seed in ((3.0, 1), (0.5, 2), (2.9, 3))
        )
    )  # fmt: skip
    assert clear_best([fair, good]) == 1
    assert clear_best([fair, good, near]) is None
    assert clear_best([good]) is None


@pytest.mark.parametrize(
    ("draws", "patients", "expected"), [(4, 5, True), (3, 5, False), (4, 4, False)]
)
def test_four_draws_and_five_patients_of_a_class_are_enough(draws, patients, expected):
    sample = Sample.of(draws_of(0, draws, patients=2 * patients, mixed=False))
    assert enough(sample) is expected


def test_other_patients_or_images_are_not_compared():
    one, other = Sample.of(draws_of(0)), Sample.of(draws_of(0, patients=13))
    with pytest.raises(MetricError, match="the same draws, patients and images"):
        difference(one, other)
    with pytest.raises(MetricError, match="the same draws, patients and images"):
        difference(one, Sample.of(draws_of(0, 4)))


def test_one_patient_of_a_class_has_no_interval():
    label, owner = np.repeat([0, 1], [8, 2]), np.repeat([0, 1, 2, 3, 9], 2)
    scores = np.random.default_rng(0).normal(size=10)
    with pytest.raises(MetricError, match="one patient of a class says nothing of others"):
        clustered_interval(Sample.of([of_auroc(scores, label, owner)]))
    with pytest.raises(MetricError, match="a class is empty; add patients of the rarer"):
        of_average_precision(scores, label, owner)
    with pytest.raises(MetricError, match="give one or more"):
        Sample.of([])
    with pytest.raises(MetricError, match="give a number between 0 and 1"):
        clustered_interval(Sample.of(draws_of(0)), confidence=95)
