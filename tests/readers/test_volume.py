import gzip
import logging

import nibabel as nib
import numpy as np
import pytest
from dicom_series import numbers, oblique, straight, write_nifti
from pictures import save

from anomalib_medclip.errors import ImageReadError, IntensityError, MaskError, VolumeError
from anomalib_medclip.readers.volume import AS_SEEN, read_labels, read_volume, same_grid

WINDOW = (-1000.0, 2000.0)


def window(values):
    return np.clip((values.astype(np.float64) + 1000) / 3000, 0, 1).astype(np.float32)


@pytest.fixture
def voxels():
    return numbers(6, 5, 4)


def edit(path, change, kind=nib.Nifti1Image):
    """Write the header of an unpacked file again, as ``change`` makes it."""
    raw = path.read_bytes()
    header = kind.header_class(raw[: kind.header_class.sizeof_hdr], check=False)
    change(header)
    path.write_bytes(header.binaryblock + raw[len(header.binaryblock) :])
    return path


# --- what is read


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".NII"])
@pytest.mark.parametrize("affine", [straight(), oblique()], ids=["straight", "oblique"])
def test_voxels_and_affine_are_nibabels(tmp_path, voxels, kind, ending, affine):
    path = tmp_path / "scan"
    write_nifti(tmp_path / f"scan{ending.lower()}", voxels, affine, kind)
    path = (tmp_path / f"scan{ending.lower()}").rename(tmp_path / f"scan{ending}")
    volume = read_volume(path, WINDOW)
    assert np.array_equal(volume.voxels, window(voxels))
    np.testing.assert_allclose(volume.affine, affine, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, ">i2"])
def test_every_kind_of_number_is_read(tmp_path, voxels, dtype):
    values = np.abs(voxels // 10).astype(dtype)
    image = nib.Nifti1Image(values.astype(np.dtype(dtype).newbyteorder("=")), straight())
    image.header.set_data_dtype(np.dtype(dtype).newbyteorder("="))
    if dtype == ">i2":
        image = nib.Nifti1Image(values, straight(), image.header.as_byteswapped(">"))
    nib.save(image, tmp_path / "scan.nii")
    assert np.array_equal(read_volume(tmp_path / "scan.nii", WINDOW).voxels, window(values))


def test_numbers_are_rescaled_as_the_header_says(tmp_path, voxels):
    def change(header):
        header["scl_slope"], header["scl_inter"] = 0.5, 100

    path = edit(write_nifti(tmp_path / "scan.nii", voxels, straight()), change)
    assert np.array_equal(read_volume(path, WINDOW).voxels, window(voxels * 0.5 + 100))


def test_a_last_dimension_of_one_is_none(tmp_path, voxels):
    path = write_nifti(tmp_path / "scan.nii", voxels[..., None], straight())
    assert read_volume(path, WINDOW).voxels.shape == voxels.shape


def test_a_volume_needs_a_policy(tmp_path, voxels):
    path = write_nifti(tmp_path / "scan.nii", voxels, straight())
    with pytest.raises(IntensityError, match=r"scan.nii holds int16 numbers"):
        read_volume(path)


def test_a_volume_without_any_place_is_read_with_a_warning(tmp_path, voxels, caplog):
    def change(header):
        header["sform_code"] = header["qform_code"] = 0

    path = edit(write_nifti(tmp_path / "scan.nii", voxels, straight()), change)
    with caplog.at_level(logging.WARNING):
        read_volume(path, WINDOW)
    assert "does not say how it lies in the patient" in caplog.text


# --- files that are not whole


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("extra", [b"\1", b"\1" * 400])
def test_bytes_behind_the_voxels_are_refused(tmp_path, voxels, ending, extra):
    path = write_nifti(tmp_path / f"scan{ending}", voxels, straight())
    raw = path.read_bytes()
    if ending == ".nii":
        path.write_bytes(raw + extra)
        with pytest.raises(ImageReadError, match=r"holds more bytes, .* wants 592; replace it"):
            read_volume(path, WINDOW)
    else:
        path.write_bytes(gzip.compress(gzip.decompress(raw) + extra))
        with pytest.raises(ImageReadError, match=r"holds more bytes"):
            read_volume(path, WINDOW)
        path.write_bytes(raw + extra)
        with pytest.raises(ImageReadError, match=r"cannot read .*scan.nii.gz as NIfTI"):
            read_volume(path, WINDOW)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("extra", [1, 16, 512, 513])
def test_a_few_zeros_behind_the_voxels_are_padding(tmp_path, voxels, ending, extra):
    path = write_nifti(tmp_path / f"scan{ending}", voxels, straight())
    expected = read_volume(path, WINDOW).voxels
    raw = path.read_bytes()
    is_packed = ending == ".nii.gz"
    raw = (gzip.decompress(raw) if is_packed else raw) + bytes(extra)
    path.write_bytes(gzip.compress(raw) if is_packed else raw)
    if extra > 512:
        with pytest.raises(ImageReadError, match=r"holds more bytes"):
            read_volume(path, WINDOW)
    else:
        assert np.array_equal(read_volume(path, WINDOW).voxels, expected)
    if is_packed:
        packed = bytearray(path.read_bytes())
        packed[-6] ^= 1  # of the checksum
        path.write_bytes(packed)
        with pytest.raises(ImageReadError, match=r"CRC check failed|holds more bytes"):
            read_volume(path, WINDOW)


def test_a_wrong_checksum_is_refused(tmp_path, voxels):
    path = write_nifti(tmp_path / "scan.nii.gz", voxels, straight())
    raw = bytearray(path.read_bytes())
    raw[-6] ^= 1  # of the checksum
    path.write_bytes(raw)
    with pytest.raises(ImageReadError, match=r"CRC check failed"):
        read_volume(path, WINDOW)


def test_a_bomb_does_not_go_off(tmp_path, voxels, monkeypatch):
    path = write_nifti(tmp_path / "scan.nii.gz", voxels, straight())
    raw = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(raw + bytes(50_000_000)))
    asked = []
    read = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda f, n=-1: asked.append(n) or read(f, n))
    with pytest.raises(ImageReadError, match=r"holds more bytes"):
        read_volume(path, WINDOW)
    assert min(asked) > 0
    assert max(asked) <= 2048  # to see what it is


