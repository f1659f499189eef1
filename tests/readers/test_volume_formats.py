"""Volumes of every format and many makings: right to the last number and millimetre, or refused."""

import gzip
import shlex

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from dicom_series import numbers, oblique, straight, write_nifti, write_picture, write_series
from pictures import noise, save
from scipy.io import savemat
from volume_formats import SPACES, write_meta_image, write_mgh, write_nrrd, write_pair

from anomalib_medclip.errors import (
    ImageReadError,
    IntensityError,
    MedclipError,
    VolumeError,
)
from anomalib_medclip.readers.file_kind import is_volume, kind_of
from anomalib_medclip.readers.picture import read_image
from anomalib_medclip.readers.volume import read_labels, read_volume
from anomalib_medclip.readers.volume_file import parts_of, sha256_of_volume

WINDOW = (-1000.0, 2000.0)


def window(values):
    return np.clip((values.astype(np.float64) + 1000) / 3000, 0, 1).astype(np.float32)


# --- many, drawn


def one_of(random, items):
    return items[int(random.integers(len(items)))]


def drawn(random):
    """Voxels, and an affine of any order and direction of axes, straight or oblique."""
    shape = random.integers(2, 7, 3)
    dtype = one_of(random, ["u1", "i2", "i4", "f4"])
    voxels = (random.integers(0, 200, shape) * (1 if dtype == "u1" else 7)).astype(dtype)
    turn = np.zeros((3, 3))
    turn[random.permutation(3), range(3)] = random.choice([-1, 1], 3)
    affine = np.eye(4)
    lean = oblique((1, 1, 1), random.uniform(-40, 40)) if random.random() < 0.5 else np.eye(4)
    affine[:3, :3] = lean[:3, :3] @ turn * random.uniform(0.3, 5, 3)
    affine[:3, 3] = random.uniform(-100, 100, 3)
    return voxels, affine


def nifti(path, voxels, affine, random):
    kind = one_of(random, [nib.Nifti1Image, nib.Nifti2Image])
    image = kind(voxels, affine)
    if random.random() < 0.3:
        image = kind(voxels, affine, image.header.as_byteswapped())
    raw = image.to_bytes()
    path = path.with_name(one_of(random, ["a.nii", "a.nii.gz", "a.NII", "a.dcm", "a.png", "a"]))
    path.write_bytes(gzip.compress(raw) if random.random() < 0.5 else raw)
    return path


def pair(path, voxels, affine, random):
    kind = one_of(random, [nib.Nifti1Pair, nib.Nifti2Pair])
    packed = bool(random.random() < 0.4)
    name = one_of(random, ["a.hdr", "a.img"]) + ".gz" * packed
    return write_pair(path.with_name(name), voxels, affine, kind=kind, packed=packed)


def by_pynrrd(path, voxels, affine, random):
    return write_nrrd(
        path.with_name(one_of(random, ["a.nrrd", "a.nhdr"])), voxels, affine,
        space=one_of(random, list(SPACES)),
        encoding=one_of(random, ["raw", "gzip", "bzip2", "ascii"]),
        endian=one_of(random, ["little", "big"]),
    )  # fmt: skip


def meta_image(path, voxels, affine, random):
    name = one_of(random, ["a.mha", "a.mhd"])
    packed, big = (bool(random.random() < 0.5) for _ in range(2))
    return write_meta_image(path.with_name(name), voxels, affine, packed=packed, big=big)


def mgh(path, voxels, affine, random):
    return write_mgh(path.with_name(one_of(random, ["a.mgh", "a.mgz"])), voxels, affine)


WRITERS = pytest.mark.parametrize("write", [nifti, pair, by_pynrrd, meta_image, mgh])


