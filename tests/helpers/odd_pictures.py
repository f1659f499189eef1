"""Pictures by the libraries that people have: tifffile, Pillow, OpenCV, imagecodecs, Matplotlib."""

from functools import partial

import cv2
import imagecodecs
import numpy as np
import tifffile
from odd import READS_FAXES, drawn, ending, shown
from PIL import Image as Pillow
from PIL import ImageCms, PngImagePlugin

SIZE = (7, 10)
TILED = (32, 48)


# --- tifffile


def tiff(kind, base, *, channels=(), size=SIZE, inverted=False, suffix=".tif", **options):
    numbers = drawn(kind, *size, *channels)
    path = ending(base, suffix)
    photometric = "rgb" if channels == (3,) else "miniswhite" if inverted else "minisblack"
    written = np.moveaxis(numbers, -1, 0) if options.get("planarconfig") == "separate" else numbers
    tifffile.imwrite(path, written, photometric=options.pop("photometric", photometric), **options)
    expected = shown(numbers)
    return path, 1 - expected if inverted else expected


def tiff_with_alpha(kind, base):
    numbers = drawn(kind, *SIZE, 4)
    path = ending(base, ".tif")
    tifffile.imwrite(path, numbers, photometric="rgb", extrasamples=["unassalpha"])
    return path, shown(numbers[..., :3])


def tiff_of_palette(base):
    numbers, colours = drawn("u1", *SIZE), drawn("u1", 256, 3, seed=1)
    path = ending(base, ".tif")
    map_of_16_bits = colours.T.astype(np.uint16) * 257
    tifffile.imwrite(path, numbers, photometric="palette", colormap=map_of_16_bits)
    return path, shown(colours[numbers])


def bilevel_tiff(base, **options):
    numbers = drawn("u1", *SIZE) > 90
    path = ending(base, ".tif")
    tifffile.imwrite(path, numbers, photometric="minisblack", **options)
    return path, numbers.astype(float)


def pyramid(base):
    numbers = drawn("u2", 64, 64)
    path = ending(base, ".tif")
    with tifffile.TiffWriter(path) as file:
        file.write(numbers, subifds=1, tile=(32, 32))
        file.write(numbers[::2, ::2], subfiletype=1, tile=(32, 32))
    return path, shown(numbers)


def tiff_with_thumbnail(base):
    numbers = drawn("u1", *SIZE)
    path = ending(base, ".tif")
    with tifffile.TiffWriter(path) as file:
        file.write(numbers, photometric="minisblack")
        file.write(numbers[::2, ::2], photometric="minisblack", subfiletype=1)
    return path, shown(numbers)


def pages(base):
    path = ending(base, ".tif")
    tifffile.imwrite(path, drawn("u1", 3, *SIZE), photometric="minisblack")
    return path, None


def complex_tiff(base):
    path = ending(base, ".tif")
    tifffile.imwrite(path, drawn("f4", *SIZE).astype(np.complex64), photometric="minisblack")
    return path, None


