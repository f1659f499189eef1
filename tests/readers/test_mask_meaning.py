"""What a mask marks does not depend on options that it does not use, nor on what else it lacks."""

import cv2
import numpy as np
import pytest
import tifffile
from outlines import SIZE, by_palette, ellipse
from pictures import save
from PIL import Image as Pillow

from anomalib_medclip.errors import ImageReadError, MaskError
from anomalib_medclip.readers.lesion import IGNORED, LESION, MaskLabels
from anomalib_medclip.readers.picture import read_label_map, read_lesion, read_outline

UNUSED = [MaskLabels(), MaskLabels("all"), MaskLabels(None, (127,)), MaskLabels("all", (127, 3))]

# --- transparency


def test_an_outline_by_transparency_is_one_whatever_the_options(tmp_path):
    for seed in range(40):
        random = np.random.default_rng(seed)
        lesion = ellipse(random)
        colour = random.choice([0, 9, 255], 3 if seed % 2 else 1)
        planes = [np.full(SIZE, one, np.uint8) for one in colour]
        opaque = np.where(lesion, random.choice([40, 255]), 0).astype(np.uint8)
        path = save(tmp_path / "m.png", np.dstack([*planes, opaque]))
        for labels in (*UNUSED, MaskLabels((int(opaque.max()),))):
            assert (read_lesion(path, labels) == lesion).all(), (seed, labels)


def test_a_label_that_names_the_colour_and_not_the_transparency_is_asked_about(tmp_path):
    opaque = np.where(ellipse(np.random.default_rng(0)), 255, 0).astype(np.uint8)
    path = save(tmp_path / "m.png", np.dstack([np.full(SIZE, 7, np.uint8), opaque]))
    for labels in (MaskLabels((7,)), MaskLabels(None, (7,))):
        with pytest.raises(MaskError, match=r"m\.png is 7 everywhere, a label, and .*; store it"):
            read_lesion(path, labels)


@pytest.mark.parametrize("labels", [*UNUSED, MaskLabels((9,))], ids=str)
def test_transparent_lesions_are_asked_about_whatever_the_options(tmp_path, labels):
    lesion = ellipse(np.random.default_rng(0))
    grey, opaque = np.where(lesion, 9, 0), np.where(lesion, 0, 255)
    path = save(tmp_path / "m.png", np.dstack([grey, opaque]).astype(np.uint8))
    with pytest.raises(MaskError, match=r"m\.png marks pixels that are transparent"):
        read_lesion(path, labels)


# --- palettes


def padding(random, count):
    """What programs write behind the colours that a picture has."""
    ramp = np.arange(256 - count, 256)[:, None].repeat(3, axis=1)[: 256 - count]
    rest = [
        np.zeros((0, 3)), np.zeros((256 - count, 3)), np.full((256 - count, 3), 255), ramp,
        random.integers(0, 256, (256 - count, 3)),
    ]  # fmt: skip
    return rest[random.integers(len(rest))].astype(np.uint8)


def test_a_number_of_a_coloured_palette_is_its_place_whichever_colours_are_used(tmp_path):
    for seed in range(60):
        random = np.random.default_rng(seed)
        colours = random.integers(1, 256, (4, 3), dtype=np.uint8)
        colours[0], colours[1:3] = 0, random.integers(1, 256, (2, 1))  # black, two greys, a colour
        colours[3] = 200, 30, 30
        palette = np.concatenate([colours, padding(random, 4)]).ravel().tolist()
        used = random.choice(4, int(random.integers(1, 5)), replace=False)
        labels = np.kron(random.choice(used, (6, 8)), np.ones((8, 8), int)).astype(np.uint8)
        path = by_palette(tmp_path / "m.png", labels, palette)
        marks = read_outline(path, MaskLabels((2, 3), (1,))).marks
        assert ((marks == LESION) == (labels >= 2)).all(), seed
        assert ((marks == IGNORED) == (labels == 1)).all(), seed
        assert (read_label_map(path) == labels).all()


