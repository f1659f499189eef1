"""Figures of lesions, against loops of our own over whole volumes, and against MONAI's."""

from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np
import pytest
import torch
from monai.metrics.froc import compute_fp_tp_probs_nd, compute_froc_curve_data
from scipy import stats

from anomalib_medclip.errors import MetricError
from anomalib_medclip.metrics import lesion_counts, map_stacks
from anomalib_medclip.metrics.lesion_counts import RATES
from anomalib_medclip.metrics.lesion_matches import Lesions, matches
from anomalib_medclip.metrics.lesion_wise import LesionFigures, LesionWise


class Volume(NamedTuple):
    """Slices of a patient's volume, or one image; ``places`` are their numbers."""

    owner: str
    name: str
    scores: np.ndarray
    lesion: np.ndarray
    ignored: np.ndarray
    places: tuple[int, ...]


def volume(owner, scores, lesion=None, ignored=None, name="v", places=None):
    scores = np.asarray(scores, dtype=np.float32)
    lesion = np.zeros(scores.shape, bool) if lesion is None else np.asarray(lesion, bool)
    ignored = np.zeros(scores.shape, bool) if ignored is None else ignored
    return Volume(owner, name, scores, lesion, ignored, tuple(places or range(len(scores))))


def drawn(seed, patients=4, values=5, side=6):
    """Small volumes of few scores, some lesions and ignored pixels, some slices left out."""
    random = np.random.default_rng(seed)
    for patient in range(patients):
        for scan in range(random.integers(1, 3)):
            depth = 1 if random.random() < 0.2 else 4
            shape = (depth, side, side)
            lesion = (random.random(shape) < 0.12) & (random.random() < 0.7)
            scores = random.integers(0, values, shape) * (random.random(shape) < 0.3)
            ignored = random.random(shape) < 0.05
            places = sorted(random.choice(6, depth, replace=False).tolist())
            name = "" if depth == 1 else f"scan{scan}"
            yield volume(f"p{patient}", scores + lesion, lesion, ignored, name, places)


def slices_of(volumes):
    return [
        (one.scores[at], one.lesion[at], one.owner, one.name, one.places[at], one.ignored[at])
        for one in volumes
        for at in range(len(one.scores))
    ]


def collected(slices, batch=3, overlap=0.0):
    found = LesionWise(overlap)
    for start in range(0, len(slices), batch):
        maps, masks, owners, names, places, ignored = zip(
            *slices[start : start + batch], strict=True
        )
        maps, masks, ignored = (torch.from_numpy(np.stack(one)) for one in (maps, masks, ignored))
        found.add(maps[:, None], masks, owners, names, places, ignored)
    return found


def figures(volumes, threshold=None, overlap=0.0):
    return collected(slices_of(volumes), overlap=overlap).figures(threshold)


# --- the reference


def parts(mask, places):
    """What is connected, by a walk from each pixel to its 26 neighbours, as sets of places."""
    there = {(places[z], y, x) for z, y, x in np.argwhere(mask).tolist()}
    found = []
    while there:
        part, ahead = set(), [there.pop()]
        while ahead:
            here = ahead.pop()
            part.add(here)
            for step in product((-1, 0, 1), repeat=3):
                near = tuple(a + b for a, b in zip(here, step, strict=True))
                if near in there:
                    there.remove(near)
                    ahead.append(near)
        found.append(part)
    return found


def counted(one, threshold, overlap):
    """Lesions, those found, and detections that find none."""
    lesions = parts(one.lesion & ~one.ignored, one.places)
    detections = parts((one.scores > threshold) & ~one.ignored, one.places)

    def finds(detection, lesion):
        common = len(detection & lesion)
        return common > 0 and common >= overlap * len(lesion) - 1e-9

    found = sum(any(finds(one, lesion) for one in detections) for lesion in lesions)
    false = sum(not any(finds(one, lesion) for lesion in lesions) for one in detections)
    return np.array([len(lesions), found, false])


def by_hand(volumes, rate, overlap):
    """The share of lesions found at the last threshold before there are too many false ones."""
    free = np.concatenate([one.scores[~one.lesion & ~one.ignored] for one in volumes])
    patients, best = len({one.owner for one in volumes}), 0.0
    for threshold in sorted(set(free.tolist()), reverse=True):
        if (free > threshold).mean() > 0.3:
            break
        lesions, found, false = sum(counted(one, threshold, overlap) for one in volumes)
        if false > rate * patients:
            break
        best = max(best, found / lesions)
    return best