def check_drawn(home, write, numbers_drawn):
    random = np.random.default_rng([len(numbers_drawn), *write.__name__.encode()])
    for number in numbers_drawn:
        folder = home / str(number)
        folder.mkdir()
        voxels, affine = drawn(random)
        path = write(folder / "a", voxels, affine, random)
        volume = read_volume(path, WINDOW)
        assert np.array_equal(volume.voxels, window(voxels)), (number, path)
        np.testing.assert_allclose(volume.affine, affine, atol=1e-3)
        assert np.array_equal(read_labels(path).voxels, voxels)
        assert {one.name.partition(".")[0] for one in parts_of(path, kind_of(path))} == {"a"}
        header = volume.headers[0]
        assert header.get_data_shape() == voxels.shape
        np.testing.assert_allclose(header.get_best_affine(), affine, atol=1e-3)


@WRITERS
def test_numbers_and_place_are_those_that_were_written(tmp_path, write):
    check_drawn(tmp_path, write, range(40))


@pytest.mark.nightly(
    also="tests/readers/test_volume_formats.py::test_numbers_and_place_are_those_that_were_written"
)
@WRITERS
def test_so_they_are_in_many_more(tmp_path, write):
    check_drawn(tmp_path, write, range(300))


def test_simple_itk_and_nibabel_read_the_same_place(tmp_path):
    """Written by one, read by the other and by us: no side of the patient is mixed up."""
    affine, voxels = oblique(), numbers(4, 5, 6)
    write_nifti(tmp_path / "a.nii.gz", voxels, affine)
    image = SimpleITK.ReadImage(str(tmp_path / "a.nii.gz"))
    for ending in ("mha", "mhd", "nrrd", "nhdr"):
        for packed in (False, True):
            SimpleITK.WriteImage(image, str(tmp_path / f"b.{ending}"), packed)
            volume = read_volume(tmp_path / f"b.{ending}", WINDOW)
            assert np.array_equal(volume.voxels, window(voxels))
            np.testing.assert_allclose(volume.affine, affine, atol=1e-4)
    for write, name in ((write_meta_image, "c.mha"), (write_nrrd, "c.nrrd")):
        theirs = SimpleITK.ReadImage(str(write(tmp_path / name, voxels, affine)))
        assert np.array_equal(SimpleITK.GetArrayFromImage(theirs), voxels.transpose())
        np.testing.assert_allclose(theirs.GetDirection(), image.GetDirection(), atol=1e-5)
        np.testing.assert_allclose(theirs.GetOrigin(), image.GetOrigin(), atol=1e-4)
        np.testing.assert_allclose(theirs.GetSpacing(), image.GetSpacing(), atol=1e-5)


@pytest.mark.parametrize("mat", [False, True])
def test_analyze_is_read_as_nibabel_reads_it_and_says_nothing_of_sides(tmp_path, mat, caplog):
    affine = oblique() if mat else None
    nib.save(nib.Spm2AnalyzeImage(numbers(4, 5, 6), affine), tmp_path / "a.img")
    if not mat:
        (tmp_path / "a.mat").unlink(missing_ok=True)
    wanted = nib.load(tmp_path / "a.img")
    for name in ("a.hdr", "a.img"):
        volume = read_volume(tmp_path / name, WINDOW)
        assert np.array_equal(volume.voxels, window(wanted.get_fdata()))
        np.testing.assert_allclose(volume.affine, wanted.affine, atol=1e-5)
    assert "does not say how it lies in the patient" in caplog.text


FLAT = [(24, 20), (1, 24, 20), (24, 1, 20), (24, 20, 1), (24, 20, 1, 1), (1, 24, 20, 1, 1)]