HEADERS = {
    "a dimension of zero": (lambda h: h["dim"].put(1, 0), "says its shape is"),
    "a negative dimension": (lambda h: h["dim"].put(2, -5), "says its shape is"),
    "a huge dimension": (lambda h: h["dim"].put([1, 2, 3], 30000), "says its shape is"),
    "more than there is": (lambda h: h["dim"].put([1, 2], 300), "more than can be in it"),
    "two dimensions": (lambda h: h["dim"].put(0, 2), "holds more bytes"),
    "one dimension": (lambda h: h["dim"].put(0, 1), "a line, of which no picture is made"),
    "four dimensions": (lambda h: h["dim"].put([0, 3, 4], [4, 2, 2]), "2 volumes; take one out"),
    "vectors": (
        lambda h: h["dim"].put([0, 3, 4, 5], [5, 2, 1, 2]),
        "2 numbers at each voxel; take one out",
    ),
    "bits that do not fit": (lambda h: h.__setitem__("bitpix", 8), "bitpix"),
    "an unknown type": (lambda h: h.__setitem__("datatype", 77), "data code 77"),
    "complex numbers": (
        lambda h: (h.__setitem__("datatype", 32), h.__setitem__("bitpix", 64)),
        "complex64 numbers, which are not real",
    ),
    "another type": (
        lambda h: (h.__setitem__("datatype", 2), h.__setitem__("bitpix", 8)),
        "holds more bytes",
    ),
    "a late beginning": (lambda h: h.__setitem__("vox_offset", 368), "592 bytes"),
    "half a byte": (lambda h: h.__setitem__("vox_offset", 352.5), "begin at byte 352.5"),
    "an early beginning": (lambda h: h.__setitem__("vox_offset", 16), "vox offset 16 too low"),
    "another magic": (lambda h: h.__setitem__("magic", b"xx1"), "magic"),
    "no spacing": (lambda h: h["pixdim"].put(2, 0), "pixdim"),
    "a negative spacing": (lambda h: h["pixdim"].put(2, -1), "pixdim"),
    "a flat affine": (lambda h: h.__setitem__("srow_y", h["srow_x"]), "flat axes"),
    "an affine of nothing": (lambda h: h["srow_x"].put(0, np.nan), "no place that is finite"),
    "another spacing": (lambda h: h["pixdim"].put(1, 9), "but its affine one of"),
    "an unknown code": (lambda h: h.__setitem__("sform_code", 77), "sform_code 77 not valid"),
    "an infinite slope": (lambda h: h.__setitem__("scl_slope", np.inf), "slope is inf"),
    "metres": (lambda h: h.__setitem__("xyzt_units", 1), "states lengths in metres"),
    "two sides": (
        lambda h: (h.set_qform(np.diag([-2.0, 1.5, 3, 1]), 1), h.__setitem__("sform_code", 1)),
        r"axes are RAS \(sform\) and LAS \(qform\)",
    ),
    "an odd qfac": (
        lambda h: (h.__setitem__("qform_code", 1), h["pixdim"].put(0, 0.3)),
        "qfac is 0.3",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_cannot_be_true_is_refused(tmp_path, voxels, name):
    change, words = HEADERS[name]
    path = edit(write_nifti(tmp_path / "scan.nii", voxels, straight()), change)
    with pytest.raises((VolumeError, ImageReadError), match=words) as caught:
        read_volume(path, WINDOW)
    assert "scan.nii" in str(caught.value)


def test_huge_dimensions_ask_for_no_memory(tmp_path, voxels, monkeypatch):
    path = write_nifti(tmp_path / "scan.nii", voxels, straight())
    edit(path, lambda h: h["dim"].put([1, 2, 3], [1200, 1200, 1200]))
    monkeypatch.setattr(nib.Nifti1Image, "from_bytes", None)  # is not come to
    with pytest.raises(VolumeError, match=r"more than can be in it"):
        read_volume(path, WINDOW)


def test_an_offset_that_others_frown_at_is_read(tmp_path, voxels):
    path = write_nifti(tmp_path / "scan.nii", voxels, straight())
    raw = path.read_bytes()
    path.write_bytes(raw[:352] + bytes(8) + raw[352:])
    edit(path, lambda h: h.__setitem__("vox_offset", 360))
    assert np.array_equal(read_volume(path, WINDOW).voxels, window(voxels))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.nii", b"", "the file is empty"),
        ("a.nii.gz", b"", "the file is empty"),
        ("a.nii", b"a text of someone's about nothing" * 20, "does not begin as a NIfTI file"),
        ("a.nii.gz", b"a text", "does not begin as a NIfTI file"),
        ("a.mha", b"ObjectType = Image", "a header without an end"),
        ("a.txt", b"a text", "of no format that is known"),
    ],
)
def test_what_is_no_volume_is_refused(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageReadError, match=words):
        read_volume(tmp_path / name, WINDOW)