def test_a_number_of_a_grey_palette_is_what_it_shows_whichever_greys_are_used(tmp_path):
    for seed in range(40):
        random = np.random.default_rng(seed)
        greys = np.array([0, 50, 100, 255])
        rest = [[], [0] * 252, list(range(4, 256))][seed % 3]
        palette = np.array([*greys, *rest]).repeat(3).tolist()
        used = random.choice(4, int(random.integers(1, 5)), replace=False)
        labels = np.kron(random.choice(used, (6, 8)), np.ones((8, 8), int)).astype(np.uint8)
        path = by_palette(tmp_path / "m.png", labels, palette)
        marks = read_outline(path, MaskLabels((100, 255), (50,))).marks
        assert ((marks == LESION) == (labels >= 2)).all(), seed
        assert ((marks == IGNORED) == (labels == 1)).all(), seed


@pytest.mark.parametrize(
    ("palette", "labels"),
    [
        ([0] * 3 + [255] * 3, MaskLabels((1,))),  # shows 255
        ([0] * 3 + [255] * 3 + [0, 0, 255], MaskLabels((255,))),  # is place 1
        ([0] * 3 + [255] * 3 + [0, 0, 255], MaskLabels(None, (255,))),
    ],
)
def test_labels_that_name_the_other_meaning_of_a_palette_are_told_the_right_one(
    tmp_path, palette, labels
):
    path = by_palette(tmp_path / "m.png", ellipse(np.random.default_rng(0)), palette)
    right = 255 if len(palette) == 6 else 1
    words = rf"m\.png has a palette that shows its number 1 as grey 255, .*; name {right} in"
    with pytest.raises(MaskError, match=words):
        read_lesion(path, labels)


def test_soft_edges_by_a_palette_are_of_what_it_shows(tmp_path):
    soft = cv2.GaussianBlur(np.uint8(255) * ellipse(np.random.default_rng(0)), (0, 0), 2)
    shuffled = np.random.default_rng(0).permutation(np.arange(1, 256))
    places = np.zeros(256, np.uint8)
    places[shuffled] = np.arange(1, 256)  # where in the palette a grey is
    for tint in ((1, 1, 1), (1, 0.2, 0.1)):
        colours = np.array([0, *shuffled])[:, None] * tint
        path = tmp_path / "m.png"
        by_palette(path, places[soft], np.rint(colours).astype(np.uint8).ravel().tolist())
        assert (read_lesion(path) == (soft > soft.max() / 2)).all()


# --- areas of grey


def areas(seed, level):
    """A bright lesion, and below it an area of another grey."""
    random = np.random.default_rng(seed)
    grey = np.zeros((96, 96), np.uint8)
    top, left = random.integers(2, 12, 2)
    grey[top : top + 24, left : left + 30] = 255
    top, left = random.integers(58, 70, 2)
    grey[top : top + 20, left : left + 20] = level
    return grey


@pytest.mark.parametrize("level", [1, 2, 10, 40, 60, 100, 126])
@pytest.mark.parametrize("way", ["best.jpg", "usual.jpg", "webp", "blurred.png"])
def test_areas_that_a_cut_would_drop_are_asked_about(tmp_path, way, level):
    if level < 10 and way not in ("best.jpg", "blurred.png"):
        level *= 10  # compression may leave nothing of less
    for seed in range(3):
        grey = areas(seed, level)
        path = tmp_path / f"m.{way}"
        if way == "blurred.png":
            save(path, cv2.GaussianBlur(grey, (0, 0), 1.5))
        else:
            pixels = np.dstack([grey] * 3) if way == "webp" else grey
            save(path, pixels, quality={"best.jpg": 100, "usual.jpg": 85, "webp": 90}[way])
        with pytest.raises(MaskError, match=r"m\..* has areas of grey between"):
            read_lesion(path)


def test_two_soft_lesions_of_which_one_is_fainter_are_asked_about(tmp_path):
    y, x = np.mgrid[:64, :64]
    grey = np.zeros((64, 64))
    for peak, place in ((255, 20), (110, 48)):
        grey += peak * np.exp(-((y - place) ** 2 + (x - place) ** 2) / 60)
    with pytest.raises(MaskError, match=r"m\.png has areas of grey between"):
        read_lesion(save(tmp_path / "m.png", grey.clip(0, 255).astype(np.uint8)))


