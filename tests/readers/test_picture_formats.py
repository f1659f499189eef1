"""Pictures of every kind that their formats allow are read as their headers say, or refused."""

import struct

import cv2
import imagecodecs
import numpy as np
import pytest
from pictures import noise, save
from PIL import Image as Pillow
from PIL import ImageOps, PngImagePlugin
from written import (
    PNG_CHANNELS,
    SHORT,
    png_chunk,
    tiff_page,
    write_bmp,
    write_png,
    write_tiff,
)

from anomalib_medclip.errors import ImageReadError, IntensityError
from anomalib_medclip.readers.picture import read_image, read_lesion, read_mask
from anomalib_medclip.readers.picture_file import is_turned

SIZE = (7, 9)


def random_numbers(random, shape, dtype, bits):
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return random.normal(0, 1000, shape).astype(dtype)
    low, high = (0, 2**bits - 1) if dtype.kind == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return random.integers(low, high, shape, dtype=dtype, endpoint=True)


def placed(numbers, low, high):
    return np.clip((numbers.astype(np.float64) - low) / (high - low), 0, 1).astype(np.float32)


def assert_read(path, expected, policy=None):
    """``expected`` is ``(row, column)`` or with three channels, in [0, 1]."""
    if expected.ndim == 2:
        expected = np.repeat(expected[..., None], 3, axis=2)
    found = np.asarray(read_image(path, policy)).transpose(1, 2, 0)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


# --- TIFF

UNSIGNED = [("u1", bits) for bits in (1, 2, 4, 8)] + [("u2", 12), ("u2", 16), ("u4", 32)]
SIGNED = [("i1", 8), ("i2", 16), ("i4", 32)]
FLOATS = [("f2", 16), ("f4", 32), ("f8", 64)]


def draw_tiff(random, path):
    """Write a TIFF of a random kind; its numbers, and what else matters of them."""
    dtype, bits = [*UNSIGNED, *SIGNED, *FLOATS][random.integers(13)]
    colour = bits >= 8 and bits != 12 and bool(random.integers(2))
    photometric = 2 if colour else int(random.integers(2))
    alpha = bits >= 8 and bits != 12 and dtype[0] != "f" and bool(random.integers(2))
    numbers = random_numbers(random, (*SIZE, (3 if colour else 1) + alpha), dtype, bits)
    packed = bool(random.integers(2))
    predictor = packed and bits in (8, 16, 32) and dtype[0] != "f" and bool(random.integers(2))
    how = {
        "packed": packed, "predictor": predictor, "rows": int(random.integers(1, 9)),
        "apart": numbers.shape[2] > 1 and bool(random.integers(2)) and not predictor,
        "extra": 2 if alpha else None,
    }  # fmt: skip
    order, big = "<>"[random.integers(2)], bool(random.integers(2))
    write_tiff(path, tiff_page(numbers, bits, photometric, order, **how), order=order, big=big)
    return numbers[..., :3] if colour else numbers[..., 0], bits, photometric == 0


@pytest.mark.parametrize("seed", range(4))
def test_tiffs_of_any_kind_are_read_exactly(tmp_path, seed):
    random = np.random.default_rng(seed)
    deep = 0
    for _ in range(60):
        numbers, bits, inverted = draw_tiff(random, tmp_path / "a.tif")
        white = 2**bits - 1
        if numbers.dtype.kind == "u" and bits <= 8:
            expected, policy = placed(numbers, 0, white), None
        else:
            deep += 1
            policy = [(-500.0, 700.0), (10.0, 1e9), (-128.0, 127.0)][random.integers(3)]
            expected = placed(numbers, *policy)
            with pytest.raises(IntensityError, match=r"a\.tif holds"):
                read_image(tmp_path / "a.tif")
        assert_read(tmp_path / "a.tif", 1 - expected if inverted else expected, policy)
        if numbers.dtype.kind == "u" and policy:
            expected = placed(numbers, 0, white)
            assert_read(tmp_path / "a.tif", 1 - expected if inverted else expected, "dtype")
    assert deep > 10


