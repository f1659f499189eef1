"""What data are, in 64 digits: they change with all that a result comes from, and nothing else."""

import os
import shutil

import pytest
from conftest import save_mask, save_picture
from volumes import save_nifti, volume, write_patients

from anomalib_medclip.data import MedicalFolder, Volumes, VolumeSource
from anomalib_medclip.data.fingerprint import check_unchanged, digest_of, fingerprint
from anomalib_medclip.errors import DataChangedError

NAMES = ("image", "label", "mask", "patient", "split")
ROWS = [
    {
        "image": f"p{patient}/{visit}/scan/1.png",
        "label": int(visit == "b"),
        "mask": f"masks/p{patient}/1.png",
        "patient": "PQ"[patient % 2],
        "split": "train" if patient < 2 else "test",
    }
    for patient in range(4)
    for visit in "ab"
]
"""Of names and folders of images, and of what is said of them, there are as many of each kind; and
normal images have a mask as well, as they may."""


def write(root, rows=ROWS):
    """A table, and the pictures of ``ROWS``, where these are not there."""
    for row in ROWS if not root.exists() else ():
        save_picture(root / row["image"], seed=sum(map(ord, row["image"])))
        save_mask(root / row["mask"], size=(20, 24 + int(row["mask"][7])))
    lines = [",".join(str(row[name]) for name in NAMES) for row in rows]
    (root / "table.csv").write_text("\n".join([",".join(NAMES), *lines]) + "\n")


def of(root, **options):
    columns = {"mask_column": "mask", "patient_column": "patient", "split_column": "split"}
    return fingerprint(MedicalFolder(table=root / "table.csv", **{**columns, **options}), {})


def told_otherwise(name, other):
    """A change of what the table says in one column of each row."""

    def rewrite(root):
        write(root, [{**row, name: other(row)} for row in ROWS])

    return rewrite


def exchange(one, two):
    """A change of places of two files."""

    def change(root):
        (root / one).rename(root / "aside")
        (root / two).rename(root / one)
        (root / "aside").rename(root / two)

    return change


def move(root):
    """Images go to another folder, whose last parts are the same, with the table's consent."""
    (root / "p0").rename(root / "p00")
    moved = [{**row, "image": row["image"].replace("p0", "p00")} for row in ROWS]
    write(root, moved)


SPLITS, PATIENTS = {"train": "test", "test": "train"}, {"P": "Q", "Q": "P"}
CHANGES = {
    "every mask given to another image": told_otherwise(
        "mask", lambda row: f"masks/p{(int(row['image'][1]) + 1) % 4}/1.png"
    ),
    "every label flipped": told_otherwise("label", lambda row: 1 - row["label"]),
    "train and test exchanged": told_otherwise("split", lambda row: SPLITS[row["split"]]),
    "patients exchanged": told_otherwise("patient", lambda row: PATIENTS[row["patient"]]),
    "images in other folders": move,
    "two images exchanged": exchange("p0/a/scan/1.png", "p0/b/scan/1.png"),
    "two masks exchanged": exchange("masks/p0/1.png", "masks/p1/1.png"),
    "an image changed": lambda root: save_picture(root / "p0/a/scan/1.png", seed=12345),
    "a mask changed": lambda root: save_mask(root / "masks/p0/1.png", size=(24, 20)),
    "a mask gone": lambda root: (root / "masks/p0/1.png").unlink(),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_fingerprint_changes_with(change, tmp_path):
    root = tmp_path / "set"
    write(root)
    before = of(root)
    assert of(root) == before
    CHANGES[change](root)
    assert of(root) != before


def test_a_set_that_is_moved_or_listed_in_another_order_is_the_same(tmp_path):
    write(tmp_path / "set")
    shutil.copytree(tmp_path / "set", tmp_path / "far" / "away" / "set")
    write(tmp_path / "far" / "away" / "set", ROWS[::-1])
    before = of(tmp_path / "set")
    assert of(tmp_path / "far" / "away" / "set") == before
    assert of(tmp_path / "set", k_shot=3, seed=9) == before


def volumes(root):
    source = VolumeSource("{patient}/flair.nii.gz", mask="{patient}/seg.nii.gz")
    return Volumes(root, [source], intensity=(0.0, 1000.0))


def other_voxel(root):
    save_nifti(root / "P0" / "flair.nii.gz", volume(77, (1, 3))[0])


def other_mask(root):
    """A lesion elsewhere on the same slices, so that labels stay as they are."""
    save_nifti(root / "P0" / "seg.nii.gz", volume(78, (1, 3))[1])


def other_patients(root):
    exchange("P0", "P1")(root)


@pytest.mark.parametrize("change", [other_voxel, other_mask, other_patients])
def test_a_fingerprint_of_volumes_changes_with(change, tmp_path):
    write_patients(tmp_path / "set", count=3)
    before = fingerprint(volumes(tmp_path / "set"), {})
    shutil.copytree(tmp_path / "set", tmp_path / "moved" / "set")
    assert fingerprint(volumes(tmp_path / "moved" / "set"), {}) == before
    change(tmp_path / "set")
    assert fingerprint(volumes(tmp_path / "set"), {}) != before


# --- files that were read already


def aged(path, seconds=60):
    """As if a file had been written a while ago, as far as its times can say that."""
    then = path.stat().st_mtime_ns - seconds * 1_000_000_000
    os.utime(path, ns=(then, then))
    return path


def test_a_file_is_read_once_unless_it_has_been_touched(tmp_path, monkeypatch):
    path, known, reads = tmp_path / "a.bin", {}, []
    path.write_bytes(b"one")
    monkeypatch.setattr("anomalib_medclip.data.fingerprint._SETTLED", 0)
    real = digest_of.__globals__["sha256"]
    monkeypatch.setitem(
        digest_of.__globals__, "sha256", lambda file: reads.append(file) or real(file)
    )
    one = digest_of(path, known)
    assert digest_of(path, known) == one
    assert len(reads) == 1
    status = aged(path).stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as copies of files have them
    assert digest_of(path, known) != one


def test_a_file_that_was_only_just_written_is_read_again(tmp_path):
    """Within a tick of the clock, two contents of one length have the same times."""
    path, known = tmp_path / "a.bin", {}
    path.write_bytes(b"one")
    digest_of(path, known)
    (read,) = known.values()
    assert not read.settled
    known[path] = read._replace(sha256="another")
    assert digest_of(path, known) == read.sha256


def test_a_folder_changes_with_a_file_in_it(tmp_path):
    (tmp_path / "1.dcm").write_bytes(b"one")
    known = {}
    before = digest_of(tmp_path, known)
    (tmp_path / "1.dcm").write_bytes(b"two")
    assert digest_of(tmp_path, known) != before


@pytest.mark.parametrize("change", CHANGES)
def test_data_that_have_changed_are_refused(change, tmp_path):
    root = tmp_path / "set"
    write(root)
    columns = {"mask_column": "mask", "patient_column": "patient", "split_column": "split"}
    data, known = MedicalFolder(table=root / "table.csv", **columns), {}
    planned = fingerprint(data, known)
    check_unchanged(data, planned, known, "mine")
    CHANGES[change](root)
    with pytest.raises(DataChangedError, match=r"data mine: .* has changed since") as caught:
        check_unchanged(data, planned, known, "mine")
    if CHANGES[change].__name__ != "rewrite":
        assert "1.png (1 of " in str(caught.value)