@pytest.mark.parametrize("shape", FLAT, ids=str)
@pytest.mark.parametrize("place", ["sform", "qform", "none", "no third axis"])
def test_a_flat_file_is_a_volume_one_voxel_thick(tmp_path, shape, place):
    voxels = numbers(*shape)
    image = nib.Nifti1Image(voxels, straight())
    image.set_sform(straight(), code=int(place in ("sform", "no third axis")))
    image.set_qform(straight(), code=int(place == "qform"))
    sides = (*shape, 1)[:3]
    if place == "no third axis":
        axis = sides.index(1)
        image.header["pixdim"][axis + 1] = 0
        for row in "xyz":
            image.header[f"srow_{row}"][axis] = 0
    image.header["vox_offset"] = 352
    (tmp_path / "a.nii").write_bytes(image.header.binaryblock + bytes(4) + voxels.tobytes("F"))
    volume = read_volume(tmp_path / "a.nii", WINDOW)
    assert np.array_equal(volume.voxels, window(voxels).reshape(sides))
    assert abs(np.linalg.det(volume.affine[:3, :3])) > 0
    long = [axis for axis, side in enumerate(sides) if side > 1]
    if place in ("sform", "qform", "no third axis"):
        np.testing.assert_allclose(volume.affine[:, [*long, 3]], straight()[:, [*long, 3]])


# --- what cannot be taken


def sheared(degrees):
    affine = straight((2, 2, 5))
    affine[:3, 2] = 0, 5 * np.sin(np.radians(degrees)), 5 * np.cos(np.radians(degrees))
    return affine


def run(command):
    """Run the Python command that an error names."""
    words = shlex.split(command)
    assert words[:2] == ["python", "-c"]
    exec(words[2], {})  # as Python would, but in a process that has its packages


def refused(path, words, kind=VolumeError):
    with pytest.raises(kind, match=words) as caught:
        read_volume(path, WINDOW)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("degrees", [-25, 3, 20])
def test_sheared_slices_are_refused_in_degrees_and_straightened_by_what_the_error_names(
    tmp_path, degrees
):
    rod = np.zeros((9, 21, 8), dtype=np.int16)
    affine = sheared(degrees)
    inverse = np.linalg.inv(affine)
    for k in range(8):  # along the table, so at the same millimetres in every slice
        _, row, _, _ = inverse @ [*(affine @ [4, 10, 4, 1])[:2], (affine @ [4, 10, k, 1])[2], 1]
        rod[3:6, round(row) - 1 : round(row) + 2, k] = 1000
    write_nifti(tmp_path / "head.nii.gz", rod, affine)
    said = refused(
        tmp_path / "head.nii.gz", rf"sheared by {abs(degrees)} degrees.*_Tilt_ in its name, or"
    )
    run(said.partition("straighten it by ")[2])
    straightened = read_volume(tmp_path / "head_straight.nii.gz", (0.0, 1000.0)).voxels
    middles = [np.argwhere(one > 0.5).mean(axis=0) for one in straightened.transpose(2, 0, 1)[1:-1]]
    assert np.ptp(middles, axis=0).max() < 1.5


@pytest.mark.parametrize("ending", ["nrrd", "mha"])
def test_sheared_slices_of_other_formats_are_refused(tmp_path, ending):
    write = {"nrrd": write_nrrd, "mha": write_meta_image}[ending]
    path = write(tmp_path / f"a.{ending}", numbers(4, 5, 6), sheared(10))
    refused(path, "sheared by 10 degrees")


COLOURS = np.zeros((4, 5, 6), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
COLOURS["G"] = noise(4, 5, 6)
SEVERAL = {
    "volumes": (numbers(4, 5, 6, 3), "3 volumes; take one out, the first by ", lambda v: v[..., 0]),
    "vectors": (
        numbers(4, 5, 6, 1, 3),
        "3 numbers at each voxel; take one out, the first by ",
        lambda v: v[..., 0, 0],
    ),
    "colours": (COLOURS, "green alone becomes a volume by ", lambda v: v["G"]),
    "complex": (
        numbers(4, 5, 6).astype(np.complex64),
        "their size becomes a volume by ",
        lambda v: abs(v),
    ),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_several_numbers_at_a_voxel_are_refused_and_the_command_of_the_error_helps(tmp_path, name):
    voxels, words, chosen = SEVERAL[name]
    path = tmp_path / "it's a scan.nii.gz"
    nib.save(nib.Nifti1Image(voxels, straight()), path)
    run(refused(path, words).partition(words)[2])
    [made] = set(tmp_path.iterdir()) - {path}
    assert np.array_equal(read_volume(made, WINDOW).voxels, window(chosen(voxels)))


@pytest.mark.parametrize("vectors", [False, True])
@pytest.mark.parametrize("ending", ["nrrd", "mha"])
def test_so_are_those_of_other_formats(tmp_path, ending, vectors):
    voxels = numbers(3, 6, 5, 4)
    array = np.moveaxis(voxels, 0, -1) if vectors else voxels
    path = tmp_path / f"a.{ending}"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array, isVector=vectors), str(path))
    refused(path, "numbers at each voxel.*3D Slicer" if vectors else "3 volumes.*3D Slicer")


