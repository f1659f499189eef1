"""``Volumes`` and ``slice`` on DICOM: one of several volumes, and what lies beside a series."""

import json
import logging

import numpy as np
import pytest
import yaml
from dicom_series import numbers
from enhanced import as_series, geometry, write_enhanced
from scans import AFFINE

from anomalib_medclip.cli import main
from anomalib_medclip.data import Volumes, VolumeSource
from anomalib_medclip.data.checks import check_data
from anomalib_medclip.data.slice_tree import cut_tree
from anomalib_medclip.errors import VolumeError

SPLITS = {"P0": "train", "P1": "train", "P2": "valid", "P3": "valid", "P4": "test", "P5": "test"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Six patients, a multi-frame file of two echoes each; those with odd numbers are ill."""
    home = tmp_path_factory.mktemp("hospital")
    shared, places = geometry(AFFINE, 3)
    for patient in range(6):
        pixels = numbers(6, 8, 7, low=0, high=1000, seed=patient)
        frames = [{**place, "EffectiveEchoTime": t} for place in places for t in (4.6, 9.2)]
        write_enhanced(home / f"P{patient}" / "mr.dcm", pixels, frames, shared)
    rows = [f"P{patient}/mr.dcm,{patient % 2}" for patient in range(6)]
    (home / "labels.csv").write_text("\n".join(["image,label", *rows]))
    return home


def options(root, **more):
    defaults = {"root": str(root), "sources": [{"image": "{patient}/mr.dcm"}], "k_shot": 1}
    fixed = {"table": str(root / "labels.csv"), "intensity": [0, 1000], "splits": SPLITS}
    return {**defaults, **fixed, "name": "MR", **more}


def volumes(root, **more):
    given = options(root, **more)
    return Volumes(**{**given, "sources": [VolumeSource(**one) for one in given["sources"]]})


def test_training_takes_the_volume_that_is_chosen(root):
    with pytest.raises(VolumeError, match="holds 2 volumes, which differ in EffectiveEchoTime"):
        volumes(root).load_table()
    data = volumes(root, dicom_where={"EffectiveEchoTime": 9.2})
    data.setup()
    assert len(data.list_images()) == 6 * 3
    pixels = numbers(6, 8, 7, low=0, high=1000, seed=4)[1::2]
    for number, expected in enumerate(pixels):
        path = str(root / "P4" / "mr.dcm" / f"axial_{number:03d}.png")
        image = np.asarray(data.read_picture(path))[0]
        np.testing.assert_allclose(
            np.sort(image.ravel()), np.sort(expected.ravel() / 1000), atol=1e-6
        )


def test_slice_takes_the_option_of_score(root, tmp_path, capsys):
    config = tmp_path / "mr.yaml"
    written = {"class_path": "anomalib_medclip.data.Volumes", "init_args": options(root)}
    config.write_text(yaml.safe_dump(written))
    cut = ["slice", str(config), "--out", str(tmp_path / "tree"), "--jobs", "1"]
    assert main(cut) == 1
    chosen = [
        *cut[:-4],
        "--out",
        str(tmp_path / "chosen"),
        "--dicom-where",
        "EffectiveEchoTime=9.2",
    ]
    assert main(chosen) == 0
    options_of_data = options(root, dicom_where={"EffectiveEchoTime": 9.2})
    config.write_text(yaml.safe_dump({**written, "init_args": options_of_data}))
    assert main([*cut[:3], str(tmp_path / "said"), "--jobs", "1"]) == 0
    pictures = [sorted((tmp_path / tree).rglob("*.png")) for tree in ("chosen", "said")]
    one, other = ([path.read_bytes() for path in tree] for tree in pictures)
    assert one == other
    assert capsys.readouterr().out.count("18 pictures") == 2
    manifest = json.loads((tmp_path / "chosen" / "MR_AD" / "manifest.json").read_text())
    assert manifest["dicom_where"] == {"EffectiveEchoTime": "9.2"}


def test_what_lies_beside_a_series_is_a_warning_of_check_training_and_slice(root, tmp_path, caplog):
    shared, places = geometry(AFFINE, 3)
    for patient in range(6):
        pixels = numbers(3, 8, 7, low=0, high=1000, seed=patient)
        as_series(tmp_path / f"P{patient}" / "ct", pixels, places, shared)
    (tmp_path / "P5" / "ct" / "preview.jpg").write_bytes(b"small")
    rows = [f"P{patient}/ct,{patient % 2}" for patient in range(6)]
    (tmp_path / "labels.csv").write_text("\n".join(["image,label", *rows]))
    data = volumes(tmp_path, sources=[{"image": "{patient}/ct"}])
    with caplog.at_level(logging.WARNING):
        data.setup()
    assert (
        "preview.jpg is no DICOM file, and lies beside a DICOM series, and is left out"
        in caplog.text
    )
    caplog.clear()
    cut_tree(data, tmp_path / "tree")
    assert "preview.jpg is no DICOM file, and lies beside a DICOM series, and is" in caplog.text
    [problem] = [one for one in check_data(data).problems if one.kind == "file left out"]
    assert problem.file.endswith("preview.jpg")
    assert problem.severity == "warning"


def test_a_volume_that_the_table_says_nothing_of_is_left_out(root, tmp_path):
    lines = (root / "labels.csv").read_text().splitlines()
    (tmp_path / "labels.csv").write_text("\n".join(lines[:-1]))
    table = str(tmp_path / "labels.csv")
    data = volumes(root, table=table, dicom_where={"EffectiveEchoTime": 9.2})
    assert set(data.list_images()["group"]) == {f"P{patient}" for patient in range(5)}
    found = {one.path.relative_to(root).as_posix(): one.said for one in data.left_out}
    words = "is like no pattern of sources, and is left out"
    assert found.pop("labels.csv") == words  # which is not the one that was given
    assert found == {"P5/mr.dcm": "has no labelled slice in the table, and is left out"}