def test_edges_are_no_areas_however_soft_or_often_compressed(tmp_path):
    for seed in range(40):
        random = np.random.default_rng(seed)
        lesion = ellipse(random, (96, 128))
        grey = np.where(lesion, 255, 0).astype(np.uint8)
        if seed % 2:
            grey = cv2.GaussianBlur(grey, (0, 0), random.uniform(0.5, 4))
            lesion = grey > grey.max() / 2
        for _ in range(int(random.integers(1, 4))):  # saved again, cut by another edge
            save(tmp_path / "m.jpg", grey, quality=int(random.integers(60, 100)))
            grey = np.asarray(Pillow.open(tmp_path / "m.jpg"))[1:, 1:]
            lesion = lesion[1:, 1:]
        many = len(np.unique(grey)) > 9  # else it may be a map of labels
        path = save(tmp_path / ("m.png" if many and seed % 3 else "m.jpg"), grey)
        edge = np.count_nonzero(cv2.dilate(lesion.astype(np.uint8), np.ones((3, 3))) - lesion)
        assert np.count_nonzero(read_lesion(path) != lesion) <= edge / 2, seed


def test_a_dark_jpeg_is_asked_about(tmp_path):
    for grey in (np.random.default_rng(0).integers(0, 4, SIZE), ellipse(np.random.default_rng(0))):
        path = save(tmp_path / "m.jpg", grey.astype(np.uint8), quality=95)
        with pytest.raises(MaskError, match=r"m\.jpg is dark all over, .*; store it .* as PNG"):
            read_lesion(path)


@pytest.mark.parametrize("labels", [*UNUSED[1:], MaskLabels((255,)), MaskLabels((9,), (255,))])
def test_soft_edges_have_no_labels(tmp_path, labels):
    for seed in range(10):
        random = np.random.default_rng(seed)
        grey = np.where(ellipse(random), random.choice([60, 255]), 0).astype(np.uint8)
        path = save(tmp_path / "m.png", cv2.GaussianBlur(grey, (0, 0), random.uniform(0.6, 1.2)))
        with pytest.raises(
            MaskError, match=r"m\.png has soft edges, and which .*; store it as grey"
        ):
            read_lesion(path, labels)


@pytest.mark.parametrize("side", [1, 2, 3, 8])
def test_many_labels_are_labels_however_small_their_areas(tmp_path, side):
    for seed in range(20):
        random = np.random.default_rng(seed)
        count = int(random.integers(9, 200))
        drawn = np.where(random.random(SIZE) < 0.5, random.integers(1, count + 1, SIZE), 0)
        labels = np.kron(drawn, np.ones((side, side), int))[: SIZE[0], : SIZE[1]].astype(np.uint8)
        path = save(tmp_path / "m.png", labels)
        assert (read_lesion(path, MaskLabels("all")) == (labels != 0)).all()
        assert (read_lesion(path, MaskLabels((3,), (5,))) == (labels == 3)).all()


# --- numbers below 0


@pytest.mark.parametrize("channels", [1, 3])
def test_a_number_below_0_is_asked_about(tmp_path, channels):
    lesion = ellipse(np.random.default_rng(0))
    pixels = np.zeros((*SIZE, channels), np.int16)
    pixels[lesion, 0] = -1
    path = save_deep(tmp_path / "m.tif", pixels)
    said = "holds -1 beside 0" if channels == 1 else "has colours below 0"
    with pytest.raises(MaskError, match=rf"m\.tif {said}"):
        read_lesion(path)
    if channels == 1:
        with pytest.raises(MaskError, match=r"m\.tif holds -1 beside 0 and 9"):
            read_lesion(path, MaskLabels(None, (9,)))
        assert (read_lesion(path, MaskLabels((-1,))) == lesion).all()
        assert not read_lesion(path, MaskLabels(None, (-1,))).any()


def test_colours_that_are_not_whole_are_refused(tmp_path):
    pixels = np.zeros((*SIZE, 3), np.float32)
    pixels[:9, :, 0] = 0.4
    with pytest.raises(ImageReadError, match="not whole; threshold it first"):
        read_lesion(save_deep(tmp_path / "m.tif", pixels))


def save_deep(path, pixels):
    kind = "rgb" if pixels.shape[2] == 3 else "minisblack"
    tifffile.imwrite(path, pixels.squeeze(), photometric=kind)
    return path
