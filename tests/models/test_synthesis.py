import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from anomalib_medclip.models.mediclip import synthesis
from anomalib_medclip.models.mediclip.masks import (
    Shape,
    SideRange,
    draw_perlin,
    draw_shape,
    perlin_noise,
    place,
)
from anomalib_medclip.models.mediclip.synthesis import TASKS, contact_sheet, synthesize
from anomalib_medclip.models.mediclip.tasks import BARELY_CHANGED, changed_pixels, source_mapping

SEEDS = st.integers(0, 2**16)
SIDES = st.sampled_from([16, 17, 32, 56, 97])


def stream(seed):
    return np.random.default_rng(seed)


def picture(side=56, seed=0):
    """Smooth grey levels, with some pure black and white."""
    waves = np.add.outer(np.sin(np.arange(side) / 5), np.cos(np.arange(side) / 7 + seed))
    noise = stream(seed).normal(0, 20, (side, side))
    return np.clip(120 + 80 * waves + noise, 0, 255).astype(np.uint8)


def made(task, seed, side=56, poisson=False):
    images = [picture(side, seed), picture(side, seed + 1)]
    return images[0], synthesize(images[0], images, stream(seed), {task: 1.0}, poisson)


@given(task=st.sampled_from(list(TASKS)), seed=SEEDS, side=SIDES, poisson=st.booleans())
def test_the_image_is_its_own_wherever_the_label_is_zero(task, seed, side, poisson):
    image, (altered, label, name) = made(task, seed, side, poisson)
    assert name == task
    assert altered.dtype == np.uint8
    assert label.dtype == np.float64
    assert altered.shape == label.shape == image.shape
    assert ((label >= 0) & (label <= 1)).all()
    assert (altered[label == 0] == image[label == 0]).all()


@given(task=st.sampled_from(list(TASKS)), seed=SEEDS)
def test_equal_streams_give_equal_results_whatever_was_drawn_before(task, seed):
    first = made(task, seed)[1]
    np.random.seed(seed)  # noqa: NPY002 - nothing may depend on it
    second = made(task, seed)[1]
    assert (first.image == second.image).all()
    assert (first.label == second.label).all()


def test_other_streams_give_other_anomalies():
    labels = [made("Source", seed)[1].label for seed in (1, 2)]
    assert (labels[0] != labels[1]).any()


@given(seed=SEEDS)
def test_the_user_s_images_are_not_written_to(seed):
    images = [picture(seed=seed), picture(seed=seed + 1)]
    before = [image.copy() for image in images]
    for image in images:
        image.flags.writeable = False
    synthesize(images[0], images, stream(seed))
    assert np.array_equal(images, before)


@given(seed=SEEDS)
def test_identity_changes_nothing_and_marks_nothing(seed):
    image, altered = made("Identity", seed)
    assert (altered.image == image).all()
    assert not altered.label.any()


@pytest.mark.parametrize(
    ("task", "published"), [("CutPaste", 0.068), ("GaussIntensityChange", 0.153), ("Source", 0.089)]
)
def test_labels_cover_as_much_as_the_authors(task, published):
    areas = [made(task, seed, 224)[1].label.mean() for seed in range(80)]
    assert np.mean(areas) == pytest.approx(published, rel=0.2)


def test_half_of_all_images_have_two_patches(monkeypatch):
    calls = []
    original = synthesis.source
    monkeypatch.setattr(synthesis, "source", lambda *args: calls.append(1) or original(*args))
    for seed in range(400):
        made("Source", seed, 32)
    assert len(calls) / 400 == pytest.approx(1.5, abs=0.08)


def test_tasks_come_as_often_as_their_weights_say():
    tasks = {"CutPaste": 1 / 3, "Source": 1 / 3, "Identity": 1 / 3, "GaussIntensityChange": 0.0}
    image, random = picture(32), stream(0)
    names = [synthesize(image, [image], random, tasks).task for _ in range(600)]
    counts = [names.count(name) / len(names) for name in tasks]
    assert counts[:3] == pytest.approx([1 / 3] * 3, abs=0.06)
    assert counts[3] == 0