@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.6])
@pytest.mark.parametrize("seed", range(6))
def test_every_figure_is_that_of_loops_over_whole_volumes(seed, overlap):
    volumes = list(drawn(seed))
    threshold = 2.0
    found = figures(volumes, threshold, overlap)
    for rate in RATES:
        assert found.froc[rate].value == pytest.approx(by_hand(volumes, rate, overlap)), rate
    assert found.froc_mean.value == pytest.approx(np.mean([f.value for f in found.froc.values()]))
    lesions, hits, false = sum(counted(one, threshold, overlap) for one in volumes)
    assert (found.lesions, found.lesions_found, found.volumes) == (lesions, hits, len(volumes))
    assert found.sensitivity.value == pytest.approx(hits / lesions)
    assert found.patients == len({one.owner for one in volumes})
    assert found.false_positives.value == pytest.approx(false / found.patients)
    with_lesions = {one.owner for one in volumes if counted(one, threshold, overlap)[0]}
    assert found.patients_with_lesions == len(with_lesions)


@pytest.mark.parametrize("seed", range(4))
def test_dice_is_of_pixels_of_volumes_and_of_patients(seed):
    volumes = list(drawn(seed))
    found = figures(volumes, 1.0)
    pixels, of_patient = np.zeros(3), {}
    for one in volumes:
        called, lesion = ((one.scores > 1) & ~one.ignored), one.lesion & ~one.ignored
        here = np.array([(called & lesion).sum(), called.sum(), lesion.sum()])
        pixels += here
        if here[2]:
            of_patient.setdefault(one.owner, []).append(2 * here[0] / here[1:].sum())
    assert found.dice.value == pytest.approx(2 * pixels[0] / pixels[1:].sum())
    means = [np.mean(one) for one in of_patient.values()]
    assert found.dice_of_patients.value == pytest.approx(np.mean(means))
    every = np.concatenate(list(of_patient.values()))
    assert found.dice_of_volumes.value == pytest.approx(every.mean())
    assert sorted(found.by_volume.values()) == pytest.approx(sorted(every))


def same(one: LesionFigures, other: LesionFigures):
    """To the digits that are shown; images by themselves may have other numbers."""
    assert sorted(one.by_volume.values()) == sorted(other.by_volume.values())
    assert repr(replace(one, by_volume={})) == repr(replace(other, by_volume={}))


@pytest.mark.parametrize("seed", range(3))
def test_slices_may_come_in_any_order_and_batches_of_any_size(seed):
    slices = slices_of(drawn(seed, patients=7))
    whole = collected(slices, batch=len(slices)).figures(1.0)
    assert whole.sensitivity.interval is not None
    order = np.random.default_rng(seed).permutation(len(slices))
    for batch in (1, 5):
        same(whole, collected([slices[at] for at in order], batch).figures(1.0))


def test_figures_are_the_same_from_disk_and_a_full_one_is_an_error(monkeypatch):
    slices = slices_of(drawn(3))
    whole = collected(slices).figures(1.0)
    monkeypatch.setattr(map_stacks, "_IN_MEMORY", 1)
    found = collected(slices)
    same(whole, found.figures(1.0))
    monkeypatch.setattr(found._stacks._file, "write", full)
    with pytest.raises(MetricError, match=r"cannot write maps to .* folder with 5 bytes a pixel"):
        found.add(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2), ["p"])


def full(_):
    raise OSError(28, "No space left on device")


def test_more_may_be_added_once_figures_are_found():
    slices = slices_of(drawn(4))[::-1]  # so that what is read last was not written last
    found = collected(slices[:9])
    found.figures(1.0)
    maps, masks, owners, names, places, ignored = zip(*slices[9:], strict=True)
    maps, masks, ignored = (torch.from_numpy(np.stack(one)) for one in (maps, masks, ignored))
    found.add(maps, masks, owners, names, places, ignored)
    same(found.figures(1.0), collected(slices).figures(1.0))


def test_nothing_but_the_order_of_scores_counts_nor_which_way_is_up():
    volumes = list(drawn(11, patients=6))
    whole = figures(volumes, 1.0)
    moved = [one._replace(scores=np.exp(one.scores / 7) - 40) for one in volumes]
    same(whole, figures(moved, np.exp(1.0 / 7) - 40 + 1e-4))
    turned = [
        one._replace(
            scores=one.scores[::-1, :, ::-1].transpose(0, 2, 1),
            lesion=one.lesion[::-1, :, ::-1].transpose(0, 2, 1),
            ignored=one.ignored[::-1, :, ::-1].transpose(0, 2, 1),
            places=tuple(9 - place for place in one.places[::-1]),
        )
        for one in volumes
    ]
    same(whole, figures(turned, 1.0))