def test_signed_numbers_are_called_so(tmp_path):
    numbers = np.arange(-8, 8, dtype=np.int8).reshape(4, 4, 1)
    write_tiff(tmp_path / "a.tif", tiff_page(numbers, 8, 1, "<"))
    with pytest.raises(IntensityError, match=r"a\.tif holds signed numbers \(int8\).*'intensity'"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("step", [1, 257], ids=["8-bit colours", "16-bit colours"])
def test_palettes_of_tiff_are_read_by_their_colours(tmp_path, bits, step):
    random = np.random.default_rng(bits)
    colours = random.integers(0, 256, (3, 2**bits))
    colours[0, 0] = 255  # so that 16 bits are known by more than 255
    numbers = random.integers(0, 2**bits, (*SIZE, 1), dtype=np.uint8)
    page = tiff_page(numbers, bits, 3, "<", tags={320: (SHORT, (colours * step).ravel().tolist())})
    write_tiff(tmp_path / "a.tif", page)
    assert_read(tmp_path / "a.tif", placed(colours.T[numbers[..., 0]], 0, 255))


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate"])
def test_compressed_tiffs_of_pillow_are_read(tmp_path, compression):
    pixels = noise(*SIZE, top=65535, dtype=np.uint16)
    path = save(tmp_path / "a.tif", pixels, compression=compression)
    assert_read(path, placed(pixels, 0, 65535), "dtype")


def test_a_fax_is_read_where_imagecodecs_can_and_else_refused_by_name(tmp_path):
    path = save(tmp_path / "a.tif", noise(*SIZE) > 127, compression="group4")
    if hasattr(imagecodecs, "ccittfax4_decode"):
        assert_read(path, (noise(*SIZE) > 127).astype(np.float32))
        return
    words = r"a\.tif: .* compression, CCITT_T6, .*; update imagecodecs and tifffile, or store"
    with pytest.raises(ImageReadError, match=words):
        read_image(path)


GREY = np.zeros((4, 4, 1), np.uint8)
REFUSED_TIFFS = {
    "inks": (tiff_page(np.zeros((4, 4, 4), np.uint8), 8, 5, "<"), "SEPARATED"),
    "lab": (tiff_page(np.zeros((4, 4, 3), np.uint8), 8, 8, "<"), "CIELAB"),
    "ycbcr": (tiff_page(np.zeros((4, 4, 3), np.uint8), 8, 6, "<"), "YCbCr"),
    "channels": (tiff_page(np.zeros((4, 4, 5), np.uint8), 8, 1, "<"), "5 channels"),
    "complex": (tiff_page(GREY, 8, 1, "<", tags={339: (SHORT, [6])}), "of a kind"),
    "multiplied": (tiff_page(np.ones((4, 4, 4), np.uint8), 8, 2, "<", extra=1), "multiplied"),
}


@pytest.mark.parametrize("kind", REFUSED_TIFFS)
def test_tiffs_that_cannot_be_read_exactly_are_refused_by_name(tmp_path, kind):
    page, words = REFUSED_TIFFS[kind]
    write_tiff(tmp_path / "a.tif", page)
    with pytest.raises(ImageReadError, match=rf"a\.tif: .*{words}.*; (convert|store)"):
        read_image(tmp_path / "a.tif")


def test_a_tiff_whose_pages_go_in_a_circle_is_damaged(tmp_path):
    path = write_tiff(tmp_path / "a.tif", tiff_page(GREY, 8, 1, "<"))
    raw = bytearray(path.read_bytes())
    raw[-4:] = raw[4:8]  # the next page is the first
    path.write_bytes(raw)
    with pytest.raises(ImageReadError, match="its list of pages has no end"):
        read_image(path)


@pytest.mark.parametrize("side", [256, 257])
def test_a_tiff_without_a_pixel_is_damaged(tmp_path, side):
    page = tiff_page(GREY, 8, 1, "<", tags={side: (SHORT, [0])})
    with pytest.raises(ImageReadError, match=r"a\.tif: it has no pixel; replace"):
        read_image(write_tiff(tmp_path / "a.tif", page))


def test_strips_outside_the_file_are_damage(tmp_path):
    path = write_tiff(tmp_path / "a.tif", tiff_page(GREY, 8, 1, "<", packed=True, rows=4))
    raw = bytearray(path.read_bytes())
    place = raw.index(struct.pack("<HHI", 279, 4, 1)) + 8  # the number of bytes of the one strip
    raw[place : place + 4] = struct.pack("<I", 2**32 - 1)
    path.write_bytes(raw)
    with pytest.raises(ImageReadError, match=r"a\.tif: its pixels lie outside the file"):
        read_image(path)


# --- BMP

FIELDS = {
    (0x7C00, 0x3E0, 0x1F): 16, (0xF800, 0x7E0, 0x1F): 16, (0xF00, 0xF0, 0xF): 16,
    (0xFF0000, 0xFF00, 0xFF): 32, (0xFF, 0xFF00, 0xFF0000): 32, (0xFF000000, 0xFF0000, 0xFF00): 32,
}  # fmt: skip


def field_of(numbers, field):
    shift = (field & -field).bit_length() - 1
    most = field >> shift
    return np.rint(((numbers & field) >> shift) * 255 / most) / 255


WAYS_OF_BMP = {
    "plain": {}, "from the top": {"from_top": True}, "OS/2": {"os2": True}, "gap": {"gap": 6},
    "runs": {"runs": True},
}  # fmt: skip


BITS_OF_BMP = [(b, way) for way in WAYS_OF_BMP for b in ((4, 8) if way == "runs" else (1, 2, 4, 8))]


@pytest.mark.parametrize("greys", [True, False], ids=["greys", "colours"])
@pytest.mark.parametrize(("bits", "way"), BITS_OF_BMP)
def test_palettes_of_bmp_are_read_by_their_colours(tmp_path, bits, greys, way):
    how = WAYS_OF_BMP[way]
    random = np.random.default_rng(bits)
    count = 2**bits if how.get("os2") else max(2, 2**bits - 1)
    ramp = np.repeat(np.arange(count)[:, None], 3, axis=1)
    palette = (ramp if greys else random.integers(0, 256, (count, 3))).astype(np.uint8)
    numbers = random.integers(0, count, SIZE)
    numbers[2, 3:] = numbers[2, 3]
    path = write_bmp(tmp_path / "a.bmp", numbers, bits, palette, **how)
    assert_read(path, placed(palette[numbers][..., ::-1], 0, 255))


def test_eight_bits_of_black_and_white_are_read(tmp_path):
    numbers = noise(*SIZE, top=1)
    palette = np.array([[0] * 3, [255] * 3], np.uint8)
    assert_read(write_bmp(tmp_path / "a.bmp", numbers, 8, palette), numbers.astype(np.float32))


@pytest.mark.parametrize("fields", [None, *FIELDS])
@pytest.mark.parametrize("from_top", [True, False])
def test_colours_of_bmp_are_read_by_their_fields(tmp_path, fields, from_top):
    numbers = noise(*SIZE, top=2**32 - 1, dtype=np.uint32)
    for bits in (16, 24, 32) if fields is None else (FIELDS[fields],):
        path = write_bmp(tmp_path / "a.bmp", numbers, bits, fields=fields, from_top=from_top)
        usual = (0x7C00, 0x3E0, 0x1F) if bits == 16 else (0xFF0000, 0xFF00, 0xFF)
        stored = numbers & np.uint32(2**bits - 1)
        expected = np.stack([field_of(stored, one) for one in fields or usual], axis=2)
        assert_read(path, expected.astype(np.float32))


def test_a_bmp_of_ten_bits_a_colour_is_refused(tmp_path):
    fields = (0x3FF00000, 0xFFC00, 0x3FF)
    write_bmp(tmp_path / "a.bmp", np.zeros(SIZE, np.uint32), 32, fields=fields)
    with pytest.raises(ImageReadError, match=r"a\.bmp is a BMP of 10 bits of red.*convert it"):
        read_image(tmp_path / "a.bmp")


# --- PNG

KINDS_OF_PNG = [(0, b) for b in (1, 2, 4, 8, 16)] + [(3, b) for b in (1, 2, 4, 8)]
KINDS_OF_PNG += [(kind, b) for kind in (2, 4, 6) for b in (8, 16)]


@pytest.mark.parametrize(("kind", "bits"), KINDS_OF_PNG)
@pytest.mark.parametrize("notes", [False, True], ids=["bare", "gamma, bits, transparency"])
@pytest.mark.parametrize("interlaced", [False, True], ids=["row by row", "interlaced"])
def test_png_of_every_kind_is_read_exactly(tmp_path, kind, bits, notes, interlaced):
    random = np.random.default_rng(bits)
    white, channels = 2**bits - 1, PNG_CHANNELS[kind]
    numbers = random.integers(0, white, (*SIZE, channels), endpoint=True)
    palette = random.integers(0, 256, (2**bits, 3), dtype=np.uint8) if kind == 3 else None
    told = []
    if notes:
        significant = 3 if kind == 3 else channels
        told = [
            png_chunk(b"gAMA", struct.pack(">I", 100000)),
            png_chunk(b"sBIT", bytes([min(bits, 8)] * significant)),
        ]
    if kind == 3:
        told.append(png_chunk(b"PLTE", palette.tobytes()))
    if notes and kind in (0, 2, 3):
        clear = bytes(2**bits) if kind == 3 else struct.pack(f">{channels}H", *numbers[0, 0])
        told.append(png_chunk(b"tRNS", clear))
    path = write_png(tmp_path / "a.png", numbers, kind, bits, *told, interlaced=interlaced)
    if kind == 3:
        expected = placed(palette[numbers[..., 0]], 0, 255)
    else:
        expected = placed(numbers[..., :3] if kind in (2, 6) else numbers[..., 0], 0, white)
    assert_read(path, expected, "dtype" if bits == 16 else None)


# --- other formats


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_gif_and_lossless_webp_are_read_exactly(tmp_path, ending):
    colours = noise(*SIZE, 3)
    path = tmp_path / f"a.{ending}"
    if ending == "gif":
        picture = Pillow.fromarray(colours).quantize(64)
        picture.save(path)
        colours = np.asarray(picture.convert("RGB"))
    else:
        save(path, colours, lossless=True)
    assert_read(path, placed(colours, 0, 255))


def test_inks_are_refused(tmp_path):
    save(tmp_path / "a.jpg", noise(*SIZE, 3), "CMYK")
    with pytest.raises(ImageReadError, match=r"a\.jpg: it holds inks \(CMYK\).*convert it to RGB"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("ending", ["ppm", "jp2", "tga"])
def test_formats_that_are_not_read_are_named(tmp_path, ending):
    save(tmp_path / f"a.{ending}", noise(*SIZE, 3)).rename(tmp_path / "a.png")
    with pytest.raises(ImageReadError, match=r"a\.png: it is of the format .*convert it to PNG"):
        read_image(tmp_path / "a.png")


def test_a_jpeg_of_twelve_bits_is_said_to_be_of_another_kind(tmp_path):
    path = save(tmp_path / "a.jpg", noise(*SIZE))
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"\xff\xc0") + 4] = 12
    path.write_bytes(raw)
    with pytest.raises(ImageReadError, match=r"a\.jpg: it is a damaged JPEG or one of a kind"):
        read_image(path)