@pytest.mark.parametrize(
    "tasks",
    [{"Sink": 1.0}, {}, {"Source": 0.0}, {"Source": -1.0, "CutPaste": 2.0}, {"Source": np.nan}],
    ids=str,
)
def test_wrong_weights_are_answered_with_the_four_tasks(tasks):
    with pytest.raises(ValueError, match="CutPaste, GaussIntensityChange, Source, Identity"):
        synthesize(picture(), [picture()], stream(0), tasks)


@pytest.mark.parametrize(
    ("image", "sources", "message"),
    [
        (picture(), [], "no source images"),
        (picture(), [picture(32)], r"shape \(32, 32\) beside an image of shape \(56, 56\)"),
        (picture() / 255, [picture()], "got float64"),
        (picture()[:40], [picture()], r"shape \(40, 56\).*squares"),
        (picture(8), [picture(8)], "8 pixels a side is too small"),
    ],
)
def test_images_of_another_kind_are_refused(image, sources, message):
    with pytest.raises(ValueError, match=message):
        synthesize(image, sources, stream(0))


@given(seed=SEEDS, side=SIDES, low=st.sampled_from([0.1, 0.3]))
def test_a_cloud_keeps_to_its_sides_and_fills_a_fifth(seed, side, low):
    sides = SideRange.of(side, low, low + 0.5)
    outline = draw_perlin(sides, stream(seed))
    assert all(sides.shortest <= n < sides.longest for n in outline.shape)
    assert outline.mean() >= 0.2


@given(seed=SEEDS)
def test_noise_vanishes_at_the_corner_and_stays_below_one(seed):
    noise = perlin_noise(stream(seed).uniform(0, 7, (2, 2)), (30, 20))
    assert noise[0, 0] == 0
    assert np.abs(noise).max() <= 1


@given(seed=SEEDS, side=SIDES)
def test_a_shape_keeps_to_its_box_and_holds_its_centre(seed, side):
    sides = SideRange.of(side, 0.2, 0.6)
    shape = draw_shape(side, sides, stream(seed))
    mask = shape.mask()
    assert mask.shape == shape.box
    assert max(mask.shape) <= sides.longest
    assert mask[tuple(shape.centre.astype(int))]
    assert (mask == mask[::-1, ::-1]).all()


@given(seed=SEEDS)
def test_the_reach_of_a_direction_ends_on_the_border(seed):
    random = stream(seed)
    shape = draw_shape(80, SideRange.of(80, 0.2, 0.6), random)
    inside = np.argwhere(shape.mask())
    start = inside[random.integers(len(inside))].astype(float)
    angles = random.uniform(0, 7, 12)
    directions = np.stack([np.cos(angles), np.sin(angles)])
    hits = start[:, None] + directions * shape.reach(start, directions) - shape.centre[:, None]
    places = np.abs(shape.upright(hits))
    radius = np.hypot(*places) if shape.round else places.max(axis=0)
    np.testing.assert_allclose(radius, 1, atol=1e-6)


def test_an_upright_rectangle_is_reached_along_its_axes():
    shape = Shape(False, (9, 5), np.eye(2))
    directions = np.array([[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0]])
    reach = shape.reach(np.array([5.0, 2.0]), directions)
    np.testing.assert_allclose(reach, [3.5, 5.5, 2.5, 2.5])


@given(seed=SEEDS, alpha=st.floats(1, 4))
def test_a_magnification_draws_places_towards_its_centre_and_keeps_the_border(seed, alpha):
    random = stream(seed)
    shape = draw_shape(80, SideRange.of(80, 0.2, 0.6), random)
    centre = np.array(shape.box) // 2
    mapping = source_mapping(shape, centre, alpha)
    plain = np.indices(shape.box).astype(float)
    assert (mapping[:, ~shape.mask()] == plain[:, ~shape.mask()]).all()
    assert (mapping[:, centre[0], centre[1]] == centre).all()
    away, before = (np.hypot(*(m - centre[:, None, None])) for m in (mapping, plain))
    assert (away <= before + 1e-9).all()
    if alpha == 1:
        np.testing.assert_allclose(mapping, plain, atol=1e-9)


