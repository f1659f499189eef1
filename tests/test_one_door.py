"""Training, check, slice, score, Inferencer and prediction read the same, or refuse alike."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import doors
import numpy as np
import pytest
from odd import WINDOW
from odd_dicom import DICOM_PICTURES, DICOM_VOLUMES
from odd_masks import LESION, MASKS, VOLUME_MASKS, VOXELS, nifti, straight
from odd_pictures import PICTURES
from odd_volumes import VOLUMES
from pictures import noise, save
from PIL import Image as Pillow
from tiny import TEST_DATA
from torchvision.tv_tensors import Image

from anomalib_medclip.data.cases import VolumeSource
from anomalib_medclip.data.config import build_data
from anomalib_medclip.data.folder import MedicalFolder
from anomalib_medclip.data.slice_tree import cut_tree
from anomalib_medclip.data.volumes import Volumes
from anomalib_medclip.errors import MedclipError
from anomalib_medclip.score.inputs import find_inputs

SCRIPT = Path(TEST_DATA or "none", "cases", "make_cases.py")
NAMES = (
    re.findall(r'^@case\("((?!weights)[^"]+)"', SCRIPT.read_text(), re.MULTILINE)
    if SCRIPT.exists()
    else []
)
"""The visible cases that are data."""


@pytest.fixture(scope="module")
def opened(finished):
    return doors.Model(finished)


@pytest.fixture
def model(opened):
    """A trained model, which reads by the window of the corpora."""
    return opened.reading(WINDOW)


def written(root, corpus):
    """Every file of a corpus, by its name, in a folder of its own."""
    return {name: write(root / name / name)[0] for name, write in corpus.items()}


def assert_alike(wanted, found, atol=0.0):
    """All that a door has, by path, is what training has."""
    other = [path for path, one in found.items() if not one.is_that_of(wanted[path], atol)]
    assert not other, [(path, wanted[path].error, found[path].error) for path in other[:3]]


def listed(folder, rows):
    """A data module of these pictures, by a table."""
    table = folder / "table.json"
    table.write_text(json.dumps([{"label": n % 2, **row} for n, row in enumerate(rows)]))
    mask = "mask" if "mask" in rows[0] else None
    return MedicalFolder(folder, table, mask_column=mask, intensity=WINDOW)


# --- the corpora of valid files


def test_pictures_are_the_same_at_every_door(tmp_path, model):
    root = tmp_path / "in"
    files = written(root, {**PICTURES, **DICOM_PICTURES})
    data = listed(root, [{"image": str(path)} for path in files.values()])
    trained, _ = doors.train(data)
    checked, _ = doors.check(data)
    inferred = doors.infer(files.values(), model)
    assert trained.keys() == checked.keys() == inferred.keys() == {*map(str, files.values())}
    assert_alike(trained, checked)
    assert_alike(trained, inferred)
    (root / "table.json").unlink()
    found = doors.score(find_inputs(root, tmp_path / "out"), model, tmp_path / "out")
    scored = {f"{root}/{where}": one for where, one in found.items()}
    assert {*trained} - {*scored} == {str(files["dicom of a report"])}  # which is left out
    assert_alike(trained, scored)
    assert_predicted(trained, model)


def damaged(root):
    """Empty and cut-off pictures of every format, and files that are none, by path."""
    files = [root / f"{name}.png" for name in ("nothing", "a page", "words")]
    for path, content in zip(files, (b"", b"<!doctype html><html>", b"hello"), strict=True):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    for ending in ("png", "jpg", "bmp", "tif", "gif", "webp"):
        whole = save(root / f"whole.{ending}", noise(40, 50, 3)).read_bytes()
        for part in (2, 20, len(whole) // 2, len(whole) - 3):
            files.append(root / f"{part} bytes.{ending}")
            files[-1].write_bytes(whole[:part])
        (root / f"whole.{ending}").unlink()
    return files


def test_damaged_pictures_are_refused_alike_at_every_door(tmp_path, model):
    root = tmp_path / "in"
    files = damaged(root)
    data = listed(root, [{"image": str(path)} for path in files])
    trained, _ = doors.train(data)
    checked, _ = doors.check(data)
    assert sum(one.error is not None for one in trained.values()) >= len(files) - 2
    assert_alike(trained, checked)
    assert_alike(trained, doors.infer(files, model))
    (root / "table.json").unlink()
    found = doors.score(find_inputs(root, tmp_path / "out"), model, tmp_path / "out")
    assert_alike(trained, {f"{root}/{where}": one for where, one in found.items()})
    predicted = doors.predict(files, model.inferencer.intensity, model.inferencer.resize.side)
    for path, one in predicted.items():
        if trained[path].error:
            assert one.error == trained[path].error


def assert_predicted(trained, model):
    """anomalib's prediction has the same at the model's size, or cannot open the file itself."""
    resize = model.inferencer.resize
    at_size = {
        path: one if one.error else doors.Outcome(np.asarray(resize(Image(one.numbers))))
        for path, one in trained.items()
    }
    predicted = doors.predict(map(Path, trained), model.inferencer.intensity, resize.side)
    unopened = {
        path for path, one in predicted.items()
        if one.error and "is read by this package, but not by anomalib's own" in one.error[1]
    }  # fmt: skip
    assert not any(trained[path].error for path in unopened)
    assert len(unopened) <= len(predicted) / 8
    assert_alike(at_size, {path: one for path, one in predicted.items() if path not in unopened})


def as_volumes(root, files):
    """A data module of these volumes, each found by a pattern of its own."""
    endings = {path.parent.name: path.name.removeprefix(path.parent.name) for path in files}
    patterns = [f"{name}/{{patient}}{ending}" for name, ending in endings.items()]
    return Volumes(root, [VolumeSource(one, healthy=True) for one in patterns], intensity=WINDOW)


def test_volumes_are_the_same_at_every_door(tmp_path, model):
    root = tmp_path / "in"
    files = written(root, {**VOLUMES, **DICOM_VOLUMES}).values()
    data = as_volumes(root, files)
    trained = doors.stacked(doors.check(data)[0])  # which lists them as training does
    assert trained.keys() == {*map(str, files)}
    assert_alike(doors.stacked(doors.train(data)[0]), trained_only(trained))
    named_below = f"{tmp_path}/"  # which no file that travels names
    as_said = {
        path: doors.Outcome(error=("", one.error[1].replace(named_below, ""))) if one.error else one
        for path, one in trained.items()
    }
    assert_alike(as_said, doors.sliced(data, tmp_path / "tree"), atol=0.51 / 65535)
    assert len(find_inputs(root / "series of two", tmp_path / "out")) == 2  # score parts them
    by_name = {Path(path).parent.name: one for path, one in trained.items()}
    found = doors.score(find_inputs(root, tmp_path / "out"), model, tmp_path / "out")
    scored = {where.partition("/")[0]: one for where, one in found.items()}
    assert {*by_name} - {*scored} == {"zip", "hdf5", "Heidelberg"}  # left out, by what they are
    del scored["series of two"]
    assert_alike(by_name, scored)
    assert_inferred(trained, [path for path in files if path.is_file()], model)


def trained_only(trained):
    return {path: one for path, one in trained.items() if not one.error}


def assert_inferred(trained, paths, model):
    """Inferencer has the slice of a flat volume, and sends others to score."""
    for path, one in doors.infer(paths, model).items():
        wanted = trained[path]
        if one.error and "multi-frame file" in one.error[1]:
            assert one.error[0] == "VolumeError"
        elif wanted.error:
            assert one.error == wanted.error
        elif len(wanted.numbers) > 1:
            words = (
                f"{path} is a volume of {len(wanted.numbers)} slices; use `anomalib-medclip score`"
            )
            assert one.error == ("VolumeError", words)
        else:
            assert np.array_equal(one.numbers[0], wanted.numbers[0])


def test_masks_are_the_same_at_every_door(tmp_path):
    refused = 0
    for name, write in MASKS.items():  # each a set of its own, by a number of its own
        mask, _ = write(tmp_path / name / name)
        image = save(tmp_path / name / "image.png", noise(*LESION.shape))
        data = listed(tmp_path / name, [{"image": str(image), "mask": str(mask), "label": 1}])
        trained, lesions = doors.train(data)
        found, checked = doors.check(data)
        if str(mask) in found:
            checked[str(image)] = found[str(mask)]
            refused += 1
        assert_alike(lesions, checked)
        assert checked.keys() == trained.keys() == {str(image)}
    assert refused == 4


def test_masks_of_two_numbers_are_the_same_at_every_door(tmp_path):
    rows = []
    for number in (255, 255, 1):
        image = save(tmp_path / f"{len(rows)}.png", noise(*LESION.shape, seed=len(rows)))
        mask = save(tmp_path / f"mask_{len(rows)}.png", LESION * np.uint8(number))
        rows.append({"image": str(image), "mask": str(mask), "label": 1})
    data = listed(tmp_path, rows)
    _, lesions = doors.train(data)
    found, _ = doors.check(data)
    assert found[rows[2]["mask"]].error == lesions[rows[2]["image"]].error
    assert "holds 1 beside 0, but mask" in lesions[rows[2]["image"]].error[1]


def test_outlines_of_volumes_are_the_same_at_every_door(tmp_path):
    for number, (name, write) in enumerate(VOLUME_MASKS.items()):
        root = tmp_path / name
        mask, _ = write(root / name / name)
        voxels = noise(*VOXELS.shape, seed=number).astype(np.int16)
        nifti(root / name / f"{name}_scan.nii", voxels, straight())
        source = VolumeSource(f"{name}/{{patient}}_scan.nii", mask=f"{name}/{mask.name}")
        data = Volumes(root, [source], intensity=WINDOW)
        _, lesions = doors.train(data)
        _, checked = doors.check(data)
        ((path, one),) = checked.items()  # one slice has a lesion
        assert_alike(lesions, checked)
        tree = cut_tree(data, tmp_path / "tree" / name)
        (drawn,) = tree.folder.glob("*/*/*mask/*")
        assert drawn.stem == f"{name}_{path[-len('000.png') : -len('.png')]}"
        assert np.array_equal(np.asarray(Pillow.open(drawn)) > 0, one.numbers > 0)


# --- inputs as people have them


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """Where they are, and how each is given."""
    out = tmp_path_factory.mktemp("cases")
    subprocess.run([sys.executable, SCRIPT, out], check=True, capture_output=True)
    return out, json.loads((out / "expected.json").read_text())


def as_given(home, told):
    """The data of a case, or as data what is given to the command ``score``."""
    if "data" in told:
        options = {**told["options"], "num_workers": 0}
        options |= {name: str(home / options[name]) for name in options.keys() & {"root", "table"}}
        class_path = f"anomalib_medclip.data.{told['data']}"
        return build_data({"class_path": class_path, "init_args": options}, "a case")
    words = shlex.split(told["command"])
    window = json.loads(words[words.index("--intensity") + 1])
    pattern = "{patient}" + "".join(Path(words[2]).suffixes)
    return Volumes(home, [VolumeSource(pattern, healthy=True)], intensity=window)


def trained_on(data, told):
    """What training has of each image and lesion; or, in their place, why there is none."""
    try:
        if "data" in told:
            data.setup()
        return doors.train(data)
    except MedclipError as error:
        return {"": doors.Outcome.refusal(error)}, {}


def errors_of(*found):
    return {one.error for outcomes in found for one in outcomes.values() if one.error}


@pytest.mark.skipif(not NAMES, reason="ANOMALIB_MEDCLIP_TEST_DATA names no folder with cases")
@pytest.mark.parametrize("name", NAMES)
def test_a_case_is_the_same_at_every_door(name, cases, opened, tmp_path):
    out, expected = cases
    home, told = out / name, expected[name]["given"]
    trained, lesions = trained_on(as_given(home, told), told)
    data = as_given(home, told)
    checked, outlined = doors.check(data)
    assert errors_of(trained, lesions) == errors_of(checked, outlined)
    model = opened.reading(data.intensity)
    if refused := errors_of(checked):
        if not data.in_files:
            found = doors.score(find_inputs(home, tmp_path), model, tmp_path)
            assert errors_of(found) == refused
        return
    assert_alike(trained, checked)
    assert_alike(lesions, outlined)
    if not data.in_files:
        trained = doors.stacked(trained)
        assert_alike(trained, doors.sliced(data, tmp_path / "tree"), atol=0.51 / 65535)
    given = [
        one._replace(where=path, name=str(number))
        for number, path in enumerate(trained)
        for one in find_inputs(Path(path), tmp_path)
    ]
    assert_alike(trained, doors.score(given, model, tmp_path))
    if data.in_files:
        assert_alike(trained, doors.infer(map(Path, trained), model))
        assert_predicted(trained, model)
