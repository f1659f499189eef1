"""Which pictures of a folder are slices of one volume, and in which order, by their names alone."""

import random
from pathlib import Path

import pytest

from anomalib_medclip.errors import VolumeError
from anomalib_medclip.readers.stack_names import first_unlike, stack_of

FOLDER = Path("stack")


def paths(*names):
    return [FOLDER / f"{name}.png" for name in names]


def order(*names):
    return [path.stem for path in stack_of(FOLDER, paths(*names)).paths]


def names(pattern, numbers):
    return [pattern.format(number) for number in numbers]


ONE_STACK = {
    "counted": names("slice_{}_of_20", range(1, 21)),
    "of a size": names("ct_{}_512", range(1, 12)),
    "of a date": names("2021-01-11 slice {}", range(7, 12)),
    "of a patient": names("P1 (CT) 2.5mm {:04}", range(1, 12)),
    "of an identifier": names("1.2.840.{}.5", range(9, 12)),
    "counted twice": [f"IM{n}_{n + 7}" for n in range(1, 12)],
    "with falling positions": [f"s{n}_z{-2.5 * n}" for n in range(1, 12)],
    "with times": [f"20210111_12{n:02}30_{n}" for n in range(5, 12)],
    "positions": names("z_{}", (9.5, 10, 10.5, 11)),
    "positions with a comma": names("z_{}", ("9,75", "10", "10,25")),
    "rounded positions": names("z_{}", (-3.3, 0.0, 3.3, 6.7)),
    "below nothing": names("z{}", (-12, -11, -10)),
    "below nothing at first": names("{}", (-2, -1, 0, 1)),
    "on both sides of nothing": names("slice{}", (-1, 0, 1)),
    "hyphens": names("slice-{}", (9, 10, 11, 12)),
    "parts": [f"1.{n}" for n in range(1, 13)],
    "later parts": [f"1.{n}" for n in range(8, 12)],
    "decimals of several lengths": ["10.25", "10.5", "10.75", "11.0"],
    "capitals": ["Scan_1", "scan_2", "SCAN_3"],
    "alone": ["scan"],
}

SEVERAL = {
    "words": (2, names("flair_{}", (1, 2, 3)) + names("t1ce_{}", (1, 2, 3))),
    "words that go on": (2, names("pd_{}", (1, 2, 3)) + names("dwi_{}", (4, 5, 6))),
    "numbers in words": (2, names("T1_{:03}", (1, 2, 3)) + names("T2_{:03}", (1, 2, 3))),
    "echoes behind": (2, [f"IM{n}_e{echo}" for n in (1, 2, 3) for echo in (1, 2)]),
    "series before": (3, [f"IM-{s:04}-{n:04}" for s in (1, 2, 3) for n in range(1, 7)]),
    "series that go on": (2, [f"IM-{s:04}-{3 * s + n:04}" for s in (1, 2) for n in (1, 2, 3)]),
    "visits": (4, [f"2021-0{month}-11 slice 7" for month in (1, 2, 3, 4)]),
    "visits that go on": (2, ["20210111_1", "20210111_2", "20210311_3", "20210311_4"]),
    "an overview": (2, [*names("slice_{}", (1, 2, 3, 4)), "overview_5"]),
    "a copy": (2, ["1", "2", "2 (1)", "3"]),
    "a first without a number": (2, ["slice", "slice (2)", "slice (3)"]),
}


@pytest.mark.parametrize("name", ONE_STACK)
def test_slices_are_in_the_order_of_their_numbers(name):
    wanted = ONE_STACK[name]
    for seed in range(3):
        drawn = random.Random(seed).sample(wanted, len(wanted))
        stack = stack_of(FOLDER, paths(*drawn))
        assert [path.stem for path in stack.paths] == wanted
        assert (stack.gap(), stack.left_out) == (None, ())


@pytest.mark.parametrize("name", SEVERAL)
def test_several_stacks_are_counted_and_refused(name):
    count, drawn = SEVERAL[name]
    random.Random(0).shuffle(drawn)
    with pytest.raises(VolumeError, match=f"stack holds {count} stacks of pictures.*; give each"):
        order(*drawn)


WORDS = ("slice", "T2", "ct 512", "P07_flair", "IM-0003-", "2021-03-04_", "a.b", "")
STYLES = ("{:d}", "{:03d}", "{:d}_of_99", "({:d})", "{:d}_512x512")