PACKED = ("zlib", "lzw", "packbits", "zstd", "lzma", "jpeg2000", "png", "lerc")
TIFFS = {
    **{f"tiff {kind}": partial(tiff, kind)
       for kind in ("u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8")},
    **{f"tiff {kind} inverted": partial(tiff, kind, inverted=True) for kind in ("u1", "u2", "f4")},
    **{f"tiff {kind} big endian": partial(tiff, kind, byteorder=">")
       for kind in ("u2", "i2", "f4", "f8")},
    **{f"bigtiff {kind}": partial(tiff, kind, bigtiff=True) for kind in ("u1", "u2", "f4")},
    "bigtiff big endian": partial(tiff, "u2", bigtiff=True, byteorder=">"),
    **{f"tiff colour {kind}": partial(tiff, kind, channels=(3,)) for kind in ("u1", "u2", "f4")},
    **{f"tiff colour apart {kind}": partial(tiff, kind, channels=(3,), planarconfig="separate")
       for kind in ("u1", "u2")},
    **{f"tiff {one}": partial(tiff, "u2" if one != "lerc" else "f4", compression=one)
       for one in PACKED},
    "tiff zlib differences": partial(tiff, "u2", compression="zlib", predictor=True),
    "tiff zlib real differences": partial(tiff, "f4", compression="zlib", predictor=3),
    "tiff lzw colour differences": partial(
        tiff, "u1", channels=(3,), compression="lzw", predictor=True
    ),
    **{f"tiff tiles {kind}": partial(tiff, kind, size=TILED, tile=(16, 32))
       for kind in ("u1", "u2", "f4")},
    "tiff tiles packed": partial(tiff, "u2", size=(40, 50), tile=(16, 16), compression="zlib"),
    "tiff strips of a row": partial(tiff, "u2", rowsperstrip=1),
    "tiff webp": partial(
        tiff, "u1", channels=(3,), compression="webp", compressionargs={"lossless": True}
    ),
    "tiff of ImageJ": partial(tiff, "u2", imagej=True, photometric=None),
    "tiff of OME": partial(tiff, "u2", ome=True, suffix=".ome.tif"),
    "tiff shaped": partial(tiff, "i2", metadata={"axes": "YX", "a": "µ"}),
    "tiff with a resolution": partial(tiff, "u1", resolution=(1e3, 1e3), description="a\nb"),
    "tiff with alpha u1": partial(tiff_with_alpha, "u1"),
    "tiff with alpha u2": partial(tiff_with_alpha, "u2"),
    "tiff of a palette": tiff_of_palette,
    "tiff bilevel": bilevel_tiff,
    "tiff bilevel packed": partial(bilevel_tiff, compression="zlib"),
    "tiff with a pyramid": pyramid,
    "tiff with a thumbnail": tiff_with_thumbnail,
    "tiff of pages": pages,
    "tiff of complex numbers": complex_tiff,
}  # fmt: skip


# --- Pillow


def by_pillow(mode, suffix, base, **options):
    """8 bits of a mode of Pillow, as Pillow's own conversion to red, green and blue has them."""
    numbers = drawn("u1", *SIZE, len(mode) if mode in ("LA", "RGB", "RGBA", "CMYK", "LAB") else 1)
    picture = Pillow.fromarray(numbers[..., 0] if numbers.shape[2] == 1 else numbers, mode=mode)
    if mode == "P":
        picture.putpalette(drawn("u1", 256, 3, seed=1).tobytes())
    path = ending(base, suffix)
    picture.save(path, **options)
    if mode in ("CMYK", "LAB"):
        return path, None
    if mode == "LA":
        return path, shown(numbers[..., 0])
    if mode == "RGBA":
        return path, shown(numbers[..., :3])
    return path, shown(np.asarray(picture.convert("RGB")))


def bilevel(suffix, base, **options):
    numbers = drawn("u1", *SIZE) > 90
    path = ending(base, suffix)
    Pillow.fromarray(numbers).save(path, **options)
    return path, numbers.astype(float)


def deep_by_pillow(kind, suffix, base, **options):
    numbers = drawn(kind, *SIZE)
    path = ending(base, suffix)
    Pillow.fromarray(numbers).save(path, **options)
    return path, shown(numbers)


def told(base):
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Comment", "a word " * 99, zip=True)
    notes.add_itxt("Title", "Größe")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return by_pillow("RGB", ".png", base, pnginfo=notes, icc_profile=profile, dpi=(72, 72))


def animation(suffix, base):
    path = ending(base, suffix)
    first, *others = (Pillow.fromarray(drawn("u1", *SIZE, seed=n)).convert("RGB") for n in range(3))
    first.save(path, save_all=True, append_images=others)
    return path, None


def foreign(suffix, base):
    path = ending(base, ".png")
    as_named = ending(base, suffix)
    Pillow.fromarray(drawn("u1", *SIZE, 3)).save(as_named)
    as_named.rename(path)
    return path, None


