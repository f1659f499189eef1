"""What cannot be read is named and stops nothing else; what cannot be written is said at once.

Commands run in a process without root's powers, which ignore permissions.
"""

import errno
import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import save_picture
from scans import UP, numbers, write_stack, write_volume
from unprivileged import run_unprivileged
from volumes import write_patients

from anomalib_medclip import files
from anomalib_medclip.cli import main
from anomalib_medclip.data import BMAD, MedicalFolder
from anomalib_medclip.data.few_shot import read_support
from anomalib_medclip.data.fingerprint import fingerprint
from anomalib_medclip.errors import DataRootError, ImageReadError, OutputError
from anomalib_medclip.export.exporter import CertifiedExporter
from anomalib_medclip.files import check_writable, sha256

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")

LONG = "n" * 200


def spoil(folder):
    """Put beside good inputs what cannot be read; its path below the folder, and the words for it.

    Whatever a user may meet: of others, of a network that is gone, of a program that talks.
    """
    save_picture(folder / "secret" / "x.png")
    save_picture(folder / "listed" / "x.png")
    save_picture(folder / "closed.png")
    save_picture(folder / "own.png").rename(folder / "1.2.840.1")
    for name, mode in (("secret", 0), ("listed", 0o600), ("closed.png", 0), ("1.2.840.1", 0)):
        (folder / name).chmod(mode)
    os.mkfifo(folder / "pipe.nii.gz")
    os.mknod(folder / "socket.png", stat.S_IFSOCK | 0o600)
    for name, target in (("zero.nii", "/dev/zero"), ("gone.png", "no"), ("loop.png", "loop.png")):
        (folder / name).symlink_to(target)
    return {
        "secret": "may not be read by you; let yourself read it",
        "listed/x.png": "may not be read by you; let yourself read it",
        "closed.png": "may not be read by you; let yourself read it",
        "1.2.840.1": "may not be read by you; let yourself read it",
        "pipe.nii.gz": "is a pipe and no file",
        "socket.png": "is a socket and no file",
        "zero.nii": "is a device and no file",
        "gone.png": "is a link that leads nowhere",
        "loop.png": "is a link that leads back to itself",
        f"{write_deep(folder)}/{LONG}": "is too long a path for this system; shorten its names",
    }