def test_axes_of_a_single_number_are_none(tmp_path):
    """As programs write that treat all as four-dimensional."""
    voxels, affine = numbers(4, 5, 6), straight()
    path = write_nrrd(tmp_path / "a.nrrd", voxels, affine, encoding="raw")
    edited(
        path,
        (b"dimension: 3", b"dimension: 4"),
        (b"sizes: 4 5 6", b"sizes: 1 4 5 6\nkinds: list domain domain domain"),
        (b"directions: ", b"directions: none "),
    )
    volume = read_volume(path, WINDOW)
    assert np.array_equal(volume.voxels, window(voxels))
    np.testing.assert_allclose(volume.affine, affine)


def test_a_spacing_that_contradicts_the_affine_is_set_right_by_what_the_error_names(tmp_path):
    path = write_nifti(tmp_path / "a.nii", numbers(4, 5, 6), straight())
    raw = bytearray(path.read_bytes())
    raw[80:84] = np.float32(9).tobytes()
    path.write_bytes(raw)
    run(refused(path, "but its affine one of").partition("in a copy by ")[2])
    volume = read_volume(tmp_path / "a_affine.nii.gz", WINDOW)
    np.testing.assert_allclose(volume.affine, straight())


@pytest.mark.parametrize(("unit", "word", "factor"), [(1, "metres", 1e3), (3, "micromet", 1e-3)])
def test_lengths_in_another_unit_become_millimetres_by_what_the_error_names(
    tmp_path, unit, word, factor
):
    image = nib.Nifti1Image(numbers(4, 5, 6), straight())
    image.header["xyzt_units"] = unit
    nib.save(image, tmp_path / "a.nii")
    said = refused(tmp_path / "a.nii", f"states lengths in {word}")
    run(said.partition("in a copy by ")[2])
    volume = read_volume(tmp_path / "a_mm.nii.gz", WINDOW)
    assert np.array_equal(volume.voxels, window(numbers(4, 5, 6)))
    np.testing.assert_allclose(volume.affine, np.diag([factor] * 3 + [1]) @ straight(), rtol=1e-6)


def edited(path, *changes):
    raw = path.read_bytes()
    for before, after in changes:
        assert before in raw
        raw = raw.replace(before, after)
    path.write_bytes(raw)
    return path


def meta(path):
    return write_meta_image(path, numbers(4, 5, 6), straight())


def raw_nrrd(path):
    return write_nrrd(path, numbers(4, 5, 6), straight(), encoding="raw")