# --- several pictures in one


@pytest.mark.parametrize("ending", ["gif", "png", "webp", "mpo"])
def test_several_pictures_in_one_are_counted_and_refused(tmp_path, ending):
    count = 2 if ending == "mpo" else 3  # Pillow before 11.3 gives a third a wrong place
    first, *others = [Pillow.fromarray(noise(*SIZE, 3, seed=seed)) for seed in range(count)]
    options = {"lossless": True} if ending == "webp" else {}
    path = tmp_path / f"a.{ending}"
    first.save(path, save_all=True, append_images=others, **options)
    said = "of a camera" if ending == "mpo" else "an animation"
    with pytest.raises(
        ImageReadError, match=rf"a\.{ending}: it has {count} pictures.*{said}.*; store"
    ):
        read_image(path)


MP_KINDS = {"thumbnail": 0x010001, "undefined": 0, "panorama": 0x020001, "views": 0x020003}


def write_mpo(random, path, kind, scale):
    """Write a picture of a camera with another of a kind beside it, larger or smaller."""
    size = random.integers(12, 30, 2)
    first = cv2.GaussianBlur(random.integers(0, 256, (*size, 3), dtype=np.uint8), (0, 0), 2)
    beside = random.integers(0, 256, (*np.rint(size * scale).astype(int), 3), dtype=np.uint8)
    note = Pillow.Exif()
    note[274] = int(random.integers(1, 9))
    pages = [Pillow.fromarray(beside)]
    Pillow.fromarray(first).save(
        path, format="MPO", save_all=True, append_images=pages, exif=note, quality=100
    )
    raw = bytearray(path.read_bytes())
    at = raw.index(b"MPF\0") + 4
    order = "<" if raw[at : at + 2] == b"II" else ">"
    entries = raw.index(struct.pack(order + "HHI", 0xB002, 7, 32), at)
    (place,) = struct.unpack_from(order + "I", raw, entries + 8)
    struct.pack_into(order + "I", raw, at + place + 16, MP_KINDS[kind])
    path.write_bytes(raw)
    plain = path.with_suffix(".plain.jpg")
    Pillow.fromarray(first).save(plain, exif=note, quality=100)
    return plain