def test_what_is_ignored_changes_nothing_whatever_it_shows():
    volumes = list(drawn(5, patients=6))
    other = [
        one._replace(
            scores=np.where(one.ignored, 99, one.scores).astype(np.float32),
            lesion=one.lesion ^ one.ignored,
        )
        for one in volumes
    ]
    same(figures(volumes, 1.0), figures(other, 1.0))


# --- MONAI's


def test_the_points_are_monais_where_maps_are_flat_regions_on_flat_ground():
    random = np.random.default_rng(3)
    volumes, false, hits, lesions = [], [], [], 0
    for patient in range(5):
        scores, lesion = np.zeros((2, 3, 40, 40))
        probs, coords, numbers = [], [], np.zeros(scores.shape, int)
        for corner in product(range(1, 40, 8), repeat=2):
            at = (slice(0, 2), *(slice(one, one + 4) for one in corner))
            if is_lesion := random.random() < 0.3:
                lesion[at], numbers[at] = 1, numbers.max() + 1
            if random.random() < (0.7 if is_lesion else 0.5):
                scores[at] = random.integers(1, 20) + 8 * is_lesion
                probs.append(scores[at].max())
                coords.append((1, *corner))
        one = compute_fp_tp_probs_nd(np.array(probs, np.float32), np.array(coords), numbers)
        false, hits, lesions = [*false, *one[0]], [*hits, *one[1]], lesions + one[2]
        volumes.append(volume(f"p{patient}", scores, lesion))
    # A score below all, which MONAI leaves out in the place of the lowest.
    points = compute_froc_curve_data(np.array([*false, -1.0]), np.array(hits), lesions, 5)
    found = figures(volumes)
    for rate in RATES:
        on_curve = [share for alarms, share in zip(*points, strict=True) if alarms <= rate]
        # A lesion that is not found has the score 0, and MONAI finds it at 0.
        of_monai = max(share for share in on_curve if share <= np.mean(np.array(hits) > 0))
        assert found.froc[rate].value == pytest.approx(of_monai), rate
    assert 0 < found.froc[1 / 4].value < found.froc[4.0].value < 1


# --- what is connected


def test_regions_touch_across_slices_by_corners_and_not_across_a_gap():
    lesion = np.zeros((3, 4, 4))
    lesion[0, 0, 0] = lesion[1, 1, 1] = lesion[2, 2, 2] = 1
    assert figures([volume("a", lesion, lesion)], 0.5).lesions == 1
    assert figures([volume("a", lesion, lesion, places=(4, 5, 7))], 0.5).lesions == 2
    assert figures([volume("a", lesion, lesion, name="")], 0.5).lesions == 3  # images by themselves


def test_volumes_of_one_name_are_two_where_patients_are():
    lesion = np.ones((2, 3, 3))
    found = figures([volume("a", lesion, lesion), volume("b", lesion, lesion)], 0.5)
    assert (found.volumes, found.lesions) == (2, 2)
    assert set(found.by_volume) == {("a", "v"), ("b", "v")}


def test_a_tenth_of_a_lesion_may_be_asked_for():
    lesion, scores = np.zeros((2, 1, 20, 20))
    lesion[0, 0, :20] = 1
    scores[0, 0, :1] = 1
    assert figures([volume("a", scores, lesion)], 0.5).sensitivity.value == 1
    one = figures([volume("a", scores, lesion)], 0.5, overlap=0.1)
    assert (one.sensitivity.value, one.false_positives.value) == (0, 1)
    scores[0, 0, :2] = 1
    assert figures([volume("a", scores, lesion)], 0.5, overlap=0.1).sensitivity.value == 1


def test_a_region_of_most_of_an_image_finds_nothing_on_the_curve():
    lesion = np.zeros((2, 10, 10))
    lesion[:, 2:4, 2:4] = 1
    for rows, found in ((10, 0), (6, 0), (3, 1)):
        scores = np.zeros_like(lesion)
        scores[:, :rows] = 1
        curve = figures([volume("a", scores, lesion)]).froc
        assert [one.value for one in curve.values()] == [found] * len(RATES), rows


def test_what_grows_together_again_earns_nothing():
    """Two false positives become one with the lesion, at a threshold below that of the second."""
    lesion, scores = np.zeros((2, 1, 30, 30))
    lesion[0, 4, 6] = 1
    scores[0, 4, [4, 8]] = 3
    scores[0, 4, 5:8] = 2
    found = figures([volume("a", scores, lesion)])
    assert {rate: one.value for rate, one in found.froc.items()} == {
        rate: float(rate >= 2) for rate in RATES
    }