def drawn_stack(random_, word=None):
    """Names of slices in their order, by one of the ways to count them."""
    word = random_.choice(WORDS) if word is None else word
    first, count, step = random_.randint(0, 120), random_.randint(2, 15), random_.choice((1, 1, 2))
    counted = [first + step * n for n in range(count)]
    style = "_" + random_.choice(STYLES)
    if random_.random() < 0.3:
        lowest = random_.randint(-40, 40)
        return [f"{word}{style.format(n)}_z_{lowest + 2.5 * n}" for n in counted]
    return [word + style.format(n) for n in counted]


def test_any_one_stack_is_read_in_its_order():
    for seed in range(300):
        random_ = random.Random(seed)
        wanted = drawn_stack(random_)
        assert order(*random_.sample(wanted, len(wanted))) == wanted, wanted


def test_no_two_stacks_are_ever_mixed():
    for seed in range(300):
        random_ = random.Random(seed)
        one = drawn_stack(random_, "one")
        other = random_.choice((
            drawn_stack(random_, "other"),
            [f"{name}_2" for name in one],
            [f"{name} (1)" for name in one],
            [f"2_{name}" for name in one],
        ))  # fmt: skip
        both = one + other
        random_.shuffle(both)
        with pytest.raises(VolumeError, match="holds 2 stacks of pictures"):
            order(*both)
        tagged = [f"{part}_{name}" for part in (1, 2) for name in one]
        with pytest.raises(VolumeError, match=r"holds [2-9] stacks of pictures"):
            order(*random_.sample(tagged, len(tagged)))


def test_what_can_be_read_in_two_ways_is_refused():
    with pytest.raises(VolumeError, match=r"decimal or not, as in 10\.25\.png and 10\.5\.png"):
        order("10.5", "10.25")
    with pytest.raises(VolumeError, match=r"as in IM1_9\.png and IM2_3\.png, each in an order"):
        order("IM1_9", "IM2_3", "IM3_5")


def test_pictures_without_a_number_are_left_out_beside_those_with_one():
    stack = stack_of(FOLDER, paths("slice_1", "thumb", "slice_2", "slice_3", "Overview"))
    assert [path.stem for path in stack.paths] == ["slice_1", "slice_2", "slice_3"]
    assert [(one.path.stem, one.reason) for one in stack.left_out] == [
        (name, "has no number in its name, as the slices beside it have")
        for name in ("Overview", "thumb")
    ]
    with pytest.raises(VolumeError, match="holds 3 stacks"):
        order("front", "back", "slice_1")  # which may all be slices


@pytest.mark.parametrize(
    ("numbers", "gap"), [((1, 2, 4), 1), ((0.1, 0.2, 0.4), 1), ((-5, 0, 5, 10), None), ((3,), None)]
)
def test_missing_slices_are_found(numbers, gap):
    assert stack_of(FOLDER, paths(*names("z_{}", numbers))).gap() == gap


def stack(*names):
    return stack_of(FOLDER, paths(*names))


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (names("ct_{}_512", (1, 2, 3)), names("ct_{}_512_mask", (1, 2, 3))),
        (names("ct_{}_512", (1, 2, 3)), names("{:02}", (1, 2, 3))),
        ([f"s{n}_z{n * 2.5}" for n in (1, 2, 3)], names("{}", (1, 2, 3))),
        (["scan_7"], ["7_mask"]),
        (["scan"], ["mask"]),
    ],
)
def test_masks_are_of_the_slices_with_their_numbers(images, masks):
    assert first_unlike(stack(*images), stack(*masks)) is None
    assert first_unlike(stack(*masks), stack(*images)) is None


@pytest.mark.parametrize(
    ("images", "masks", "pair"),
    [
        (
            names("ct_{}_512", range(1, 6)),
            names("ct_{}_512", range(2, 7)),
            ("ct_1_512", "ct_2_512"),
        ),
        (names("{}", range(1, 6)), names("{}_1", range(2, 7)), ("1", "2_1")),
        (names("{}", (1, 2, 3)), names("{}", (1, 2)), ("3", None)),
        (["ct_1_512"], ["ct_2_512"], ("ct_1_512", "ct_2_512")),
        (["scan_7"], ["mask"], ("scan_7", "mask")),
        (names("z{}", (-1, 0, 1)), names("z{}", (0, 1, 2)), ("z-1", "z0")),
    ],
)
def test_masks_of_other_slices_are_named(images, masks, pair):
    found = first_unlike(stack(*images), stack(*masks))
    assert tuple(path and path.stem for path in found) == pair
