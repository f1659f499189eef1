"""DICOM by pydicom, highdicom and byte by byte: single pictures, series, multi-frame files."""

from functools import partial

import highdicom
import imagecodecs
import numpy as np
import pydicom
from dicom_series import UID, change, oblique, straight, write_picture, write_series
from enhanced import geometry, stored_as, write_enhanced
from odd import drawn, ending, shown, windowed
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

SIZE = (8, 10)

# --- one picture


def picture(kind, base, *, suffix=".dcm", step=lambda path: None, **tags):
    numbers = drawn(kind, *SIZE)
    path = write_picture(ending(base, suffix), numbers, **tags)
    step(path)
    return path, shown(numbers)


def stored(syntax, path):
    """The same numbers in another syntax."""
    if syntax in (RLELossless, ExplicitVRBigEndian):
        stored_as(path, syntax)
        return
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = syntax
    pydicom.dcmwrite(
        path, dataset, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True,
        enforce_file_format=True,
    )  # fmt: skip


def packed(syntax, encode, path):
    """The pixels of a file as another library compresses them."""
    dataset = pydicom.dcmread(path)
    dataset.PixelData = encapsulate([encode(dataset.pixel_array)])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path)


def without(*keywords, path):
    change(path, **dict.fromkeys(keywords))


def bare(path):
    """Neither preamble nor file header."""
    plain = pydicom.Dataset(dict(pydicom.dcmread(path).items()))
    pydicom.dcmwrite(path, plain, implicit_vr=True, little_endian=True)


def jpeg_2000(pixels):
    return imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k")


def jpeg_in_dicom(base):
    numbers = np.add.outer(np.arange(40) * 3, np.arange(56) * 2).astype(np.uint8)
    path = write_picture(ending(base, ".dcm"), numbers)
    raw = imagecodecs.jpeg8_encode(numbers, level=90)
    packed(JPEGBaseline8Bit, lambda _: raw, path)
    return path, imagecodecs.jpeg8_decode(raw) / 255


def of_bits(stored_bits, high, base, **tags):
    """Some of 16 bits, and an overlay in the others."""
    numbers = drawn("u2", *SIZE) % 2**stored_bits
    others = (0xFFFF ^ ((2**stored_bits - 1) << (high + 1 - stored_bits))) & drawn("u2", *SIZE)
    words = ((numbers << (high + 1 - stored_bits)) | others).astype(np.uint16)
    path = write_picture(
        ending(base, ".dcm"), words, BitsStored=stored_bits, HighBit=high, **tags
    )  # fmt: skip
    return path, windowed(numbers) if stored_bits > 8 else numbers / (2**stored_bits - 1)


def rescaled(slope, intercept, base, **tags):
    numbers = drawn("u2", *SIZE)
    said = {"RescaleSlope": slope, "RescaleIntercept": intercept, **tags}
    path = write_picture(ending(base, ".dcm"), numbers, **said)
    return path, windowed(numbers * float(slope) + float(intercept))


def looked_up(base):
    """A table in the place of slope and intercept."""
    numbers, table = drawn("u1", *SIZE), drawn("u2", 256, seed=1)
    lut = pydicom.Dataset()
    lut.LUTDescriptor, lut.LUTData, lut.ModalityLUTType = [256, 0, 16], table.tobytes(), "US"
    said = {"ModalityLUTSequence": pydicom.Sequence([lut])}
    return write_picture(ending(base, ".dcm"), numbers, **said), windowed(table[numbers])


def inverted(kind, base):
    path, expected = picture(kind, base, PhotometricInterpretation="MONOCHROME1")
    return path, 1 - expected


def coloured(base, *, apart=False, syntax=None):
    numbers = drawn("u1", *SIZE, 3)
    planes = np.moveaxis(numbers, -1, 0) if apart else numbers
    said = {"PixelData": planes.tobytes(), "PlanarConfiguration": int(apart)}
    path = write_picture(ending(base, ".dcm"), numbers, **said)
    if syntax:
        stored(syntax, path)
    return path, shown(numbers)