@pytest.mark.parametrize("kind", MP_KINDS)
@pytest.mark.parametrize("scale", [0.25, 0.5, 1, 1.5])
def test_thumbnails_and_gain_maps_of_cameras_do_not_count(tmp_path, kind, scale):
    for seed in range(5):
        plain = write_mpo(np.random.default_rng(seed), tmp_path / "a.jpg", kind, scale)
        if kind == "thumbnail" or (kind == "undefined" and scale < 1):
            found, expected = read_image(tmp_path / "a.jpg"), read_image(plain)
            assert found.shape == expected.shape
            np.testing.assert_allclose(found, expected, atol=0.02)
        else:
            with pytest.raises(ImageReadError, match=r"a\.jpg: it has 2 pictures of a camera"):
                read_image(tmp_path / "a.jpg")


def test_pages_are_counted_with_their_sizes_and_smaller_copies_are_none(tmp_path):
    numbers = noise(*SIZE)[..., None]
    page = tiff_page(numbers, 8, 1, "<")
    small = tiff_page(numbers[::2, ::2], 8, 1, "<", tags={254: (SHORT, [1])})
    old = tiff_page(numbers[::2, ::2], 8, 1, "<", tags={255: (SHORT, [2])})
    unclear = tiff_page(numbers[::2, ::2], 8, 1, "<")
    for pages in ([page, small, old], [small, page]):
        write_tiff(tmp_path / "a.tif", *pages)
        assert_read(tmp_path / "a.tif", placed(numbers[..., 0], 0, 255))
    write_tiff(tmp_path / "a.tif", page, unclear)
    with pytest.raises(ImageReadError, match=r"it has 2 pages of 9 x 7, 5 x 4; store each"):
        read_image(tmp_path / "a.tif")
    write_tiff(tmp_path / "a.tif", small)
    with pytest.raises(ImageReadError, match=r"it has no pages of full size"):
        read_image(tmp_path / "a.tif")