LOSSLESS = {"lossless": True, "exact": True}
BY_PILLOW = {
    **{f"png {mode}": partial(by_pillow, mode, ".png") for mode in ("L", "LA", "P", "RGB", "RGBA")},
    "png 1": partial(bilevel, ".png"),
    "png 16": partial(deep_by_pillow, "u2", ".png"),
    "png with notes": told,
    "png transparent": partial(by_pillow, "RGB", ".png", transparency=(1, 2, 3)),
    "png in upper case": partial(by_pillow, "L", ".PNG"),
    "png called jpg": partial(by_pillow, "RGB", ".jpg.JPEG", format="png"),
    "bmp 1": partial(bilevel, ".bmp"),
    **{f"bmp {mode}": partial(by_pillow, mode, ".bmp") for mode in ("L", "P", "RGB", "RGBA")},
    **{f"gif {mode}": partial(by_pillow, mode, ".gif") for mode in ("L", "P")},
    "gif interlaced": partial(by_pillow, "L", ".gif", interlace=1, comment=b"a word"),
    **{f"webp {mode}": partial(by_pillow, mode, ".webp", **LOSSLESS) for mode in ("RGB", "RGBA")},
    **{f"tiff of Pillow {mode}": partial(by_pillow, mode, ".tif")
       for mode in ("L", "LA", "P", "RGB", "RGBA")},
    **{f"tiff of Pillow {kind}": partial(deep_by_pillow, kind, ".tiff")
       for kind in ("u2", "i4", "f4")},
    **{f"tiff of Pillow {packed}": partial(by_pillow, "RGB", ".tif", compression=packed)
       for packed in ("tiff_lzw", "tiff_adobe_deflate", "packbits")},
    **{f"fax {packed}": partial(bilevel, ".tif", compression=packed)
       for packed in ("group3", "group4", "tiff_ccitt") if READS_FAXES},
    "inks jpeg": partial(by_pillow, "CMYK", ".jpg"),
    "inks tiff": partial(by_pillow, "CMYK", ".tif"),
    "lab tiff": partial(by_pillow, "LAB", ".tif"),
    "gif animation": partial(animation, ".gif"),
    "png animation": partial(animation, ".png"),
    "netpbm": partial(foreign, ".ppm"),
    "jpeg 2000": partial(foreign, ".jp2"),
}  # fmt: skip


# --- JPEG, whose numbers another decoder says


def jpeg(colour, base, **options):
    ramp = np.add.outer(np.arange(40) * 3, np.arange(56) * 2).astype(np.uint8)
    numbers = np.dstack([ramp, 255 - ramp, ramp // 2]) if colour else ramp
    path = ending(base, ".jpg")
    Pillow.fromarray(numbers).save(path, **options)
    return path, imagecodecs.jpeg8_decode(path.read_bytes()) / 255


def jpeg_of_opencv(base):
    path = ending(base, ".jpeg")
    assert cv2.imwrite(str(path), drawn("u1", 40, 56, 3), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    return path, imagecodecs.jpeg8_decode(path.read_bytes()) / 255


JPEGS = {
    "jpeg grey": partial(jpeg, False),
    "jpeg colour": partial(jpeg, True),
    "jpeg progressive": partial(jpeg, True, progressive=True, optimize=True),
    "jpeg 4:4:4": partial(jpeg, True, subsampling=0, quality=99),
    "jpeg restarts": partial(jpeg, False, restart_marker_blocks=2),
    "jpeg of OpenCV": jpeg_of_opencv,
}


# --- OpenCV, Matplotlib


def by_opencv(kind, channels, suffix, base):
    numbers = drawn(kind, *SIZE, channels)
    path = ending(base, suffix)
    assert cv2.imwrite(str(path), numbers)
    colours = numbers[..., 2::-1] if channels > 1 else numbers[..., 0]  # it has blue first
    return path, shown(colours)


def by_matplotlib(base):
    from matplotlib import image

    numbers, path = drawn("u1", *SIZE, 3), ending(base, ".png")
    image.imsave(path, numbers)
    return path, shown(numbers)


OTHERS = {
    **{f"opencv {suffix[1:]} {kind} x {n}": partial(by_opencv, kind, n, suffix)
       for suffix, kind, n in (
           (".png", "u1", 1), (".png", "u2", 1), (".png", "u1", 3), (".png", "u2", 3),
           (".png", "u1", 4), (".png", "u2", 4), (".bmp", "u1", 1), (".bmp", "u1", 3),
           (".tif", "u2", 1), (".tif", "u2", 3), (".tif", "f4", 1), (".tif", "f8", 1),
       )},
    "matplotlib": by_matplotlib,
}  # fmt: skip

PICTURES = {**TIFFS, **BY_PILLOW, **JPEGS, **OTHERS}