@pytest.mark.parametrize("name", ["gone", "gone.nii.gz"])
def test_a_missing_file_is_named(tmp_path, name):
    for read in (read_labels, lambda path: read_volume(path, WINDOW)):
        with pytest.raises(ImageReadError, match=name):
            read(tmp_path / name)


@pytest.mark.parametrize("turn", [(1, 1, 1), (np.nan, 0, 0), (0, np.inf, 0)])
def test_a_qform_that_is_none_does_no_harm_beside_an_sform(tmp_path, voxels, turn, caplog):
    image = nib.Nifti1Image(voxels, straight())
    image.set_qform(straight(), code=1)
    for name, value in zip("bcd", turn, strict=True):
        image.header[f"quatern_{name}"] = value
    nib.save(image, tmp_path / "a.nii")
    found = read_volume(tmp_path / "a.nii", WINDOW)
    np.testing.assert_allclose(found.affine, straight(), atol=1e-6)
    assert "has a qform that is no rotation; its sform is taken" in caplog.text
    image.header["sform_code"] = 0
    raw = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "b.nii").write_bytes(image.header.binaryblock + raw[348:])
    with pytest.raises(VolumeError, match=r"b.nii is unsound: its qform is no rotation; repair"):
        read_volume(tmp_path / "b.nii", WINDOW)


# --- labels


def test_labels_are_whole_numbers(tmp_path):
    labels = np.arange(24).reshape(2, 3, 4)
    for dtype in (np.uint8, np.float32):
        path = write_nifti(tmp_path / "seg.nii.gz", labels.astype(dtype), straight())
        found = read_labels(path)
        assert found.voxels.dtype == np.int32
        assert np.array_equal(found.voxels, labels)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.5, "not whole"),
        (np.nan, "1 numbers that are not finite"),
        (np.inf, "1 numbers that are not finite"),
        (1e12, "more than 31 bits"),
    ],
)
def test_what_is_no_label_is_refused(tmp_path, value, words):
    labels = np.zeros((2, 3, 4))
    labels[1, 1, 1] = value
    with pytest.raises(MaskError, match=words):
        read_labels(write_nifti(tmp_path / "seg.nii", labels, straight()))


# --- folders of pictures


def stack(folder, voxels, names):
    folder.mkdir()
    for k, name in enumerate(names):
        save(folder / name, np.ascontiguousarray(voxels[..., k]))
    return folder


def test_pictures_are_stacked_by_the_numbers_in_their_names(tmp_path):
    voxels = np.random.default_rng(0).integers(0, 256, (5, 6, 12)).astype(np.uint8)
    folder = stack(tmp_path / "a", voxels, [f"p1_slice{k}.png" for k in range(12)])
    volume = read_volume(folder)
    assert np.array_equal(volume.voxels, (voxels / 255).astype(np.float32))
    assert np.array_equal(volume.affine, AS_SEEN)