def draw_pages(random, path):
    """Write pages of full size and smaller copies of them in any order; the pages of full size."""
    full, pages = [], []
    for _ in range(int(random.integers(1, 5))):
        numbers = random_numbers(random, (*SIZE, 1), "u1", 8)
        said = int(random.integers(4))
        if said < 2:  # nothing is said, or that it is of full size
            full.append(numbers[..., 0])
            tags = {254: (SHORT, [0])} if said else {}
        else:
            numbers = numbers[::2, ::2]
            tags = {254: (SHORT, [1])} if said == 2 else {255: (SHORT, [2])}
        pages.append(tiff_page(numbers, 8, 1, "<", tags=tags))
    write_tiff(path, *pages, big=bool(random.integers(2)))
    return full


def test_one_page_of_full_size_is_read_and_several_are_counted(tmp_path):
    read = 0
    for seed in range(120):
        full = draw_pages(np.random.default_rng(seed), tmp_path / "a.tif")
        if len(full) == 1:
            assert_read(tmp_path / "a.tif", placed(full[0], 0, 255))
            read += 1
        else:
            with pytest.raises(ImageReadError, match=f"it has {len(full) or 'no'} pages of "):
                read_image(tmp_path / "a.tif")
    assert 20 < read < 100


# --- the way up


