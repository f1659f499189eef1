"""Folders of images as people keep them: which files are taken for what, and none is lost."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from image_trees import LESION, MASK, NOISE, PICTURES, Tree, png, save
from opened_files import opened

from anomalib_medclip.errors import DataRootError, MaskError
from anomalib_medclip.readers.left_out import warn_of
from anomalib_medclip.readers.listing import files_below, list_images, masks_for
from anomalib_medclip.readers.mask_names import patient_folder
from anomalib_medclip.readers.masks_among import masks_among
from anomalib_medclip.readers.picture import read_image
from anomalib_medclip.score.inputs import look_below

TREES = 150


@pytest.mark.parametrize("first", range(0, TREES, 50))
def test_every_file_of_a_folder_is_an_image_or_left_out_with_a_reason(tmp_path, first):
    for seed in range(first, first + 50):
        tree = Tree(tmp_path / str(seed), seed)
        images, left_out = list_images(tree.home)
        assert images == sorted(tree.images), seed
        masks = [mask for mask in tree.images.values() if mask.is_relative_to(tree.home)]
        assert [one.path for one in left_out] == sorted(masks + tree.others), seed
        assert all(one.reason and one.remedy for one in left_out)


@pytest.mark.parametrize("first", range(0, TREES, 50))
def test_every_image_has_its_own_mask(tmp_path, first):
    for seed in range(first, first + 50):
        tree = Tree(tmp_path / str(seed), seed)
        images = list_images(tree.home).images
        found = masks_for(images, tree.home, tree.masks_home)
        assert dict(zip(images, map(Path, found.paths), strict=True)) == tree.images, seed


@pytest.fixture
def home(tmp_path):
    """A folder to be filled, by names."""

    def fill(*names):
        for name in names:
            content = MASK if "bw" in name else b"tired" if name == "none" else PICTURES[".png"]
            save(tmp_path / name, content)
        return tmp_path

    return fill


def listed(folder):
    images, left_out = list_images(folder)
    names = [path.relative_to(folder).as_posix() for path in images]
    return names, {os.path.relpath(one.path, folder): one.reason for one in left_out}


@pytest.mark.parametrize(
    "names",
    [
        ("lesion_1.png", "lesion_2.png"),
        ("roi1.png", "roi2.png", "other.png"),
        ("brain_seg.png", "liver_seg.png"),
        ("1_mask.png", "2_mask.png"),
        ("lesions/1.png", "lesions/2.png"),
        ("masks.png",),
        ("1.png", "1_1.png", "1_2.png"),
        ("a.png", "a.jpg"),
    ],
)
def test_what_only_sounds_like_masks_is_taken(home, names):
    assert listed(home(*names)) == (sorted(names), {})


@pytest.mark.parametrize(
    ("names", "mask", "why"),
    [
        (("1.png", "2_mask.png"), "2_mask.png", "is a mask by its name"),
        (("image.png", "mask.png"), "mask.png", "is a mask by its name"),
        (("flair.png", "mask.png"), "mask.png", "is a mask by its name"),
        (("image_1.png", "lesion_1.png"), "lesion_1.png", "is a mask by its name"),
        (("1.png", "masks/x.png"), "masks/x.png", "lies in a folder of masks"),
        (("a/2.jpg", "a/1.bw.png", "a/1.bw.jpg"), None, ""),
        (("img/1.png", "label/1.png"), "label/1.png", "is a mask by its name"),
    ],
)
def test_masks_are_known_by_their_images_or_by_a_word_that_says_nothing_else(
    home, names, mask, why
):
    images, left_out = listed(home(*names))
    assert left_out == ({mask: why} if mask else {})
    assert images == sorted({*names} - {mask})


WORDS = ("MA", "bw", "binary", "L_thresholded", "ink", "контур", "drawn by Ann", "x1", "v-c")
KNOWN = ("tumor", "mask copy", "mask (1)", "(mask)", "mask_final", "mask_L", "segmented",
         "superpixels", "seg-label", "predictedmask", "annotated", "pred", "Maske", "masque",
         "lung_mask", "Máscara", "dseg", "left_lung_segmentation_2", "GT1", "mask v2")  # fmt: skip
SHOWN = {
    "two values": png(LESION),
    "labels": png(LESION // 85 + np.eye(16, dtype=np.uint8)),
    "a lossy one": png(np.kron(LESION, np.ones((8, 8), np.uint8)), "JPEG"),
    "a colour": png(np.stack([LESION, 0 * LESION, 0 * LESION], axis=-1)),
    "nothing": png(0 * LESION),
}


def test_masks_are_known_by_a_word_of_their_name_or_by_what_they_show(tmp_path):
    for seed in range(80):
        draw, home = np.random.default_rng(seed), tmp_path / str(seed)
        name = draw.choice(["{}", "P_{}", "scan {}", "Größe-{}", "a{}b"])
        known = draw.random() < 0.4
        word = draw.choice(KNOWN if known else WORDS)
        gap = draw.choice(["_", "-", " ", "."])
        called = f"{{}}{gap}{word}" if known or draw.random() < 0.7 else f"{word}{gap}{{}}"
        images = [save(home / f"{name.format(n)}.png", PICTURES[".png"]) for n in range(3)]
        images += [save(home / f"{name.format(n)}_side.png", PICTURES[".png"]) for n in (1, 2)]
        masks = [
            save(home / f"{called.format(path.stem)}.png", SHOWN[draw.choice([*SHOWN])])
            for path in images[:3]
        ]
        found = list_images(home)
        assert found.images == sorted(images), (seed, called)
        assert [one.path for one in found.left_out] == sorted(masks), (seed, called)
        reason = "mask by its name" if known else "few values"
        assert all(reason in one.reason for one in found.left_out), (seed, called)
        scored = look_below(home, home / "out")
        assert sorted(one.files[0] for one in scored.inputs) == sorted(images)
        assert [home / one.path for one in scored.left_out] == sorted(masks)
        apart = [save(tmp_path / f"masks {seed}" / mask.name, mask.read_bytes()) for mask in masks]
        for folder, there in ((home, masks), (apart[0].parent, apart)):
            assert masks_for(images[:3], home, folder).paths == [*map(str, there)], (seed, called)


def test_only_pictures_called_after_others_are_opened_to_be_looked_at(home):
    names = [f"scan_{n}.png" for n in range(12)] + ["scan_1_MA.png", "other.png"]
    folder = home(*names)
    with opened() as found:
        images, left_out = list_images(folder)
    assert (len(images), left_out) == (14, [])
    assert {*found} & {*names} == {"scan_1_MA.png"}


@pytest.mark.parametrize(
    ("scan", "labels"),
    [
        ("mri/T1.mgz", "mri/aseg.mgz mri/aparc+aseg.mgz mri/ribbon.mgz mri/wmparc.mgz"),
        ("mri/T1.mgz", "mri/aparc.a2009s+aseg.mgz mri/aseg.presurf.mgz mri/lh.ribbon.mgz"),
        ("T1.nii.gz", "T1_brain_seg.nii.gz T1_brain_pveseg.nii.gz T1_brain_seg_0.nii.gz"),
        ("T1.nii", "c1T1.nii c2T1.nii wc1T1.nii mwc3T1.nii"),
        ("sub-1_T1w.nii.gz", "sub-1_label-L_desc-T1lesion_dseg.nii.gz sub-1_space-T1w_msk.nii.gz"),
        (
            "c_1/imaging.nii.gz",
            "c_1/aggregated_MAJ_seg.nii.gz c_1/instances/tumor_annotation-1.nii",
        ),
        ("CT.nrrd", "tumor.seg.nrrd"),
    ],
)
def test_volumes_of_labels_are_known_by_the_names_that_programs_give_them(home, scan, labels):
    folder = home(scan, *labels.split())
    masks = masks_among([*files_below(folder)], folder)
    assert {one.path for one in masks} == {folder / name for name in labels.split()}
    assert {one.path for one in masks_among([folder / scan], folder)} == set()


def test_a_segmentation_of_slicer_is_known_by_its_header(tmp_path):
    header = b"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 2 2\nencoding: raw\n"
    scan = save(tmp_path / "CT.nrrd", header + b"\n" + bytes(8))
    drawn = header + b"Segment0_ID:=Segment_1\nSegment0_Name:=tumor\n\n" + bytes(8)
    [mask] = masks_among([scan, save(tmp_path / "left side.nrrd", drawn)], tmp_path)
    assert (mask.path.name, mask.reason) == ("left side.nrrd", "is a segmentation by its header")
    assert masks_among([tmp_path / "left side.nrrd"], tmp_path) == []


def test_an_ending_is_named_and_folders_are_looked_into(home):
    folder = home("1.svg", "below/2.png", "below/deep/3.JPEG", "none")
    assert listed(folder) == (
        ["below/2.png", "below/deep/3.JPEG"],
        {
            "1.svg": "ends in .svg, as no picture that is read does",
            "none": "has no ending, as no picture that is read does",
        },
    )


def test_a_dicom_file_is_known_by_its_content(home, tmp_path):
    save(tmp_path / "IM0001", bytes(128) + b"DICM")
    save(tmp_path / "1.ima", bytes(128) + b"DICM")
    assert listed(home("2.png"))[0] == ["1.ima", "2.png", "IM0001"]


def test_a_picture_is_known_by_its_content_unless_its_name_says_another(home, tmp_path):
    jpeg, bmp = png(NOISE, "JPEG"), png(NOISE, "BMP")
    for name in ("a.jfif", "b.jpe", "c", "d.jpg_large", "e.JFIF"):
        save(tmp_path / name, jpeg)
    save(tmp_path / "f.dib", bmp)
    others = {
        "g.png.bak": png(NOISE), "h.png~": png(NOISE), "i.jpg_old": jpeg, "k.part": jpeg,
        "o.svg": jpeg,
        "l.jp2": png(NOISE, "JPEG2000"), "m.png.gz": gzip.compress(png(NOISE)), "n.heic": b"x",
    }  # fmt: skip
    for name, content in others.items():
        save(tmp_path / name, content)
    names, left_out = listed(home("z.png"))
    assert names == ["a.jfif", "b.jpe", "c", "d.jpg_large", "e.JFIF", "f.dib", "z.png"]
    assert left_out.keys() == others.keys()
    for name in names:
        assert read_image(tmp_path / name).shape == (3, 16, 16)
    scored = look_below(tmp_path, tmp_path / "out")
    assert [one.where for one in scored.inputs] == names


def test_what_stands_for_a_file_in_the_cloud_is_named_though_it_is_hidden(home, tmp_path):
    save(tmp_path / ".9.png.icloud", b"bplist00")
    save(tmp_path / ".8.png", PICTURES[".png"])
    said = {".9.png.icloud": "stands for a file that is in iCloud and not here"}
    assert listed(home("1.png")) == (["1.png"], said)
    scored = look_below(tmp_path, tmp_path / "out")
    assert {one.path.as_posix(): one.reason for one in scored.left_out} == said


def test_each_folder_is_looked_at_once_and_not_those_of_others(home):
    folder = home("normal/1.png", "normal/ill/2.png")
    (folder / "normal" / "again").symlink_to(folder / "normal")
    (folder / "normal" / "loop").symlink_to(folder / "normal" / "loop")
    images, left_out = list_images(
        folder / "normal", [folder / "normal", folder / "normal" / "ill"]
    )
    assert images == [folder / "normal" / "1.png"]
    [loop] = left_out
    assert (loop.reason, loop.remedy) == ("is a link that leads back to itself", "remove it")
    assert list_images(folder / "none") == ([], [])
    (folder / "round").symlink_to(folder / "round")
    with pytest.raises(DataRootError, match="round is a link that leads back to itself; remove it"):
        list_images(folder / "round")


def test_a_warning_counts_what_is_left_out_by_reason(home, caplog):
    warn_of(list_images(home("1.png", "1_mask.png", "2.svg", "3.svg")).left_out)
    first, second = (record.getMessage() for record in caplog.records)
    assert "1_mask.png is a mask by its name, and is left out; if it is an image, rename" in first
    assert (
        "2.svg ends in .svg, as no picture that is read does, and is left out (1 of 2 such); save"
        in second
    )


@pytest.mark.parametrize(
    ("images", "masks", "missing"),
    [
        (("1.png", "2.png"), ("1.png",), {"2.png"}),
        (("P0/1.png", "P1/1.png"), ("1.png",), {"P0/1.png", "P1/1.png"}),  # whose is it?
        (("1.png",), ("P0/1.png",), set()),
        (("P0/1.png",), ("1_mask.png",), set()),
        (("P0/1.png",), ("P1/1.png",), {"P0/1.png"}),
        (("3.png", "image_3.png"), ("3.png",), {"image_3.png"}),
        (("3.png", "image_3.png"), ("3_mask.png",), {"3.png", "image_3.png"}),
        (("10.png", "1.png"), ("1_seg.png", "10_seg.png"), set()),
        (("P0/img/1.png",), ("P0/masks/1.png",), set()),
        (("A_1.png",), ("a_1_Mask.png",), set()),
    ],
)
def test_a_mask_is_never_that_of_another_image(tmp_path, images, masks, missing):
    for name in images:
        save(tmp_path / "ill" / name, PICTURES[".png"])
    for name in masks:
        save(tmp_path / "masks" / name, MASK)
    there = [tmp_path / "ill" / name for name in images]
    found = masks_for(there, tmp_path / "ill", tmp_path / "masks")
    wanted = {str(tmp_path / "masks" / name) for name in missing}
    assert {path for path in found.paths if not Path(path).exists()} - wanted == set()
    lacking = {
        name for name, path in zip(images, found.paths, strict=True)
        if path == str(tmp_path / "masks" / name) and name in missing
    }  # fmt: skip
    assert lacking == missing
    used = {
        Path(path) for name, path in zip(images, found.paths, strict=True) if name not in missing
    }
    assert len(used) == len(images) - len(missing)
    spare = {tmp_path / "masks" / name for name in masks} - used
    assert {one.path for one in found.left_out} == spare


def test_two_masks_of_one_image_are_refused(home):
    folder = home("ill/1.png", "masks/1_mask.png", "masks/1_mask_1.png")
    with pytest.raises(MaskError, match=r"1\.png has 2 masks, 1_mask\.png, 1_mask_1\.png; join"):
        masks_for([folder / "ill" / "1.png"], folder / "ill", folder / "masks")


@pytest.mark.parametrize(
    ("path", "patient"),
    [("1.png", ""), ("P0/1.png", "P0"), ("img/P0/left/1.png", "P0"), ("images/1.png", "")],
)
def test_the_first_folder_that_says_more_than_images_is_the_patient(path, patient):
    assert patient_folder(Path(path)) == patient
