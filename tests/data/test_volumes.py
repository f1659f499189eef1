from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.engine import Engine
from pictures import save
from tiny import OPTIONS
from volume_formats import write_meta_image, write_nrrd
from volumes import SIDE, save_nifti, volume, write_patients

from anomalib_medclip import MVFA
from anomalib_medclip.data import Volumes, VolumeSource
from anomalib_medclip.data.checks import check_data
from anomalib_medclip.errors import (
    DataRootError,
    EmptySplitError,
    ImageReadError,
    IntensityError,
    MaskError,
    MissingMaskError,
    VolumeError,
)
from anomalib_medclip.training.picture_names import picture_name

PATIENTS = [f"P{i}" for i in range(6)]
MASKED = VolumeSource("{patient}/flair.nii.gz", mask="{patient}/seg.nii.gz")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_patients(tmp_path_factory.mktemp("hospital"))


def volumes(root, sources=(MASKED,), **options):
    defaults = {"intensity": (0.0, 1000.0), "k_shot": 2, "val_ratio": 0.4}
    return Volumes(root, list(sources), **{**defaults, **options})


def names(dataset):
    return [path.split("/")[-1] for path in dataset.samples["image_path"]]


def test_every_slice_knows_its_volume_its_patient_and_its_number(root):
    table = volumes(root, splits=dict.fromkeys(PATIENTS, "train")).load_table()
    first = table[table["group"] == "P0"].sort_values("image_path")
    assert [f"axial_{number:03d}.png" for number in range(6)] == [
        path.split("/")[-1] for path in first["image_path"]
    ]
    assert list(first["label_index"]) == [0, 1, 0, 1, 0, 0]
    assert set(first["mask_path"]) == {str(root / "P0" / "seg.nii.gz")}
    assert str(root / "P0" / "flair.nii.gz") in first["image_path"].iloc[0]


def test_slices_are_exact_to_the_last_bit(root):
    data = volumes(root)
    data.setup()
    voxels, mask = volume(0, (1, 3))
    image, lesion = data.read_slice(str(root / "P0" / "flair.nii.gz" / "axial_001.png"))
    # i goes to the right and j to the front: columns come from the right, rows from the front.
    expected = (voxels[::-1, ::-1, 1].T / 1000).astype(np.float32)
    assert image.shape == (3, SIDE, SIDE)
    assert torch.equal(image[2].as_subclass(torch.Tensor), torch.from_numpy(expected.copy()))
    assert np.array_equal(lesion.numpy(), mask[::-1, ::-1, 1].T)


@pytest.mark.parametrize("memory", [1.0, 3e-5, 0.0])
def test_slices_are_the_same_wherever_they_are_kept(root, memory):
    kept, usual = volumes(root, cache_memory=memory), volumes(root)
    for data in (kept, usual):
        data.setup()
    assert names(kept.test_data) == names(usual.test_data)
    for one, other in zip(kept.test_data, usual.test_data, strict=True):
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.gt_mask, other.gt_mask)


def test_slices_that_no_longer_fit_are_read_again(root, monkeypatch):
    from anomalib_medclip import cache

    monkeypatch.setattr(cache, "_SPARE", 10**18)
    kept, usual = volumes(root, cache_memory=0.0), volumes(root)
    for data in (kept, usual):
        data.setup()
    assert torch.equal(kept.test_data[3].image, usual.test_data[3].image)


def test_patients_are_of_one_split_only(root):
    data = volumes(root)
    data.setup()
    parts = (data.support_data, data.val_data, data.test_data)
    patients = [set(part.samples["group"]) for part in parts]
    assert not patients[0] & patients[2]
    assert not patients[1] & patients[2]
    assert (data.support_data.samples["label_index"].value_counts() == 2).all()