def draw_turned(random, folder):
    """Write a picture and a mask, each in a way of its own, that viewers show in one way."""
    size = tuple(random.integers(8, 30, 2))
    orientation = int(random.integers(1, 9))
    lesion = np.zeros(size, np.uint8)
    top, left = random.integers(0, np.array(size) - 4)
    lesion[top : top + 3, left : left + 4] = 255
    pixels = random.integers(0, 256, (*size, 3), dtype=np.uint8)
    paths = []
    for name, stored in (("image", pixels), ("mask", lesion)):
        ending = ("png", "tif", "webp", "plain.tif")[random.integers(4)]
        note = Pillow.Exif()
        note[274] = orientation
        path = folder / f"{name}.{ending}"
        if ending == "plain.tif":
            page = np.atleast_3d(stored)
            kind = 2 if page.shape[2] == 3 else 1
            write_tiff(path, tiff_page(page, 8, kind, "<", orientation=orientation))
        else:
            options = {"tiffinfo": note} if ending == "tif" else {"exif": note}
            stored = np.dstack([stored] * 3) if stored.ndim == 2 and ending == "webp" else stored
            save(path, stored, **options, **({"lossless": True} if ending == "webp" else {}))
        paths.append(path)
    upright = []
    for stored in (pixels, lesion):
        picture = Pillow.fromarray(stored)
        picture.getexif()[274] = orientation
        upright.append(np.asarray(ImageOps.exif_transpose(picture)))
    return paths, upright


def test_a_picture_and_its_mask_are_turned_alike_however_each_is_stored(tmp_path):
    for seed in range(150):
        (image, mask), (pixels, lesion) = draw_turned(np.random.default_rng(seed), tmp_path)
        assert_read(image, placed(pixels, 0, 255))
        found = read_mask(mask, pixels.shape[:2]).numpy()
        assert np.array_equal(found > 0, lesion > 0), seed


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("turned", [None, 3])
def test_orientation_is_that_of_exif_and_not_of_xmp(tmp_path, ending, turned):
    pixels = noise(8, 12, 3)
    about = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    )
    note = Pillow.Exif()
    note[305 if turned is None else 274] = "a program" if turned is None else turned
    path = tmp_path / f"a.{ending}"
    if ending == "png":
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", about.decode())
        save(path, pixels, pnginfo=text, exif=note)
    elif ending == "tif":
        note[700] = about
        save(path, pixels, tiffinfo=note)
    elif ending == "webp":
        save(path, pixels, xmp=about, exif=note, lossless=True)
    else:
        save(path, pixels, exif=note, quality=100, subsampling=0)
        segment = b"http://ns.adobe.com/xap/1.0/\0" + about  # which older versions cannot write
        segment = b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment
        tables = b"\xff\xdb"
        path.write_bytes(path.read_bytes().replace(tables, segment + tables, 1))
    assert b'tiff:Orientation="6"' in path.read_bytes()
    assert is_turned(path) == (turned is not None)
    found = np.asarray(read_image(path)).transpose(1, 2, 0)
    expected = pixels if turned is None else pixels[::-1, ::-1]
    np.testing.assert_allclose(found, expected / 255, atol=0.05 if ending == "jpg" else 1e-6)
    if ending == "jpg":
        as_viewed = cv2.imread(str(path))[..., ::-1]
        np.testing.assert_allclose(found, as_viewed / 255, atol=0.02)


@pytest.mark.parametrize("orientation", range(1, 10))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif", "deep.png", "deep.tif"])
def test_pictures_and_masks_are_the_way_up_that_viewers_show(tmp_path, orientation, ending):
    path = tmp_path / f"a.{ending}"
    pixels = np.zeros((16, 24), np.uint8)
    pixels[2:5, 3:12] = 255
    deep, policy = ending.startswith("deep"), (0, 255)
    stored = pixels.astype(np.uint16) if deep else np.repeat(pixels[..., None], 3, axis=2)
    if ending == "deep.tif":  # Pillow turns what it writes, too
        page = tiff_page(stored[..., None], 16, 1, ">", orientation=orientation)
        write_tiff(path, page, order=">")
    else:
        note = Pillow.Exif()
        note[274] = orientation
        options = {"tiffinfo": note} if ending == "tif" else {"exif": note}
        save(path, stored, **options, **({"lossless": True} if ending == "webp" else {}))
    upright = Pillow.fromarray(pixels)
    upright.getexif()[274] = orientation
    expected = np.asarray(ImageOps.exif_transpose(upright))
    found = np.asarray(read_image(path, policy))
    assert found.shape == (3, *expected.shape)
    assert ((found[0] > 0.5) == (expected > 0)).all()
    assert (read_lesion(path) == (expected > 0)).all()