@given(seed=SEEDS, side=SIDES)
def test_a_patch_lies_inside_the_image_and_loses_nothing(seed, side):
    random = stream(seed)
    outline = np.ones(random.integers(1, side + 1, 2), dtype=bool)
    assert place(outline, side, random).mask(side).sum() == outline.sum()


def changed(rises):
    """Labels along the middle of a patch whose pixels rose by these numbers of grey levels."""
    before, mask = np.full((9, 40), 100, np.uint8), np.zeros((9, 40), bool)
    mask[1:8, 2:38] = True
    after = before.copy()
    for column, rise in rises.items():
        after[4, column] = 100 + rise
    return changed_pixels(before, after, mask)[4]


def test_one_grey_level_up_hardly_counts_and_any_way_down_does():
    label = changed({5: 1, 15: 2, 25: -1, 35: 100})
    assert label[[5, 15, 25, 35]].tolist() == [BARELY_CHANGED, 1.0, 1.0, 1.0]
    assert int(BARELY_CHANGED) == 0
    assert np.count_nonzero(label) == 4


def test_black_pasted_on_black_is_normal_unless_it_is_enclosed():
    before, mask = np.zeros((30, 30), np.uint8), np.zeros((30, 30), bool)
    mask[2:28, 2:28] = True
    after = before.copy()
    after[8:20, 8:20] = 90
    after[11:17, 11:17] = 0
    expected = np.zeros((30, 30))
    expected[8:20, 8:20] = 1
    assert (changed_pixels(before, after, mask) == expected).all()


@given(seed=SEEDS, roughness=st.floats(0.5, 1.5))
def test_the_label_is_that_of_the_formula_with_closing_and_filling(seed, roughness):
    """d = rise in uint8, 1 - exp(-d^2 / (2 * 0.2^2)); then, in the box of each part of the mask."""
    random, whole = stream(seed), np.ones((3, 3), dtype=bool)
    noise = ndimage.gaussian_filter(random.normal(size=(48, 48)), roughness)
    mask = ndimage.gaussian_filter(random.normal(size=(48, 48)), 3) > 0.05
    before = random.integers(0, 250, (48, 48), dtype=np.uint8)
    rise = random.integers(0, 4, (48, 48), dtype=np.uint8) * (mask & (noise > 0.12))
    expected = 1 - np.exp(-(rise.astype(float) ** 2) / (2 * 0.2**2))
    for box in ndimage.find_objects(ndimage.label(mask)[0]):
        closed = ndimage.grey_closing(expected[box], size=(3, 3))
        for level in (BARELY_CHANGED, 1.0):
            filled = ndimage.binary_fill_holes(closed > level - 1e-9, whole)
            closed = np.where(filled, np.maximum(closed, level), closed)
        expected[box] = closed
    label = changed_pixels(before, before + rise, mask)
    np.testing.assert_allclose(label, expected, rtol=0, atol=1e-12)


def test_poisson_blending_leaves_no_seam():
    jumps = []
    for poisson in (False, True):
        steps = []
        for seed in range(20):
            image, altered = made("CutPaste", seed, 96, poisson)
            change = altered.image.astype(float) - image
            edge = (altered.label[:, 1:] > 0) != (altered.label[:, :-1] > 0)
            steps.append(np.abs(np.diff(change, axis=1))[edge])
        jumps.append(np.concatenate(steps).mean())
    assert jumps[1] < jumps[0] / 3


def test_a_contact_sheet_has_a_row_for_each_task_and_three_pictures_for_each_image():
    images = [picture(), picture(seed=1)]
    sheets = [contact_sheet(images, tasks=tasks, panel=64) for tasks in (TASKS, {"Source": 1.0})]
    assert sheets[0].mode == "RGB"
    assert sheets[0].width == sheets[1].width > 6 * 64
    assert sheets[0].height - sheets[1].height > 3 * 64
    again = contact_sheet(images, tasks=TASKS, panel=64)
    assert again.tobytes() == sheets[0].tobytes()