def test_splits_are_those_that_are_given(root, tmp_path):
    splits = {f"P{i}": "train" if i < 4 else "testing" for i in range(6)}
    data = volumes(root, splits=splits)
    data.setup()
    assert set(data.test_data.samples["group"]) == {"P4", "P5"}
    for split in ("train", "test"):
        write_patients(tmp_path / split, count=3)
    laid = VolumeSource("{split}/{patient}/flair.nii.gz", mask="{split}/{patient}/seg.nii.gz")
    table = volumes(tmp_path, [laid]).load_table()
    assert set(table["split"]) == {"train", "test"}


def test_only_the_slices_asked_for_are_read(root):
    data = volumes(root, slices=(4, 6), plane="coronal", splits=dict.fromkeys(PATIENTS, "train"))
    assert {name[-7:-4] for name in names_of(data.load_table())} == {"004", "005", "006"}
    with pytest.raises(EmptySplitError, match=r"has a slice in \(90, 99\)"):
        volumes(root, slices=(90, 99)).load_table()


def names_of(table):
    return [path.split("/")[-1] for path in table["image_path"]]


def test_a_slice_with_a_small_lesion_counts_for_nothing(root):
    table = volumes(root, smallest_lesion=37, splits=dict.fromkeys(PATIENTS, "train")).load_table()
    assert len(table) == 6 * 4
    assert not table["label_index"].any()


def test_only_the_lesion_labels_are_lesions(tmp_path):
    voxels, mask = volume(0, (1, 3))
    save_nifti(tmp_path / "A" / "flair.nii.gz", voxels)
    mask[..., 3] *= 5
    save_nifti(tmp_path / "A" / "seg.nii.gz", mask)
    source = VolumeSource("{patient}/flair.nii.gz", "{patient}/seg.nii.gz", lesion_labels=(5,))
    table = volumes(tmp_path, [source], splits={"A": "train"}).load_table()
    assert list(table["label_index"]) == [0, 0, 0, 1, 0, 0]


def test_healthy_volumes_stand_beside_masked_ones(root, tmp_path):
    for patient in range(2):
        save_nifti(tmp_path / f"H{patient}.nii", volume(9 + patient)[0])
    write_patients(tmp_path / "ill", count=3)
    ill = VolumeSource("ill/{patient}/flair.nii.gz", "ill/{patient}/seg.nii.gz")
    table = volumes(tmp_path, [VolumeSource("{patient}.nii", healthy=True), ill]).load_table()
    assert not table[table["group"].str.startswith("H")]["label_index"].any()
    assert table["has_masks"].all()


def test_labels_come_from_a_table_where_there_are_no_masks(root, tmp_path):
    lines = [
        f"P{i}/flair.nii.gz,{number},{int(number in (1, 3))}" for i in (0, 1) for number in (0, 1)
    ]
    lines += [f"P{i}/flair.nii.gz,,0" for i in (2, 3, 4, 5)]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["image,slice,label", *lines]))
    splits = dict.fromkeys(PATIENTS, "train")
    data = volumes(root, [VolumeSource("{patient}/flair.nii.gz")], table=table, splits=splits)
    listed = data.load_table()
    assert len(listed) == 2 * 2 + 4 * 6
    assert listed["label_index"].sum() == 2
    assert not listed["has_masks"].any()
    for number in ("one", "1" * 5000):
        table.write_text(f"image,slice,label\nP0/flair.nii.gz,{number},0")
        with pytest.raises(
            DataRootError, match=r"labels\.csv, line 2, needs an image, a label of 0 or 1"
        ):
            volumes(root, [VolumeSource("{patient}/flair.nii.gz")], table=table).load_table()