def test_masks_are_stacked_and_some_are_empty(tmp_path):
    voxels = np.zeros((5, 6, 3), dtype=np.uint8)
    voxels[1:3, 2:4, 1] = 255
    found = read_labels(stack(tmp_path / "a", voxels, ["1.png", "2.png", "10.png"]))
    assert np.array_equal(found.voxels, voxels // 255)


def test_pictures_that_make_no_volume_are_refused(tmp_path):
    grey = np.zeros((5, 6, 2), dtype=np.uint8)
    with pytest.raises(VolumeError, match=r"1.png and .*01.png have the same numbers|01.png and"):
        read_volume(stack(tmp_path / "same", grey, ["1.png", "01.png"]))
    folder = stack(tmp_path / "size", grey, ["1.png", "2.png"])
    save(folder / "3.png", grey[:4, :, 0])
    for read in (read_volume, read_labels):
        with pytest.raises(VolumeError, match=r"3.png is of shape \(4, 6\) but .*1.png of \(5, 6"):
            read(folder)
    colour = np.random.default_rng(0).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    (tmp_path / "colour").mkdir()
    save(tmp_path / "colour" / "1.png", colour)
    with pytest.raises(VolumeError, match=r"1.png is in colour"):
        read_volume(tmp_path / "colour")
    (tmp_path / "empty").mkdir()
    for read in (read_volume, read_labels):
        with pytest.raises(ImageReadError, match=r"neither DICOM files nor pictures"):
            read(tmp_path / "empty")


def test_two_stacks_in_a_folder_never_make_one_volume(tmp_path):
    voxels = np.random.default_rng(0).integers(0, 256, (5, 6, 6)).astype(np.uint8)
    names = [f"{name}_{k}.png" for name in ("T1", "T2") for k in (1, 2, 3)]
    folder = stack(tmp_path / "a", voxels, names)
    for read in (read_volume, read_labels, lambda path: read_volume(path, uneven=True)):
        with pytest.raises(
            VolumeError, match=r"a holds 2 stacks of pictures, .* T1_1.png \(3 of 6"
        ):
            read(folder)


def test_what_is_no_slice_among_pictures_is_left_out_with_a_word(tmp_path):
    voxels = np.random.default_rng(0).integers(0, 256, (5, 6, 9)).astype(np.uint8)
    names = [f"{name}_{k}.png" for name in ("slice", "mask") for k in (1, 2, 3, 4)]
    folder = stack(tmp_path / "a", voxels, [*names, "thumb.png"])
    (folder / "note.txt").write_text("x")
    volume = read_volume(folder)
    assert np.array_equal(volume.voxels, (voxels[..., :4] / 255).astype(np.float32))
    assert [one.path.name for one in volume.left_out] == [
        *(f"mask_{k}.png" for k in (1, 2, 3, 4)), "note.txt", "thumb.png",
    ]  # fmt: skip


def test_what_is_no_mask_in_a_folder_of_masks_is_left_out_with_a_word(tmp_path):
    voxels = np.zeros((5, 6, 4), dtype=np.uint8)
    folder = stack(tmp_path / "a", voxels, ["1.png", "2.png", "3.png", "thumb.png"])
    (folder / "extra.nii").write_bytes(b"x")
    (folder / "4.tiff.txt").write_text("x")
    found = read_labels(folder)
    assert found.voxels.shape == (5, 6, 3)
    assert [one.path.name for one in found.left_out] == ["4.tiff.txt", "extra.nii", "thumb.png"]


# --- grids


def test_grids_are_the_same_to_a_hundredth_of_a_voxel():
    affine = straight((2, 2, 2))
    near, far, turned = affine.copy(), affine.copy(), affine.copy()
    near[0, 3] += 0.019
    far[0, 3] += 0.021
    turned[0, 0] += 0.001
    assert same_grid(affine, near, (9, 9, 9))
    assert not same_grid(affine, far, (9, 9, 9))
    assert same_grid(affine, turned, (9, 9, 9))
    assert not same_grid(affine, turned, (100, 9, 9))


def test_a_stack_with_a_missing_picture_is_refused_unless_asked_for(tmp_path):
    for number in (1, 2, 3, 5, 6):
        grey = np.full((6, 5), number, dtype=np.uint8)
        save(tmp_path / f"scan_{number}.png", grey)
    words = r"missing between .*scan_3\.png and .*scan_5\.png; .*uneven: true .*--uneven$"
    with pytest.raises(VolumeError, match=words):
        read_volume(tmp_path)
    assert read_volume(tmp_path, uneven=True).voxels.shape == (6, 5, 5)