UNSOUND = {
    "centimetres": (meta, "mha", b"NDims", b"DistanceUnits = cm\nNDims", "lengths in cm"),
    "a slope": (
        meta, "mha", b"NDims", b"ElementToIntensityFunctionSlope = 2\nNDims", "stand for others",
    ),
    "a slope that is none": (
        meta, "mha", b"NDims", b"ElementToIntensityFunctionOffset = x\nNDims", "cannot be unders",
    ),
    "several files": (meta, "mhd", b"a.raw", b"LIST", "in several files"),
    "a pattern": (meta, "mhd", b"a.raw", b"a%03d.raw 1 6 1", "in several files"),
    "no such file": (meta, "mhd", b"a.raw", b"b.raw", "b.raw, which is not there"),
    "micrometres": (
        raw_nrrd, "nrrd", b"space:", b'space units: "um" "um" "um"\nspace:', "lengths in um",
    ),
    "old numbers": (raw_nrrd, "nrrd", b"space:", b"old min: 3\nspace:", "stand for others"),
    "an encoding": (raw_nrrd, "nrrd", b"encoding: raw", b"encoding: hex", "write it as raw or"),
    "a larger shape": (raw_nrrd, "nrrd", b"sizes: 4 5 6", b"sizes: 4 5 7", "its header wants 280"),
    "a smaller shape": (raw_nrrd, "nrrd", b"sizes: 4 5 6", b"sizes: 4 5 5", "header wants 200"),
    "a huge shape": (raw_nrrd, "nrrd", b"sizes: 4 5 6", b"sizes: 4 5 90000000", "at most"),
    "no byte order": (raw_nrrd, "nrrd", b"endian: little\n", b"", "which order bytes are"),
    "no type": (raw_nrrd, "nrrd", b"type: int16\n", b"", "lacks 'type'"),
    "a type of its own": (raw_nrrd, "nrrd", b"type: int16", b"type: block", "its type is block"),
    "two directions": (raw_nrrd, "nrrd", b" (0,0,3)", b"", "cannot be understood"),
    "colours of two axes": (
        raw_nrrd, "nrrd", b"sizes: 4 5 6", b"sizes: 4 5 6\nkinds: vector domain domain",
        "several numbers at each voxel",
    ),
    "channels": (meta, "mha", b"NDims", b"ElementNumberOfChannels = 2\nNDims", "2 numbers at each"),
    "a type of arrays": (meta, "mha", b"MET_SHORT", b"MET_SHORT_ARRAY", "its type is"),
    "a short matrix": (meta, "mha", b"TransformMatrix = ", b"TransformMatrix = 1 ", "not 9"),
    "skipped lines": (raw_nrrd, "nrrd", b"space:", b"line skip: 1\nspace:", "skips lines"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNSOUND)
def test_a_header_that_says_what_is_not_read_is_refused(tmp_path, name):
    write, ending, before, after, words = UNSOUND[name]
    path = edited(write(tmp_path / f"a.{ending}"), (before, after))
    refused(path, words, (VolumeError, ImageReadError))


@pytest.mark.parametrize("of_spm", [{"results": np.eye(4)}, {"mat": np.eye(3)}, {"M": "text"}])
def test_a_mat_file_of_something_else_says_nothing_of_a_pair(tmp_path, of_spm, caplog):
    path = tmp_path / "a.hdr"
    nib.save(nib.AnalyzeImage(numbers(4, 5, 6), None), path)
    expected = read_volume(path, WINDOW)
    savemat(tmp_path / "a.mat", of_spm)
    found = read_volume(path, WINDOW)
    assert np.array_equal(found.voxels, expected.voxels)
    assert np.array_equal(found.affine, expected.affine)
    assert "a.mat holds no affine of SPM" in caplog.text
    (tmp_path / "a.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + bytes(400))
    refused(path, r"a\.mat cannot be read, and may say .*; save it in MATLAB", ImageReadError)


@pytest.mark.parametrize("ending", ["mhd", "nhdr"])
@pytest.mark.parametrize("said", ["C:\\scans\\{}", "/home/anna/{}", "..\\{}", "{upper}"])
def test_voxels_that_moved_with_their_header_are_found_beside_it(tmp_path, ending, said, caplog):
    voxels = numbers(4, 5, 6)
    path = (write_meta_image if ending == "mhd" else write_nrrd)(
        tmp_path / f"a.{ending}", voxels, straight()
    )
    [beside] = set(tmp_path.iterdir()) - {path}
    named = said.format(beside.name, upper=beside.name.upper())
    path.write_text(path.read_text().replace(beside.name, named))
    assert np.array_equal(read_volume(path, WINDOW).voxels, window(voxels).astype(np.float32))
    assert f"has its voxels in {named}; {beside.name} beside it is taken" in caplog.text
    beside.with_name(beside.name.title()).write_bytes(b"x")
    if "upper" not in said:
        beside.unlink()
        beside.with_name(beside.name.title()).unlink()
    refused(path, r"has its voxels in .*, which is not there; put it there", ImageReadError)


@pytest.mark.parametrize("ending", ["mha", "nrrd"])
@pytest.mark.parametrize("rest", [b"\n", b"\r\n", bytes(16), b"\n\n", b"x"])
def test_the_end_of_a_line_behind_voxels_is_none_of_them(tmp_path, ending, rest):
    voxels = numbers(4, 5, 6)
    path = (meta if ending == "mha" else raw_nrrd)(tmp_path / f"a.{ending}")
    path.write_bytes(path.read_bytes() + rest)
    if rest in (b"\n\n", b"x"):
        refused(path, "has more bytes of voxels", ImageReadError)
    else:
        assert np.array_equal(read_volume(path, WINDOW).voxels, window(voxels).astype(np.float32))


def test_binary_voxels_that_are_called_text_are_refused_with_the_line_that_helps(tmp_path):
    path = edited(meta(tmp_path / "a.mha"), (b"BinaryData = True\n", b""))
    refused(path, r"a\.mha says that voxels are .* text, .*BinaryData = True", ImageReadError)
    content = path.read_bytes().replace(b"DimSize", b"BinaryData = True\nDimSize")
    path.write_bytes(content)
    assert read_volume(path, WINDOW).voxels.size


@pytest.mark.parametrize(("missing", "words"), [("img", "a.img is not there"), ("hdr", "Zeiss")])
def test_half_of_a_pair_is_refused(tmp_path, missing, words):
    write_pair(tmp_path / "a.img", numbers(4, 5, 6), straight())
    (tmp_path / f"a.{missing}").unlink()
    [left] = tmp_path.iterdir()
    refused(left, words, ImageReadError)


@pytest.mark.parametrize("name", ["a.mhd", "a.nhdr", "a.hdr", "a.img"])
def test_a_change_of_the_second_file_is_another_volume(tmp_path, name):
    write = {"mhd": write_meta_image, "nhdr": write_nrrd}.get(name[2:], write_pair)
    path = write(tmp_path / name, numbers(4, 5, 6), straight())
    before = sha256_of_volume(path)
    write(tmp_path / name, numbers(4, 5, 6, seed=1), straight())
    assert sha256_of_volume(path) != before


# --- what a file is

FOREIGN = {
    "a.vol": (b"HSF-OCT-103" + bytes(99), "Heidelberg .*eyepy"),
    "b": (b"CMDb" + bytes(99), "Heidelberg .*oct-converter"),
    "c.fda": (b"FOCTFDA" + bytes(99), "Topcon .*oct-converter"),
    "d.OCT": (bytes(99), "oct-converter"),
    "e.nii.gz": (gzip.compress(gzip.compress(bytes(99))), "packed twice by gzip; unpack it once"),
    "f.zip": (b"PK\3\4" + bytes(99), "a zip archive; unpack it"),
    "h.mnc": (b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5"),
    "i.npy": (b"\x93NUMPY" + bytes(99), "NumPy .*nibabel"),
    "j.PAR": (b"# === DATA DESCRIPTION FILE ===", "dcm2niix"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_others_write_is_refused_by_its_name_with_what_opens_it(tmp_path, name):
    content, words = FOREIGN[name]
    path = tmp_path / name
    path.write_bytes(content)
    refused(path, words, ImageReadError)
    with pytest.raises(ImageReadError, match=words):
        read_image(path)
    assert not is_volume(path)


@pytest.mark.parametrize("ending", ["nii", "nii.gz", "mha", "nrrd", "mgz", "dcm", "png", "txt", ""])
def test_no_ending_makes_another_thing_of_a_file(tmp_path, ending):
    voxels, affine = numbers(4, 5, 6), straight()
    made = {
        "NIfTI": write_nifti(tmp_path / "a.nii", voxels, affine),
        "MGH": write_mgh(tmp_path / "a.mgz", voxels, affine),
        "NRRD": raw_nrrd(tmp_path / "a.nrrd"),
        "MetaImage": meta(tmp_path / "a.mha"),
        "DICOM": write_picture(tmp_path / "a.dcm", noise(9, 8)),
        "PNG": save(tmp_path / "a.png", noise(9, 8)),
        "TIFF": save(tmp_path / "a.tif", noise(9, 8)),
        "BMP": save(tmp_path / "a.bmp", noise(9, 8)),
        "JPEG": save(tmp_path / "a.jpg", noise(9, 8)),
    }
    for name, path in made.items():
        assert kind_of(path.rename(tmp_path / f"b.{ending}")).name == name


def test_pictures_and_single_slices_are_no_volume_and_volumes_no_picture(tmp_path):
    refused(save(tmp_path / "a.png", noise(9, 8)), "a single file of PNG", ImageReadError)
    [slice_] = write_series(tmp_path / "s", numbers(6, 5, 1), straight())
    assert read_volume(slice_, WINDOW).voxels.size == 30
    with pytest.raises(ImageReadError, match=r"it is NIfTI; give volumes to"):
        read_image(write_nifti(tmp_path / "a.nii", numbers(4, 5, 6), straight()))


# --- numbers that are none


@pytest.mark.parametrize("none", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "policy", [(0.0, 900.0), "brain", {"centre": 450.0, "width": 900.0}, {"percentiles": (1, 99)}]
)
def test_nan_is_background_by_an_option_and_nothing_else_changes(tmp_path, policy, none):
    from anomalib_medclip.readers.intensity import with_nan_as_background

    voxels = numbers(5, 6, 7, low=1, high=900).astype(np.float32)
    outside = np.random.default_rng(1).random(voxels.shape) < 0.3
    holes = np.where(outside, none, voxels).astype(np.float32)
    path = write_nifti(tmp_path / "a.nii.gz", holes, straight())
    with pytest.raises(IntensityError, match=rf"a.nii.gz holds {outside.sum()} numbers that are"):
        read_volume(path, policy)
    found = read_volume(path, with_nan_as_background(policy)).voxels
    zeros = write_nifti(tmp_path / "b.nii.gz", np.where(outside, 0, voxels), straight())
    wanted = read_volume(zeros, policy).voxels  # 0 counts in no percentile
    assert np.array_equal(found, np.where(outside, 0, wanted))


def test_a_volume_of_nan_alone_shows_nothing(tmp_path):
    path = write_nifti(tmp_path / "a.nii", np.full((3, 4, 5), np.nan), straight())
    found = read_volume(path, {"window": (0.0, 1.0), "nan": "background"})
    assert not found.voxels.any()


# --- damage


@pytest.mark.parametrize("write", [by_pynrrd, meta_image, mgh, pair])
def test_damage_is_refused_by_the_name_of_the_file_or_does_no_harm(tmp_path, write):
    random = np.random.default_rng(3)
    for number in range(25):
        home = tmp_path / str(number)
        home.mkdir()
        path = write(home / "a", *drawn(random), random)
        whole = read_volume(path, WINDOW)
        part = one_of(random, parts_of(path, kind_of(path)))
        raw = bytearray(part.read_bytes())
        cut = int(random.integers(1, len(raw)))
        part.write_bytes(raw[:cut] if number % 2 else raw + bytes(cut))
        try:
            found = read_volume(path, WINDOW)
        except MedclipError as error:
            named = str(home) in str(error)
        else:
            named = np.array_equal(found.voxels, whole.voxels)
        assert named