def of_palette(base):
    numbers, colours = drawn("u1", *SIZE), drawn("u1", 256, 3, seed=1)
    said = {"PhotometricInterpretation": "PALETTE COLOR"}
    for number, name in enumerate(("Red", "Green", "Blue")):
        said[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        words = colours[:, number].astype("<u2") * 257
        said[f"{name}PaletteColorLookupTableData"] = words.tobytes()
    return write_picture(ending(base, ".dcm"), numbers, **said), shown(colours[numbers])


def of_highdicom(base):
    numbers = drawn("u1", *SIZE, 3)
    image = highdicom.sc.SCImage(
        numbers, "RGB", 8, "PATIENT", f"{UID}11", f"{UID}12", 1, f"{UID}13", 1, "maker",
        patient_orientation=("L", "P"),
    )  # fmt: skip
    path = ending(base, ".dcm")
    image.save_as(path)
    return path, shown(numbers)


def refused(write, base):
    return write(base)[0], None


def report(base):
    path = write_picture(ending(base, ".dcm"), drawn("u2", *SIZE))
    change(path, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", PixelData=None)
    return path, None


def mosaic(base):
    return picture("u2", base, ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"])[0], None


def cine(base):
    pixels = drawn("u1", 3, *SIZE)
    said = {"NumberOfFrames": 3, "PixelData": pixels.tobytes()}
    return write_picture(ending(base, ".dcm"), pixels[0], **said), None


def lossless_jpeg(pixels):
    return imagecodecs.ljpeg_encode(pixels, bitspersample=16)


RETIRED = "1.2.840.10008.5.1.4.1.1.6"  # ultrasound, of before 1998
DICOM_PICTURES = {
    **{f"dicom {kind}": partial(picture, kind)
       for kind in ("u1", "i1", "u2", "i2", "u4", "i4")},
    **{f"dicom {name}": partial(picture, "u2", step=partial(stored, syntax))
       for name, syntax in {
           "implicit": ImplicitVRLittleEndian, "big endian": ExplicitVRBigEndian,
           "deflated": DeflatedExplicitVRLittleEndian, "run lengths": RLELossless,
       }.items()},
    "dicom big endian of bytes": partial(picture, "u1", step=partial(stored, ExplicitVRBigEndian)),
    "dicom jpeg-ls": partial(
        picture, "u2", step=partial(packed, JPEGLSLossless, imagecodecs.jpegls_encode)
    ),
    **{f"dicom jpeg 2000 {kind}": partial(picture, kind, step=partial(packed, syntax, jpeg_2000))
       for kind, syntax in (("u1", JPEG2000Lossless), ("u2", JPEG2000))},
    "dicom jpeg": jpeg_in_dicom,
    **{f"dicom {count} bits below {high + 1}": partial(of_bits, count, high)
       for count, high in ((12, 11), (10, 9), (12, 15), (10, 12), (7, 6))},
    "dicom rescaled": partial(rescaled, 0.5, -300),
    "dicom rescaled downwards": partial(rescaled, -1, 900),
    "dicom rescaled by long words": partial(rescaled, "1.00000000", "-1024.0000"),
    "dicom with a table": looked_up,
    **{f"dicom inverted {kind}": partial(inverted, kind) for kind in ("u1", "u2")},
    "dicom colour": coloured,
    "dicom colour apart": partial(coloured, apart=True),
    "dicom colour big endian": partial(coloured, syntax=ExplicitVRBigEndian),
    "dicom colour run lengths": partial(coloured, syntax=RLELossless),
    "dicom of a palette": of_palette,
    "dicom of highdicom": of_highdicom,
    **{f"dicom without {one}": partial(picture, "u2", step=lambda path, one=one: without(
        one, path=path)) for one in ("SOPInstanceUID", "SeriesInstanceUID", "PatientName",
                                     "FrameOfReferenceUID", "HighBit", "SOPClassUID")},
    "dicom of a retired class": partial(picture, "u1", SOPClassUID=RETIRED),
    "dicom of a private class": partial(picture, "u2", SOPClassUID="1.3.12.2.1107.5.9.1"),
    "dicom with a window of its own": partial(picture, "u2", WindowCenter=9, WindowWidth=3),
    "dicom with two windows": partial(picture, "u2", WindowCenter=[9, 8], WindowWidth=[3, 2]),
    "dicom of one frame": partial(picture, "u2", NumberOfFrames=1),
    "dicom bare": partial(picture, "u2", step=bare),
    "dicom bare, without ending": partial(picture, "u2", step=bare, suffix=""),
    "dicom called IMA": partial(picture, "u2", suffix=".IMA"),
    "dicom called by a number": partial(picture, "u2", suffix=".1.2.840.7"),
    "dicom called png": partial(picture, "u2", suffix=".png"),
    "dicom of a report": report,
    "dicom of a mosaic": mosaic,
    "dicom of a cine": cine,
    "dicom lossless jpeg": partial(
        refused, partial(picture, "u2", step=partial(packed, JPEGLosslessSV1, lossless_jpeg))
    ),
}  # fmt: skip

# --- series and multi-frame files


def series(base, *, affine=None, kind="i2", change_all=lambda paths: None, **tags):
    voxels = drawn(kind, 6, 5, 4)
    affine = straight() if affine is None else affine
    change_all(write_series(ending(base, ""), voxels, affine, **tags))
    slope, intercept = tags.get("RescaleSlope", 1), tags.get("RescaleIntercept", 0)
    return ending(base, ""), shown(voxels.transpose(2, 1, 0)) if kind == "u1" else windowed(
        voxels.transpose(2, 1, 0) * float(slope) + float(intercept)
    )


def inverted_series(base):
    folder, expected = series(base, PhotometricInterpretation="MONOCHROME1")
    return folder, 1 - expected


def of_each_slope(base):
    """As positron emission tomography has it."""
    folder = ending(base, "")
    voxels = drawn("i2", 6, 5, 4) % 500
    for k, path in enumerate(write_series(folder, voxels, straight())):
        change(path, RescaleSlope=k + 1, RescaleIntercept=0)
    return folder, windowed(voxels.transpose(2, 1, 0) * np.arange(1, 5)[:, None, None])


def renamed(paths):
    for number, path in enumerate(paths):
        path.rename(path.with_name(f"1.2.840.{number}"))


def among_strangers(paths):
    (paths[0].parent / "notes.txt").write_text("tired")
    dataset = pydicom.dcmread(paths[0])
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    del dataset.PixelData
    dataset.save_as(paths[0].parent / "sr.dcm")


def without_one(paths):
    paths[1].unlink()


def leaning(paths):
    for k, path in enumerate(paths):
        x, y, z = pydicom.dcmread(path).ImagePositionPatient
        change(path, ImagePositionPatient=[x, y + 0.6 * k, z])


def in_two(paths):
    for path in paths[:2]:
        change(path, SeriesInstanceUID=f"{UID}9")


def in_syntax(syntax, paths):
    for path in paths:
        stored(syntax, path)


def multi_frame(base, *, groups="each", syntax=None, count=4, **tags):
    pixels = drawn("u2", count, 6, 5)
    shared, frames = geometry(oblique(), count)
    if groups == "each":
        frames, shared = [{**frame, **shared} for frame in frames], {}
    order = np.random.default_rng(1).permutation(count)
    path = write_enhanced(
        ending(base, ".dcm"), pixels[order], [frames[i] for i in order], shared, **tags
    )
    if syntax:
        stored_as(path, syntax)
    return path, windowed(pixels)


def converted(kind, base):
    """By highdicom, of a classic series."""
    classic = {"CT": "1.2.840.10008.5.1.4.1.1.2", "MR": "1.2.840.10008.5.1.4.1.1.4"}[kind]
    empty = dict.fromkeys(
        ("PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
         "AccessionNumber", "ReferringPhysicianName", "Manufacturer"), "",
    )  # fmt: skip
    said = {"StudyInstanceUID": f"{UID}7", "SeriesNumber": 3, "Modality": kind,
            "SOPClassUID": classic, "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]}  # fmt: skip
    folder, expected = series(base, affine=oblique(), **empty, **said)
    datasets = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    convert = getattr(highdicom.legacy, f"LegacyConvertedEnhanced{kind}Image")
    path = ending(base, ".dcm")
    convert(datasets, f"{UID}10", 1, f"{UID}11", 1).save_as(path)
    return path, expected


def of_two_echoes(base):
    pixels = drawn("u2", 4, 6, 5)
    shared, frames = geometry(straight(), 2)
    said = [{**frame, "EffectiveEchoTime": echo} for frame in frames for echo in (4.6, 9.2)]
    return write_enhanced(ending(base, ".dcm"), pixels, said, shared), None


AXES = {"sagittal": [[0, 0, 1], [1, 0, 0], [0, 1, 0]], "feet first": np.diag([1, -1, -1])}


def turned(axes):
    affine = straight()
    affine[:3, :3] = np.array(axes, float) @ np.diag([2.0, 1.5, 3.0])
    return affine


DICOM_VOLUMES = {
    "series": series,
    "series oblique": partial(series, affine=oblique()),
    **{f"series {name}": partial(series, affine=turned(axes)) for name, axes in AXES.items()},
    "series of bytes": partial(series, kind="u1"),
    "series rescaled": partial(series, kind="u2", RescaleSlope=0.5, RescaleIntercept=-200),
    "series rescaled each": of_each_slope,
    "series inverted": inverted_series,
    "series called by numbers": partial(series, change_all=renamed),
    "series among strangers": partial(series, change_all=among_strangers),
    **{f"series {name}": partial(series, change_all=partial(in_syntax, syntax))
       for name, syntax in {
           "implicit": ImplicitVRLittleEndian, "big endian": ExplicitVRBigEndian,
           "deflated": DeflatedExplicitVRLittleEndian, "run lengths": RLELossless,
       }.items()},
    "multi-frame, groups of each": multi_frame,
    "multi-frame, groups of all": partial(multi_frame, groups="all"),
    "multi-frame big endian": partial(multi_frame, syntax=ExplicitVRBigEndian),
    "multi-frame run lengths": partial(multi_frame, syntax=RLELossless),
    "multi-frame of two": partial(multi_frame, count=2),
    "multi-frame CT of highdicom": partial(converted, "CT"),
    "multi-frame MR of highdicom": partial(converted, "MR"),
    "multi-frame of two echoes": of_two_echoes,
    "series without a slice": partial(refused, partial(series, change_all=without_one)),
    "series that leans": partial(refused, partial(series, change_all=leaning)),
    "series of two": partial(refused, partial(series, change_all=in_two)),
}  # fmt: skip
