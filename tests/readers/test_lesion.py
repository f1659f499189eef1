"""What the numbers of a mask mean: read where they can mean one thing, asked about where not."""

import struct

import cv2
import numpy as np
import pytest
from outlines import SIZE, by_palette, ellipse
from pictures import noise, save
from PIL import Image as Pillow
from PIL import ImageCms
from written import SHORT, tiff_page, write_bmp, write_png, write_tiff

from anomalib_medclip.errors import MaskError
from anomalib_medclip.readers.lesion import MaskLabels
from anomalib_medclip.readers.picture import read_label_map, read_lesion, read_mask

ASKS = r"mask .*: ?|mask .*, and .* is not said; "


# --- one number or colour beside 0, however it is stored

RED = [0, 0, 0, 200, 30, 30]


def write_any(random, folder, lesion):
    """Write a mask that can mean one thing only, in one of many ways."""
    value = int(random.integers(1, 256))
    grey = np.where(lesion, value, 0).astype(np.uint8)
    colour = grey[..., None] * np.array([[[1, 0, 0], [0, 1, 1], [1, 1, 1]][random.integers(3)]])
    colour = colour.astype(np.uint8)
    opaque = np.where(lesion, 255, 0).astype(np.uint8)
    ways = [
        lambda: save(folder / "m.png", grey),
        lambda: save(folder / "m.gif", grey),
        lambda: save(folder / "m.webp", colour, lossless=True),
        lambda: save(folder / "m.tif", grey.astype(np.int32) * 300),
        lambda: save(folder / "m.tif", grey.astype(np.float32)),
        lambda: save(folder / "m.png", grey.astype(np.uint16) * 257),
        lambda: save(folder / "m.png", colour),
        lambda: save(folder / "m.png", np.dstack([colour, np.full(lesion.shape, 80, np.uint8)])),
        lambda: save(folder / "m.png", np.dstack([np.zeros_like(colour), opaque])),
        lambda: save(folder / "m.png", np.dstack([np.full_like(colour, 255), opaque])),
        lambda: save(folder / "m.png", np.dstack([colour, opaque])),
        lambda: by_palette(folder / "m.png", lesion, RED),
        lambda: write_png(folder / "m.png", (lesion * 2)[..., None], 0, 4),
        lambda: write_png(folder / "m.png", (lesion * 1)[..., None], 0, 1),
        lambda: write_tiff(folder / "m.tif", tiff_page(255 - grey[..., None], 8, 0, ">")),
        lambda: write_bmp(folder / "m.bmp", lesion * 1, 8, np.array([[0] * 3, [255] * 3])),
        lambda: write_bmp(folder / "m.bmp", lesion * 5, 4, np.array([[n] * 3 for n in range(16)])),
    ]  # fmt: skip
    return ways[random.integers(len(ways))]()


@pytest.mark.parametrize("seed", range(3))
def test_a_mask_of_one_number_or_colour_is_read_however_it_is_stored(tmp_path, seed):
    random = np.random.default_rng(seed)
    for _ in range(60):
        lesion = ellipse(random)
        path = write_any(random, tmp_path, lesion)
        assert (read_lesion(path) == lesion).all(), path


# --- soft edges


@pytest.mark.parametrize("seed", range(3))
def test_soft_masks_are_cut_at_half_of_their_own_peak(tmp_path, seed):
    random = np.random.default_rng(seed)
    for _ in range(20):
        lesion, peak = ellipse(random), int(random.integers(60, 256))
        grey = np.where(lesion, peak, 0).astype(np.uint8)
        edge = np.count_nonzero(cv2.dilate(lesion.astype(np.uint8), np.ones((3, 3))) - lesion)
        way = random.integers(4)
        if way == 0:
            path = save(tmp_path / "m.jpg", grey, quality=int(random.integers(50, 96)))
        elif way == 1:
            path = save(tmp_path / "m.jpg", np.dstack([grey, 0 * grey, 0 * grey]), quality=90)
        elif way == 2:
            path = save(tmp_path / "m.webp", np.dstack([grey] * 3), quality=80)
        else:
            blurred = cv2.GaussianBlur(grey, (0, 0), random.uniform(1, 3))
            path = save(tmp_path / "m.png", blurred)
            lesion = blurred > blurred.max() / 2
            edge = 0
        found = read_lesion(path)
        assert np.count_nonzero(found != lesion) <= edge / 4, (way, path)


# --- what may mean two things


def two_values(lesion, one, other, dtype=np.uint8):
    labels = np.where(lesion, one, 0).astype(dtype)
    labels[:5] = other
    return labels