# --- many scores


@pytest.mark.parametrize("sample", [1 << 21, 400])
def test_of_many_scores_each_share_is_of_a_threshold_and_near_the_best(sample, monkeypatch):
    monkeypatch.setattr(lesion_counts, "_SAMPLE", sample)
    random = np.random.default_rng(2)
    volumes = []
    for patient in range(20):
        scores, lesion = random.normal(size=(1, 24, 24)), np.zeros((1, 24, 24))
        for row, column in product((4, 12, 20), repeat=2):
            lesion[0, row : row + 2, column : column + 2] = 1
            scores[0, row, column] += random.uniform(0, 4)
        volumes.append(volume(f"p{patient}", scores, lesion))
    found = figures(volumes).froc
    best = at_every_score(volumes)
    for rate in RATES:
        assert best[rate] - 0.03 <= found[rate].value <= best[rate] + 1e-9, rate
    assert found[8.0].value > found[1.0].value > found[1 / 8].value > 0


def at_every_score(volumes):
    """The shares of lesions found if each score is a threshold, from the highest on."""
    known = [(one, Lesions.of(one.lesion)) for one in volumes]
    best, false = dict.fromkeys(RATES, 0.0), 0
    scores = iter(np.sort(np.concatenate([one.scores.ravel() for one in volumes]))[::-1])
    while false <= RATES[-1] * len(volumes):
        threshold = next(scores)
        sums = np.sum([matches(one.scores > threshold, own) for one, own in known], axis=0)
        false = sums[1]
        for rate in RATES:
            if false <= rate * len(volumes):
                best[rate] = max(best[rate], sums[0] / (9 * len(volumes)))
    return best


# --- how sure


def test_what_a_patient_adds_is_what_the_figure_is_without_him():
    volumes = list(drawn(21, patients=7))
    whole = figures(volumes, 1.0)
    owners = sorted({one.owner for one in volumes})
    without = [figures([one for one in volumes if one.owner != name], 1.0) for name in owners]
    ill = [name in {key[0] for key in whole.by_volume} for name in owners]
    assert sum(ill) >= 5
    for of in (
        lambda one: one.froc[1.0], lambda one: one.froc_mean, lambda one: one.sensitivity,
        lambda one: one.dice, lambda one: one.dice_of_volumes, lambda one: one.dice_of_patients,
    ):  # fmt: skip
        others, influence = np.array([of(one).value for one in without]), of(whole).influence
        assert influence.patients == tuple(owners)
        for kind in (True, False):
            members = np.array(ill) == kind
            among = members if members.sum() > 1 else np.ones_like(members)
            moved = (among.sum() - 1) / among.sum() * (others[among].mean() - others[members])
            assert influence.parts.sum(axis=1)[members] == pytest.approx(moved, abs=1e-12)
        low, high = of(whole).interval[1:]
        assert 0 <= low < of(whole).value < high <= 1
    assert whole.false_positives.interval.low >= 0


@pytest.mark.nightly(
    also="tests/metrics/test_lesion_wise.py::"
    "test_what_a_patient_adds_is_what_the_figure_is_without_him"
)
def test_intervals_hold_what_they_promise():
    """Twenty patients, half of them with lesions that are as easy to see as others of theirs."""
    random = np.random.default_rng(0)
    many = [simulated(random, 600) for _ in range(4)]
    truth = {name: np.mean([one[name].value for one in many]) for name in many[0]}
    held = dict.fromkeys(truth, 0)
    for _ in range(120):
        for name, figure in simulated(random, 20).items():
            held[name] += figure.interval.low <= truth[name] <= figure.interval.high
    assert min(held.values()) >= 0.9 * 120, held


def simulated(random, count):
    """Marks of one patient are alike; every other patient has two lesions."""
    volumes, spots = [], list(product(range(2, 16, 4), repeat=2))
    for patient in range(count):
        scores, lesion = np.zeros((2, 16, 16))
        order, alike = random.permutation(len(spots)), 0.7 * random.normal()
        for number in order[:2] if patient % 2 else ():
            lesion[spots[number]] = 1
            scores[spots[number]] = 2 + alike + random.normal()
        for number in order[2 : 2 + random.poisson(5)]:
            scores[spots[number]] = max(0, 0.5 + alike + random.normal())
        volumes.append(volume(f"p{patient}", scores[None], lesion[None], name=""))
    found = figures(volumes, 1.5)
    return {
        "froc": found.froc[1.0], "low": found.froc[1 / 8], "mean": found.froc_mean,
        "sensitivity": found.sensitivity, "false_positives": found.false_positives,
        "dice": found.dice, "of_patients": found.dice_of_patients,
    }  # fmt: skip