def write_deep(folder):
    """Folders in one another, the last of which is named by no path; it is that above it."""
    deep, at = Path(), os.open(folder, os.O_RDONLY)
    while len(str(folder / deep / LONG)) < 4096:
        deep /= LONG
        os.mkdir(LONG, dir_fd=at)
        below = os.open(LONG, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.mkdir(LONG, dir_fd=at)
    os.close(at)
    return deep.as_posix()


@pytest.fixture
def home(tmp_path):
    """A folder that whoever made it can remove afterwards."""
    yield tmp_path
    for name in ("in/secret", "in/listed", "closed/P1", "mine"):
        if (tmp_path / name).exists():
            (tmp_path / name).chmod(0o700)


def test_what_cannot_be_read_has_a_failed_row_and_all_others_are_scored(finished, home):
    save_picture(home / "in" / "folder.png" / "good.png")
    save_picture(home / "in" / f"{'n' * 251}.png")
    slices = write_stack(home / "in" / "ct", numbers((3, 12, 10)), UP)
    slices[1].chmod(0)
    write_volume(home / "in" / "cropped.nii")
    os.mkfifo(home / "organ.nii")
    words = spoil(home / "in") | {
        "ct": f"{slices[1].name} may not be read by you",
        "cropped.nii": "organ.nii is a pipe and no file",
    }
    options = ["--intensity", "[0, 1000]", "--worst", "1", "--workers", "0"]
    organ = ["--organ", home / "organ.nii", "--organ-labels", "1"]
    command = ["score", home / "in", "--ckpt", finished, "--out", home / "out", *options, *organ]
    codes, _ = run_unprivileged(command)
    assert codes == [1]
    table = pd.read_csv(home / "out" / "scores.csv", keep_default_na=False).set_index("input")
    assert set(table.index[table["status"] == "scored"]) == {
        "folder.png/good.png", f"{'n' * 251}.png",
    }  # fmt: skip
    failed = table[table["status"] == "failed"]["error"]
    assert set(failed.index) == set(words)
    for name, said in words.items():
        assert said in failed[name], name
        assert str(home) not in failed[name], "the table may travel"
        assert name == "ct" or name == "cropped.nii" or Path(name).name[:50] in failed[name], name


CONFIG = """
class_path: anomalib_medclip.data.{kind}
init_args: {{{options}, k_shot: 1, name: Set}}
"""


def write_config(path, kind, options):
    path.write_text(CONFIG.format(kind=kind, options=options))
    return path


def volumes_config(home, root):
    sources = "[{image: '{patient}/flair.nii.gz', mask: '{patient}/seg.nii.gz'}]"
    options = f"root: {root}, sources: {sources}, intensity: [0, 1000]"
    return write_config(home / f"{root.name}.yaml", "Volumes", options)


def test_check_lists_what_cannot_be_read_and_slice_cuts_all_others(home):
    words = spoil(home / "in")
    good = [save_picture(home / "in" / f"{n}.png", n).name for n in range(6)]
    rows = [f"{name},{n % 2}" for n, name in enumerate([*good, *words])]
    (home / "in" / "table.csv").write_text("\n".join(["image,label", *rows]))
    table = write_config(home / "table.yaml", "MedicalFolder", f"table: {home}/in/table.csv")
    write_patients(home / "brain", 4)
    (home / "brain" / "P1" / "flair.nii.gz").chmod(0)
    (home / "brain" / "P2" / "seg.nii.gz").unlink()
    os.mkfifo(home / "brain" / "P2" / "seg.nii.gz")
    write_patients(home / "closed", 2)
    closed = volumes_config(home, home / "closed")
    (home / "closed" / "P1").chmod(0)
    out = ["--out", home / "tree", "--jobs", "1"]
    codes, said = run_unprivileged(
        ["check", table, "--json", home / "problems.json"],
        ["slice", volumes_config(home, home / "brain"), *out],
        ["slice", closed, *out],
    )
    assert codes == [1, 1, 2]
    problems = json.loads((home / "problems.json").read_text())["problems"]
    found = {one["file"]: one["problem"] for one in problems if one["kind"] == "unreadable file"}
    assert {str(home / "in" / name) for name in words} == set(found)
    for name, told in words.items():
        assert told.startswith(found[str(home / "in" / name)])
    assert {file.name[:2] for file in (home / "tree").rglob("*.png")} == {"P0", "P3"}
    failed = json.loads((home / "tree" / "Set_AD" / "manifest.json").read_text())["failed"]
    assert "P1/flair.nii.gz may not be read by you" in failed["P1/flair.nii.gz"]
    assert "P2/seg.nii.gz is a pipe and no file" in failed["P2/flair.nii.gz"]
    assert f"error: {home}/closed/P1 may not be read by you; let yourself" in said[2]


def test_data_name_what_is_no_file(tmp_path, bmad_tree, capsys):
    device = tmp_path / "null.csv"
    device.symlink_to(os.devnull)
    table = tmp_path / "table.csv"
    rows = [f"{save_picture(tmp_path / f'{n}.png', n).name},{n % 2}" for n in range(6)]
    table.write_text("\n".join(["image,label", *rows, f"{'n' * 300}.png,0"]))
    data = MedicalFolder(table=table, k_shot=1)
    assert len(fingerprint(data, {})) == 64
    with pytest.raises(ImageReadError, match=r"n\.png is too long a path .*; shorten its names"):
        data.setup()
    told = r"null\.csv is a device and no file; name a file"
    with pytest.raises(DataRootError, match=told):
        MedicalFolder(table=device).list_images()
    with pytest.raises(DataRootError, match=told):
        read_support(data.list_images(), device)
    with pytest.raises(ImageReadError, match=told):
        sha256(device)
    assert main(["check", str(device)]) == 2
    assert "null.csv is a device and no file" in capsys.readouterr().err
    loop = bmad_tree("Brain", tmp_path) / "Brain_AD" / "test" / "good" / "img"
    shutil.rmtree(loop)
    loop.symlink_to(loop)
    with pytest.raises(DataRootError, match=r"good/img is a link that leads back to itself"):
        BMAD(tmp_path, category="Brain").list_images()


def test_a_place_for_results_is_tried_before_any_work(home):
    """Neither model nor data are looked for, which are not there."""
    (home / "mine").mkdir()
    (home / "mine").chmod(0o500)
    out, none = home / "mine" / "out", home / "none"
    codes, said = run_unprivileged(
        ["score", none, "--ckpt", none, "--out", out],
        ["slice", none, "--out", out],
        ["check", none, "--json", out / "problems.json"],
        ["compare", none, "--out", out],
        ["bench", "--quick", "--out", home / "mine" / "rows.csv"],
    )
    assert codes == [2] * 5
    for words in said:
        assert f"error: nothing can be written to {home}/mine" in words
        assert "Permission denied; change that, or give another folder" in words
    file = save_picture(home / "file.png")
    exporter = CertifiedExporter()
    exporter.probes = torch.zeros(1, 3, 8, 8)
    with pytest.raises(OutputError, match=r"nothing can be written to .*out: Not a directory"):
        exporter.to_torch(None, None, file / "out")
    file.with_name("link").symlink_to(none)
    with pytest.raises(OutputError, match=r"link: No such file or directory"):
        check_writable(file.with_name("link"))
    check_writable(home / "new" / "folder")
    assert not (home / "new").exists()


@pytest.fixture
def disk(monkeypatch):
    """A disk that takes so many files more: ``disk(2)`` gives a list of those it has refused."""

    def takes(number):
        taken, refused = [], []

        def fsync(file):
            (taken if len(taken) < number else refused).append(file)
            if refused:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(files.os, "fsync", fsync)
        return refused

    return takes


def hidden(folder):
    return [path for path in folder.rglob(".*") if not path.name.endswith(".lock")]


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_full_disk_stops_scoring_and_is_named(finished, tmp_path, disk, capsys, workers):
    for name in "abcdef":
        save_picture(tmp_path / "in" / f"{name}.png")
    out = tmp_path / "out"
    command = ["score", tmp_path / "in", "--ckpt", finished, "--out", out, "--worst", "1"]
    command = [str(word) for word in [*command, "--workers", workers, "--batch-size", "1"]]
    refused = disk(4 + 2)  # one result whole, and half of the next
    assert main(command) == 2
    assert len(refused) <= 3, "the table of all is tried, and a result that was begun already"
    said = capsys.readouterr().err.replace("\n", " ")
    assert f"error: {out} takes no more: No space left on device; make room, and give" in said
    assert [path.name for path in out.iterdir() if path.is_dir()] == ["a"]
    assert not hidden(out)
    disk(100)
    assert main(command) == 0
    table = pd.read_csv(out / "scores.csv", keep_default_na=False)
    assert list(table["status"]) == ["kept"] + ["scored"] * 5


def test_a_full_disk_stops_slicing_and_the_next_run_goes_on(tmp_path, disk, capsys):
    config = volumes_config(tmp_path, write_patients(tmp_path / "brain", 8))
    command = ["slice", str(config), "--jobs", "1", "--out", str(tmp_path / "tree")]
    refused = disk(12)
    assert main(command) == 2
    assert len(refused) < 4, "no other volume is begun, but one that was begun already"
    said = capsys.readouterr().err
    assert f"error: {tmp_path}/tree/Set_AD" in said
    assert "takes no more: No space left on device; make room" in said
    assert not [path for path in hidden(tmp_path / "tree") if path.name != ".notes"]
    pictures = {path: path.stat().st_ino for path in (tmp_path / "tree").rglob("*.png")}
    assert 0 < len(pictures) <= 12
    disk(1000)
    assert main(command) == 0
    assert len(list((tmp_path / "tree").rglob("*/img/*.png"))) == 48


@pytest.mark.nightly(also="tests/test_unreadable.py::test_a_full_disk_stops_scoring_and_is_named")
def test_a_real_disk_gets_full(finished, tmp_path, capsys):
    """A file system of 96 kB, where one may be mounted."""
    for name in "abcd":
        save_picture(tmp_path / "in" / f"{name}.png", size=(60, 60))
    out = tmp_path / "out"
    out.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(out)]
    if os.geteuid() or subprocess.run(mount, check=False).returncode:
        pytest.skip("only root may mount, and not everywhere")
    try:
        code = main(["score", str(tmp_path / "in"), "--ckpt", str(finished), "--out", str(out)])
        assert code == 2
        assert f"{out} takes no more: No space left on device" in capsys.readouterr().err
        assert [path.name for path in out.iterdir() if path.is_dir()] == ["a"]
        assert not hidden(out)
    finally:
        subprocess.run(["umount", str(out)], check=True)