@pytest.mark.parametrize(
    ("sources", "options", "error", "words"),
    [
        ([VolumeSource("{patient}.mha", healthy=True)], {}, DataRootError, "is like .*mha"),
        ([VolumeSource("*/flair.nii.gz", healthy=True)], {}, DataRootError, "write {patient}"),
        ([VolumeSource("{patient}/flair.nii.gz")], {}, DataRootError, "neither masks nor labels"),
        ([MASKED, MASKED], {}, DataRootError, "a volume of two sources"),
        ([MASKED], {"splits": {"P0": "train"}}, DataRootError, "where patient 'P1'"),
        ([MASKED], {"splits": dict.fromkeys(PATIENTS, "later")}, DataRootError, "none of train"),
        ([MASKED], {"intensity": None}, IntensityError, "set 'intensity'"),
        (
            [VolumeSource("{patient}/flair.nii.gz", mask="{patient}/lesion.nii.gz")],
            {},
            MissingMaskError,
            r"no mask for volume .*looked for .*lesion\.nii\.gz",
        ),
        (
            [VolumeSource("{patient}/flair.nii.gz", mask="{case}/seg.nii.gz")],
            {},
            DataRootError,
            "has a name in braces that",
        ),
        (
            [VolumeSource("{patient}/flair.nii.gz", "{patient}/seg.nii.gz", organ_labels=(1,))],
            {},
            MaskError,
            "no volume of its organs",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(root, sources, options, error, words):
    with pytest.raises(error, match=words):
        volumes(root, sources, **options).load_table()


def test_a_mask_of_another_grid_names_both_files(root, tmp_path):
    voxels, mask = volume(0, (1,))
    save_nifti(tmp_path / "A" / "flair.nii.gz", voxels)
    save_nifti(tmp_path / "A" / "seg.nii.gz", mask[:-1])
    with pytest.raises(MaskError, match=r"seg\.nii\.gz is of shape .*flair\.nii\.gz is of shape"):
        volumes(tmp_path).load_table()


def test_a_damaged_volume_is_named(root, tmp_path):
    write_patients(tmp_path, count=2)
    save_nifti(tmp_path / "P1" / "flair.nii.gz", np.zeros((4, 4, 2, 3), dtype=np.int16))
    with pytest.raises(VolumeError, match=r"P1.flair\.nii\.gz is of shape \(4, 4, 2, 3\)"):
        volumes(tmp_path).load_table()


def test_a_method_trains_and_tests_on_volumes(root, tmp_path):
    data = volumes(root, train_batch_size=4)
    engine = Engine(
        default_root_dir=tmp_path, accelerator="cpu", max_epochs=1, enable_progress_bar=False
    )
    model = MVFA(**OPTIONS)
    engine.fit(model, datamodule=data)
    (metrics,) = engine.test(model, datamodule=data, verbose=False)
    assert {"image_AUROC", "pixel_AUROC"} <= metrics.keys()
    run = next((tmp_path / "MVFA").glob("*/latest"))
    pictures = {
        path.relative_to(run / "images").as_posix() for path in run.rglob("images/**/*.png")
    }
    assert len(pictures) == len(data.test_data)
    assert any(name.endswith("flair.nii.gz/axial_001.png") for name in pictures)


def test_slices_of_an_organ_keep_their_numbers(tmp_path):
    voxels, mask = volume(0, (1, 3))
    organ = np.zeros_like(mask)
    organ[4:20, 6:14, 2:5] = 7
    for name, content in {"flair": voxels, "seg": mask, "organ": organ}.items():
        save_nifti(tmp_path / "A" / f"{name}.nii.gz", content)
    source = VolumeSource(
        "{patient}/flair.nii.gz", "{patient}/seg.nii.gz",
        organ="{patient}/organ.nii.gz", organ_labels=(7,),
    )  # fmt: skip
    data = volumes(tmp_path, [source], splits={"A": "train"})
    assert names_of(data.load_table()) == [f"axial_{number:03d}.png" for number in (2, 3, 4)]
    (case,) = data.cases()
    sliced = data.cut(case)
    assert sliced.images.shape == (6, 8, 16)
    restored = sliced.restore(sliced.images)
    inside = np.zeros(voxels.shape, dtype=bool)
    inside[4:20, 6:14] = True
    expected = np.where(inside, (voxels / 1000).astype(np.float32), 0)
    assert np.array_equal(restored, expected)


def test_check_lists_every_damaged_volume_at_once(tmp_path):
    write_patients(tmp_path)
    (tmp_path / "P1" / "flair.nii.gz").write_bytes(b"")
    (tmp_path / "P2" / "seg.nii.gz").unlink()
    data = volumes(
        tmp_path, splits=dict.fromkeys(PATIENTS[:4], "train") | {"P4": "test", "P5": "test"}
    )
    report = check_data(data)
    errors = {Path(one.file).parent.name: one for one in report.problems if one.severity == "error"}
    assert errors.keys() == {"P1", "P2"}
    assert "empty" in errors["P1"].problem
    assert "no mask" in errors["P2"].problem
    with pytest.raises(ImageReadError, match="P1"):
        volumes(tmp_path).load_table()


def test_check_sees_the_slices_of_whole_volumes(tmp_path):
    write_patients(tmp_path, count=3)
    copy = tmp_path / "P9"
    copy.mkdir()
    for name in ("flair.nii.gz", "seg.nii.gz"):
        (copy / name).write_bytes((tmp_path / "P0" / name).read_bytes())
    splits = {"P0": "train", "P1": "train", "P2": "test", "P9": "test"}
    report = check_data(volumes(tmp_path, splits=splits))
    found = [one for one in report.problems if one.severity == "error"]
    assert len(found) == 6, "every slice of the copied patient"
    assert {one.kind for one in found} == {"duplicate across splits"}


def test_check_counts_the_lesions_of_slices(root):
    splits = dict.fromkeys(PATIENTS[:4], "train") | dict.fromkeys(PATIENTS[4:], "test")
    data = volumes(root, splits=splits)
    report = check_data(data, side=1)
    table = data.load_table()
    ill = int((table["label_index"] == 1).sum())
    assert report.lesions["images"] == report.lesions["lesions"] == ill
    lost = [one for one in report.problems if one.kind == "no lesion left"]
    assert len(lost) == report.lesions["images_lost"] > 0
    assert all(".nii.gz" in one.file for one in lost)


def test_empty_slices_are_left_out_and_have_no_lesion(tmp_path):
    voxels, mask = volume(0, (1,))
    voxels[..., (0, 3, 5)] = 0
    save_nifti(tmp_path / "A" / "flair.nii.gz", voxels)
    save_nifti(tmp_path / "A" / "seg.nii.gz", mask)
    table = volumes(tmp_path, splits={"A": "train"}).load_table()
    assert [int(name[-7:-4]) for name in names_of(table)] == [1, 2, 4]
    mask[4:9, 4:9, 3] = 1
    save_nifti(tmp_path / "A" / "seg.nii.gz", mask)
    with pytest.raises(MaskError, match=r"slice 3 of .*flair\.nii\.gz is labelled abnormal, but"):
        volumes(tmp_path, splits={"A": "train"}).load_table()


def test_a_name_of_their_own_does_not_make_slices_share_heat_maps(root):
    data = volumes(root, name="Brain")
    data.setup()
    paths = [Path(path) for path in data.test_data.samples["image_path"]]
    assert len({path.parent for path in paths}) < len(paths), "some slices are of one volume"
    assert len({picture_name(path, root) for path in paths}) == len(paths)


@pytest.mark.parametrize("slices", [(-3, 2), (4, 1)])
def test_slices_are_counted_up_from_zero(root, slices):
    with pytest.raises(VolumeError, match="counted from 0"):
        volumes(root, slices=slices)


def test_healthy_volumes_have_no_masks_that_nobody_reads(root):
    source = VolumeSource("{patient}/flair.nii.gz", mask="{patient}/seg.nii.gz", healthy=True)
    with pytest.raises(DataRootError, match="are healthy and have masks"):
        volumes(root, [source])


def test_air_at_the_ends_of_volumes_is_no_copy_of_other_air(tmp_path):
    for patient in range(4):
        voxels, mask = volume(patient, (1, 3))
        voxels[..., 0] = voxels[..., 5] = 0
        save_nifti(tmp_path / f"P{patient}" / "flair.nii.gz", voxels)
        save_nifti(tmp_path / f"P{patient}" / "seg.nii.gz", mask)
    splits = {"P0": "train", "P1": "train", "P2": "test", "P3": "test"}
    report = check_data(volumes(tmp_path, splits=splits))
    assert report.count("error") == 0
    assert not any(one.kind.startswith("duplicate") for one in report.problems)


def test_masks_that_are_numbered_otherwise_are_never_laid_on_other_slices(tmp_path):
    source = VolumeSource("{patient}/img", mask="{patient}/mask")
    for kind, first in (("img", 1), ("mask", 2)):
        (tmp_path / "P0" / kind).mkdir(parents=True)
        for number in range(first, first + 4):
            grey = np.full((SIDE, SIDE), 255 * (number == 3), dtype=np.uint8)
            save(tmp_path / "P0" / kind / f"{number}.png", grey)
    with pytest.raises(MaskError, match=r"mask .*2.png and picture .*1.png .* numbered otherwise"):
        volumes(tmp_path, [source]).load_table()


def test_all_numbers_of_names_say_of_which_slice_a_mask_is(tmp_path):
    source = VolumeSource("{patient}/img", mask="{patient}/mask")
    grey = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE)).astype(np.uint8)
    for kind, first in (("img", 1), ("mask", 2)):
        (tmp_path / "P0" / kind).mkdir(parents=True)
        for number in range(first, first + 4):
            save(tmp_path / "P0" / kind / f"ct_{number}_512.png", grey * (kind == "img"))
    with pytest.raises(MaskError, match=r"mask .*ct_2_512.png and picture .*ct_1_512.png"):
        volumes(tmp_path, [source]).load_table()


def test_files_below_and_among_the_slices_are_counted_in_training_and_check(tmp_path, caplog):
    source = VolumeSource("{patient}/img", mask="{patient}/mask")
    random = np.random.default_rng(0)
    for patient in range(4):
        for kind in ("img", "mask"):
            (tmp_path / f"P{patient}" / kind / "old").mkdir(parents=True)
            for number in (1, 2, 3):
                grey = random.integers(1, 256, (SIDE, SIDE)).astype(np.uint8)
                if kind == "mask":
                    grey = np.zeros_like(grey)
                    grey[:4, :4] = 255 * (number == 2 and patient % 2)
                save(tmp_path / f"P{patient}" / kind / f"{number}.png", grey)
    wanted = ["P0/img/old/4.png", "P0/img/thumb.png", "P1/mask/4.txt", "P1/mask/old/2.png"]
    for name in wanted:
        save(tmp_path / name, grey) if name.endswith("png") else (tmp_path / name).touch()
    data = volumes(tmp_path, [source], k_shot=1)
    data.setup()
    assert sorted(one.path.relative_to(tmp_path).as_posix() for one in data.left_out) == wanted
    assert caplog.text.count("is left out") == 3  # two lie below folders of volumes
    found = check_data(volumes(tmp_path, [source], k_shot=1)).problems
    left_out = {one.file for one in found if one.kind == "file left out"}
    assert left_out == {str(tmp_path / name) for name in wanted}


def test_masks_that_cover_most_of_a_slice_are_told_in_training_and_check(tmp_path, caplog):
    for patient in range(4):
        voxels, mask = volume(patient, (1, 3))
        mask[..., 1] = 1 - mask[..., 1]  # inverted
        mask[..., 4] = 9
        save_nifti(tmp_path / f"P{patient}" / "flair.nii.gz", voxels)
        save_nifti(tmp_path / f"P{patient}" / "seg.nii.gz", mask if patient == 2 else mask % 9)
    labels = {"lesion_labels": (1,), "ignore_labels": (9,)}
    volumes(tmp_path, k_shot=1, **labels).setup()
    share = (volume(2, (1, 3))[1][..., 1] == 0).mean()
    assert f"P2/seg.nii.gz marks {share:.0%} of slice 1 as lesion; see that it" in caplog.text
    assert "P2/seg.nii.gz says of 100% of slice 4 that nobody knows; see ignore_l" in caplog.text
    assert caplog.text.count("that nobody knows") == 1
    found = check_data(volumes(tmp_path, k_shot=1, **labels)).problems
    files = sorted(one.file for one in found if one.kind == "lesion of most of an image")
    assert files == [str(tmp_path / f"P{patient}" / "seg.nii.gz") for patient in range(4)]
    assert "most of an image ignored" in {one.kind for one in found}


def test_an_ill_volume_whose_mask_is_empty_is_told(tmp_path):
    write_patients(tmp_path)
    _, empty = volume(1)
    save_nifti(tmp_path / "P1" / "seg.nii.gz", empty)
    found = [one for one in check_data(volumes(tmp_path)).problems if one.kind.startswith("volume")]
    assert [(Path(one.file).parent.name, one.severity) for one in found] == [("P1", "warning")]


@pytest.mark.parametrize(
    ("row", "words"), [("P0/flair.nii.gz,0,1", "another label"), ("P8.nii,1,", "no source has")]
)
def test_a_table_that_contradicts_itself_or_names_nothing_is_refused(root, tmp_path, row, words):
    table = tmp_path / "labels.csv"
    table.write_text(f"image,label,slice\nP0/flair.nii.gz,1,1\n{row}\n")
    with pytest.raises(DataRootError, match=words):
        volumes(root, [VolumeSource("{patient}/flair.nii.gz")], table=table).load_table()


def test_volumes_that_no_pattern_fits_are_counted_by_training_and_check(tmp_path, caplog):
    write_patients(tmp_path, 4)
    (tmp_path / "P3" / "flair.nii.gz").rename(tmp_path / "P3" / "Flair.nii.gz")
    data = volumes(tmp_path, k_shot=1)
    data.setup()
    lost = "P3 holds no volume like '{patient}/flair.nii.gz', and is left out; name it so"
    assert lost in caplog.text
    [problem] = [one for one in check_data(data).problems if one.kind == "file left out"]
    assert (problem.severity, problem.file) == ("warning", str(tmp_path / "P3"))


def test_masks_and_images_of_other_formats_make_the_same_slices(root, tmp_path):
    affine = np.diag([1.0, 1, 2, 1])
    for patient in range(3):
        (tmp_path / f"P{patient}").mkdir()
        voxels, mask = volume(patient, (1, 3))
        write_meta_image(tmp_path / f"P{patient}" / "flair.mhd", voxels, affine, packed=True)
        write_nrrd(tmp_path / f"P{patient}" / "seg.nrrd", mask, affine)
    source = VolumeSource("{patient}/flair.mhd", mask="{patient}/seg.nrrd")
    others, usual = volumes(tmp_path, [source]), volumes(root)
    for one, other in zip(others.cases(), usual.cases(), strict=False):
        cuts = others.cut(one), usual.cut(other)
        assert torch.equal(cuts[0].images, cuts[1].images)
        assert torch.equal(cuts[0].masks, cuts[1].masks)


def test_pictures_that_are_nifti_files_are_a_slice_each(tmp_path):
    for patient in range(8):
        voxels, mask = volume(patient, (0,) if patient % 2 else ())
        for name, one in (("flair", voxels), ("seg", mask)):
            save_nifti(tmp_path / f"P{patient}" / f"{name}.nii.gz", one[None, ..., 0])
    data = volumes(tmp_path)
    table = data.list_images()
    assert list(table["label_index"]) == [0, 1] * 4
    assert not [one for one in check_data(data).problems if one.severity == "error"]
    first = table["image_path"].iloc[1]
    image, lesion = data.read_slice(first)
    assert image.shape == (3, SIDE, SIDE)
    assert int(lesion.sum()) == 36