def test_of_few_patients_there_is_no_interval_and_of_no_lesion_no_share():
    lesion = np.zeros((2, 6, 6))
    lesion[0, 2, 2] = 1
    some = [volume(f"p{patient}", lesion, lesion) for patient in range(4)]
    well = [volume(f"w{patient}", 0 * lesion) for patient in range(6)]
    few = figures([*some, *well], 0.5)
    assert few.sensitivity.value == few.froc[1.0].value == few.dice.value == 1
    every = [few.sensitivity, few.froc_mean, few.dice, few.dice_of_volumes, few.dice_of_patients]
    assert [one.interval for one in every] == [None] * len(every)
    assert few.false_positives.interval.low == few.false_positives.value == 0
    alarm = figures([*some, *well, volume("x", np.roll(lesion, 2), 0 * lesion)], 0.5)
    assert alarm.false_positives.interval.low == 0 < alarm.false_positives.value == 1 / 11
    enough = figures([*some, volume("p5", lesion, lesion), *well], 0.5)
    assert 0 < enough.sensitivity.interval.low < 1 == enough.sensitivity.interval.high
    none = figures(well, 0.5)
    shares = [none.sensitivity, none.froc_mean, none.dice_of_volumes, none.dice_of_patients]
    assert [one.value for one in shares] == [None] * len(shares)
    assert (none.lesions, none.lesions_found, none.patients_with_lesions) == (0, 0, 0)
    assert figures(some[:2], 0.5).false_positives.interval is None


@pytest.mark.parametrize("alarms", [0, 2])
@pytest.mark.parametrize("patients", [6, 16])
def test_the_same_count_of_false_positives_in_every_patient_is_not_certain(alarms, patients):
    scores = np.zeros((1, 9, 9))
    scores[0, 1 : 4 * alarms : 4, 4] = 1
    maps = [volume(f"p{patient}", scores, 0 * scores) for patient in range(patients)]
    mean, low, high = figures(maps, 0.5).false_positives.interval
    assert mean == alarms
    total = alarms * patients
    # The borders are the means with which so many or more, and so few or fewer, come in 2.5 %.
    assert stats.poisson.cdf(total, patients * high) == pytest.approx(0.025)
    if alarms:
        assert stats.poisson.sf(total - 1, patients * low) == pytest.approx(0.025)
    else:
        assert low == 0


def test_without_a_threshold_there_is_the_curve_alone():
    lesion = np.zeros((2, 6, 6))
    lesion[0, 2, 2] = 1
    found = figures([volume("a", lesion, lesion)])
    assert found.froc_mean.value == 1
    assert found.lesions_found is found.sensitivity.value is found.false_positives.value is None
    assert found.dice.value is found.dice_of_patients.value is None
    every = figures([volume("a", lesion + 1, np.ones_like(lesion))], 0.5)
    assert every.froc_mean.value is None, "where all is lesion there is no false positive"
    assert every.sensitivity.value == 1


# --- what cannot be


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"places": (0, 0)}, r"slice 0 of volume v was given twice"),
        ({"scores": [[[np.nan]], [[1]]]}, r"scores are NaN or infinite"),
    ],
)
def test_what_cannot_be_counted_is_an_error(change, words):
    one = volume("a", np.zeros((2, 1, 1)))._replace(**change)
    with pytest.raises(MetricError, match=words):
        figures([one._replace(scores=np.asarray(one.scores, np.float32))])


def test_slices_of_other_sizes_do_not_make_a_volume():
    found = LesionWise()
    for place, side in enumerate((3, 4)):
        maps = torch.zeros(1, side, side)
        found.add(maps, maps, ["a"], ["v"], [place])
    with pytest.raises(MetricError, match=r"\(3, 3\) and of \(4, 4\) pixels"):
        found.figures()


def test_options_that_mean_nothing_are_refused():
    with pytest.raises(MetricError, match=r"overlap is 1\.5"):
        LesionWise(1.5)
    with pytest.raises(MetricError, match="no map was added"):
        LesionWise().figures()
    found, maps = LesionWise(), torch.zeros(1, 3, 3)
    with pytest.raises(MetricError, match="has no place"):
        found.add(maps, maps, ["a"], ["v"])
    found.add(maps, maps, ["a"])
    with pytest.raises(MetricError, match="the threshold is nan; give None"):
        found.figures(float("nan"))