@pytest.mark.parametrize("pair", [(1, 255), (1, 2), (128, 255), (7, 8), (-1, 1)])
def test_two_numbers_beside_0_are_asked_about_and_the_answer_is_taken(tmp_path, pair):
    lesion = ellipse(np.random.default_rng(0))
    labels = two_values(lesion, *pair, np.uint8 if min(pair) > 0 else np.int32)
    path = save(tmp_path / "m.tif", labels)
    low, high = sorted(pair)
    with pytest.raises(MaskError, match=rf"m\.tif holds {low} and {high} beside 0.*lesion_labels"):
        read_lesion(path)
    for label in pair:
        assert (read_lesion(path, MaskLabels((label,))) == (labels == label)).all()
    assert (read_lesion(path, MaskLabels(pair)) == (labels != 0)).all()
    assert (read_mask(path, SIZE, MaskLabels((pair[0],))).numpy() == (labels == pair[0])).all()
    assert (read_label_map(path) == labels).all()


@pytest.mark.parametrize("bits", [2, 4])
def test_labels_of_few_bits_are_the_numbers_that_are_stored(tmp_path, bits):
    labels = two_values(ellipse(np.random.default_rng(0)), 1, 3)
    write_png(tmp_path / "m.png", labels[..., None], 0, bits)
    write_tiff(tmp_path / "m.tif", tiff_page(labels[..., None], bits, 1, ">"), order=">")
    for path in (tmp_path / "m.png", tmp_path / "m.tif"):
        assert (read_label_map(path) == labels).all()
        assert (read_lesion(path, MaskLabels((3,))) == (labels == 3)).all()


LABEL_TYPES = {"m.png": ("u1", "u2"), "m.gif": ("u1",), "m.tif": ("u1", "i2", "i4", "u4", "f4")}


def test_labels_that_are_drawn_are_asked_about_and_the_answer_is_taken(tmp_path):
    for seed in range(100):
        random = np.random.default_rng(seed)
        name = str(random.choice(list(LABEL_TYPES)))
        kind = str(random.choice(LABEL_TYPES[name]))
        most = 255 if kind == "u1" else 30000
        numbers = random.choice(np.arange(1, most), int(random.integers(2, 8)), replace=False)
        if kind[0] in "if":
            numbers = numbers * random.choice([-1, 1], len(numbers))
        places = random.integers(0, len(numbers) + 1, (6, 8))
        drawn = np.array([0, *numbers])[places]  # areas of 8 x 8 pixels
        labels = np.kron(drawn, np.ones((8, 8), int)).astype(kind)
        path = save(tmp_path / name, labels)
        if len(np.unique(labels[labels != 0])) > 1:
            with pytest.raises(MaskError, match=r"m\..* is not said; .*'lesion_labels'"):
                read_lesion(path)
        asked = random.choice(numbers, int(random.integers(1, len(numbers) + 1)), replace=False)
        wanted = "all" if seed % 4 == 0 else tuple(asked.tolist())
        expected = labels != 0 if wanted == "all" else np.isin(labels, asked)
        assert np.array_equal(read_lesion(path, MaskLabels(wanted)), expected), seed
        assert np.array_equal(read_label_map(path), labels)


