"""Of every kind of data, each file below what was given is taken, or left out with a reason."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest
from anomalib.data.datasets.image.mvtecad import make_mvtec_ad_dataset

from anomalib_medclip.data.bmad import BMAD
from anomalib_medclip.data.checks import check_data
from anomalib_medclip.data.folder import MedicalFolder
from anomalib_medclip.data.industrial import Industrial

NAMES = ("top.png", "12.heic", "13.nii", "notes.txt", "README", "IM0001", "14.jpg", "x.csv")

NO_PICTURES = tuple(name for name in NAMES if not name.endswith(("png", "jpg")))


@pytest.fixture
def kinds(tmp_path, picture, mask, write_bmad):
    """Makers of data, each with the folder that was given to it."""

    def table(name):
        home = tmp_path / name
        rows = [f"img/{number}.png,{number % 2}" for number in range(8)]
        for number in range(8):
            picture(home / f"img/{number}.png", seed=number)
        (home / "t.csv").write_text("\n".join(["image,label", *rows]))
        return home

    def industrial():
        for number in range(8):
            picture(tmp_path / f"mvtec/bottle/train/good/{number}.png", seed=number)
            picture(tmp_path / f"mvtec/bottle/test/broken/{number}.png", seed=20 + number)
            picture(tmp_path / f"mvtec/bottle/test/good/{number}.png", seed=40 + number)
            mask(tmp_path / f"mvtec/bottle/ground_truth/broken/{number}_mask.png")
        return tmp_path / "mvtec/bottle"

    def folders():
        for number in range(8):
            picture(tmp_path / f"two/data/normal/{number}.png", seed=number)
            picture(tmp_path / f"two/data/abnormal/{number}.png", seed=100 + number)
        return tmp_path / "two"

    return {
        "table": (table("a"), lambda home: MedicalFolder(table=home / "t.csv", k_shot=1)),
        "rooted": (table("b"), lambda home: MedicalFolder(home, home / "t.csv", k_shot=1)),
        "bmad": (write_bmad("Brain") / "Brain_AD", lambda home: BMAD(home.parent, "Brain")),
        "industrial": (industrial(), lambda home: Industrial(home.parent, category="bottle")),
        "folders": (
            folders(),
            lambda home: MedicalFolder(
                home, normal_dir="data/normal", abnormal_dir="data/abnormal", k_shot=1
            ),
        ),
    }


def accounted(data, table):
    """All paths that are taken or left out."""
    paths = [
        *table["image_path"],
        *table.get("mask_path", ()),
        *(one.path for one in data.left_out),
    ]
    return {Path(path) for path in paths if path}


@pytest.mark.parametrize("kind", ["table", "rooted", "bmad", "industrial", "folders"])
def test_every_file_below_what_was_given_is_taken_or_left_out_with_a_reason(kinds, picture, kind):
    home, make = kinds[kind]
    draw = np.random.default_rng(len(kind))
    places = [home, *(path for path in home.rglob("*") if path.is_dir())]
    places += [draw.choice(places) / "more", home / "other" / "deep", home / "img" / "sub"]
    for place in places:
        # Among defects a picture is an image, and lacks a mask; among masks it is one of another.
        names = (
            NO_PICTURES if {"test", "train"} & {*place.parts} and kind == "industrial" else NAMES
        )
        for name in draw.choice(names, 2, replace=False):
            path = place / f"_{name}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix in (".png", ".jpg"):
                picture(path, seed=int(draw.integers(1000)))
            else:
                path.write_bytes(bytes(128) + b"DICM" if "IM" in name else b"x")
    (home / "other" / ".hidden.png").write_bytes(b"x")
    data = make(home)
    table = data.list_images()
    known = accounted(data, table)
    files = [path for path in home.rglob("*") if path.is_file() and path.name[0] != "."]
    lost = [path for path in files if not known & {path, *path.parents}]
    lost = [path for path in lost if path.parent != home or path.suffix not in (".csv", ".txt")]
    assert lost == []
    assert all(one.reason and one.remedy and one.path.exists() for one in data.left_out)
    named = [os.fspath(one.path) for one in data.left_out]
    assert len(named) == len({*named})
    assert not {*table["image_path"]} & {*named}
    if kind in ("table", "rooted"):
        assert {*table["image_path"]} == {str(home / f"img/{number}.png") for number in range(8)}


@pytest.mark.parametrize("kind", ["table", "bmad", "industrial", "folders"])
def test_a_lost_file_is_a_warning_of_training_and_of_check(kinds, caplog, kind):
    home, make = kinds[kind]
    stray = home / ("data" if kind == "folders" else "") / "stray.svg"
    stray.write_text("x")
    with caplog.at_level(logging.WARNING):
        make(home).setup()
    assert f"{stray} " in caplog.text
    found = [one for one in check_data(make(home)).problems if one.kind == "file left out"]
    assert [(one.file, one.severity) for one in found] == [(str(stray), "warning")]


def test_pictures_elsewhere_are_looked_for_beside_those_that_a_table_names(tmp_path, picture):
    for number in range(4):
        picture(tmp_path / f"far/{number}.png", seed=number)
    picture(tmp_path / "far/below/5.png")
    picture(tmp_path / "lists/of another.png")
    table = tmp_path / "lists/t.csv"
    rows = [f"{tmp_path}/far/{number}.png,{number % 2}" for number in range(3)]
    table.write_text("\n".join(["image,label", *rows]))
    for root in (tmp_path / "empty", "/"):  # below the latter all of a machine lies
        data = MedicalFolder(root, table)
        data.list_images()
        assert [one.path for one in data.left_out] == [tmp_path / "far/3.png"]


def test_industrial_images_are_those_that_anomalib_lists(kinds):
    home, make = kinds["industrial"]
    found, theirs = make(home).list_images(), make_mvtec_ad_dataset(home)
    for column in ("image_path", "label_index", "split"):
        assert found[column].tolist() == theirs[column].tolist()
    assert found["mask_path"].tolist() == theirs["mask_path"].fillna("").tolist()