def test_many_labels_are_no_soft_mask(tmp_path):
    labels = (np.arange(SIZE[0])[:, None] // 4 + np.zeros(SIZE, int)).astype(np.uint8) * 20
    with pytest.raises(
        MaskError, match=r"m\.png has areas of grey between black and its brightest"
    ):
        read_lesion(save(tmp_path / "m.png", labels))


def test_a_jpeg_of_two_labels_is_asked_about(tmp_path):
    labels = two_values(ellipse(np.random.default_rng(0)), 90, 255)
    path = save(tmp_path / "m.jpg", labels)
    with pytest.raises(MaskError, match=r"m\.jpg has areas of grey"):
        read_lesion(path)
    with pytest.raises(MaskError, match=r"m\.jpg has no labels left, since JPEG has blurred"):
        read_lesion(path, MaskLabels((90,)))


def test_two_colours_are_asked_about(tmp_path):
    lesion = ellipse(np.random.default_rng(0))
    pixels = np.zeros((*SIZE, 3), np.uint8)
    pixels[lesion], pixels[:4] = (0, 200, 0), (255, 0, 0)
    for name in ("m.png", "m.jpg"):
        with pytest.raises(MaskError, match=rf"{name} has several colours, such as .*store it as"):
            read_lesion(save(tmp_path / name, pixels))
    with pytest.raises(MaskError, match=r"m\.png is in colour, and so has no labels"):
        read_lesion(tmp_path / "m.png", MaskLabels((1,)))


def test_a_photograph_is_no_mask(tmp_path):
    for name, pixels in (("grey", noise(12, 16)), ("colour", noise(12, 16, 3))):
        large = cv2.resize(pixels, SIZE[::-1], interpolation=cv2.INTER_NEAREST)
        with pytest.raises(MaskError, match=rf"{name}\.png has (areas|several)"):
            read_lesion(save(tmp_path / f"{name}.png", large))


@pytest.mark.parametrize("colours", [[255, 255, 255, 0, 0, 0], [9, 9, 99, 250, 9, 9]])
def test_a_palette_whose_number_0_is_not_black_is_asked_about(tmp_path, colours):
    lesion = ellipse(np.random.default_rng(0))
    by_palette(tmp_path / "m.png", lesion, colours)
    with pytest.raises(MaskError, match=r"m\.png has a palette that shows its number 0 as red"):
        read_lesion(tmp_path / "m.png")
    # Greys are what they show, colours are the places in their palette.
    label = 0 if colours[0] == 255 else 1
    asked = 255 if label == 0 else 1
    assert (read_lesion(tmp_path / "m.png", MaskLabels((asked,))) == (lesion == bool(label))).all()


def test_transparency_that_contradicts_the_colours_is_asked_about(tmp_path):
    lesion = ellipse(np.random.default_rng(0))
    grey = np.where(lesion, 255, 0).astype(np.uint8)
    path = save(tmp_path / "m.png", np.dstack([grey] * 3 + [255 - grey]))
    with pytest.raises(MaskError, match=r"m\.png marks pixels that are transparent"):
        read_lesion(path)


def as_animation(plain, height, width):
    """A WebP file of one chunk as an animation of one frame."""

    def chunk(name, content):
        return name + struct.pack("<I", len(content)) + content

    def three(*numbers):
        return b"".join(struct.pack("<I", number)[:3] for number in numbers)

    frame = three(0, 0, width - 1, height - 1, 100) + b"\0" + plain[12:]
    whole = chunk(b"VP8X", b"\x02\0\0\0" + three(width - 1, height - 1))
    whole += chunk(b"ANIM", bytes(6)) + chunk(b"ANMF", frame)
    return chunk(b"RIFF", b"WEBP" + whole)


@pytest.mark.parametrize("way", ["plain", "profile", "notes", "one frame"])
def test_a_lossless_webp_has_its_labels_whatever_lies_before_its_pixels(tmp_path, way):
    labels = two_values(ellipse(np.random.default_rng(0)), 1, 255)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    options = {
        "plain": {},
        "profile": {"icc_profile": profile},
        "notes": {"icc_profile": profile, "exif": Pillow.Exif().tobytes(), "xmp": b"<x/>"},
        "one frame": {},
    }[way]
    for lossless in (True, False):
        pixels = np.dstack([labels] * 3)
        path = save(tmp_path / "m.webp", pixels, lossless=lossless, quality=100, **options)
        if way == "one frame":
            path.write_bytes(as_animation(path.read_bytes(), *SIZE))
        if lossless:
            with pytest.raises(MaskError, match=r"m\.webp holds 1 and 255 beside 0"):
                read_lesion(path)
            assert (read_lesion(path, MaskLabels((1,), (255,))) == (labels == 1)).all()
        else:
            with pytest.raises(MaskError, match=r"m\.webp has no labels left"):
                read_lesion(path, MaskLabels((1,), (255,)))


# --- what is likely wrong


def test_a_mask_that_marks_most_of_its_image_is_warned_of_once(tmp_path, caplog):
    inverted = np.where(ellipse(np.random.default_rng(0)), 0, 255).astype(np.uint8)
    path = save(tmp_path / "m.png", inverted)
    for _ in range(3):
        assert (read_mask(path, SIZE).numpy() == (inverted > 0)).all()
    warned = [one for one in caplog.records if "most of its image" in one.getMessage()]
    assert len(warned) == 1


def test_a_mask_of_one_number_everywhere_marks_everything(tmp_path):
    path = save(tmp_path / "m.png", np.full(SIZE, 255, np.uint8))
    assert read_lesion(path).all()


def test_pages_of_a_mask_are_refused_too(tmp_path):
    page = tiff_page(np.zeros((*SIZE, 1), np.uint8), 8, 1, "<", tags={254: (SHORT, [0])})
    with pytest.raises(OSError, match=r"m\.tif: it has 2 pages"):
        read_lesion(write_tiff(tmp_path / "m.tif", page, page))
