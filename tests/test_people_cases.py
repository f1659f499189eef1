"""Small inputs as people have them, each with its right outcome; see ``cases`` of the test data."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny import TEST_DATA

from anomalib_medclip import get_model
from anomalib_medclip.data.config import build_data
from anomalib_medclip.data.slicing import Slicing, cut
from anomalib_medclip.errors import MedclipError
from anomalib_medclip.readers.intensity import with_nan_as_background
from anomalib_medclip.readers.volume import read_volume
from anomalib_medclip.score.inputs import find_inputs

SCRIPT = Path(TEST_DATA or "none", "cases", "make_cases.py")
NAMES = (
    re.findall(r'^@case\("([^"]+)"', SCRIPT.read_text(), re.MULTILINE) if SCRIPT.exists() else []
)

REFUSED = {
    "dicom-mosaic": "mosaic",
    "ct-gantry-tilt": "20 degrees",
    "nifti-tilted": "20 degrees",
    "nifti-nan": "120 .*--nan",
    "mask-void-255": "1 and 255",
    "weights-lfs-pointer": "Git LFS pointer",
}
"""Cases that are refused, since to read them would be a guess, and the words that say so."""


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """Where they are, and what is expected of each."""
    out = tmp_path_factory.mktemp("cases")
    subprocess.run([sys.executable, SCRIPT, out], check=True, capture_output=True)
    return out, json.loads((out / "expected.json").read_text())


class Case:
    """One of them, as it is given to the package."""

    def __init__(self, out, told):
        self.home, self.given = out / told["id"], told["given"]
        self.exact = {
            key: np.load(out / value["array"]) if isinstance(value, dict) and "array" in value
            else value for key, value in told["exact"].items()
        }  # fmt: skip
        self.tolerance = self.exact.get("tolerance", 1e-5)

    def data(self):
        """The data that a config would describe."""
        options = dict(self.given["options"], num_workers=0)
        for place in options.keys() & {"root", "table"}:
            options[place] = str(self.home / options[place])
        class_path = f"anomalib_medclip.data.{self.given['data']}"
        data = build_data({"class_path": class_path, "init_args": options}, "the case")
        data.setup()
        return data

    def scored(self):
        """The path and the window that the command would read."""
        words = shlex.split(self.given["command"])
        path, window = words[2], json.loads(words[words.index("--intensity") + 1])
        return self.home / path, window

    def run(self):
        """Read it, and compare."""
        if "model" in self.given:
            weights = str(self.home / self.given["options"]["pretrained"])
            return get_model(self.given["model"])(pretrained=weights)
        return self.check_data() if "data" in self.given else self.check_score()

    def check_data(self):
        data = self.data()
        table, exact = data.list_images(), self.exact
        for label, word in enumerate(("normal", "abnormal")):
            if f"{word} images" in exact:
                found = [*table[table["label_index"] == label]["image_path"]]
                found += [str(one.path) for one in data.left_out if self.may_be_left_out(one.path)]
                assert len(found) == exact[f"{word} images"]
        if "image" in exact:
            path = str(self.home / exact["item"])
            assert path in set(table["image_path"])
            image = np.asarray(data.read_picture(path))
            wanted = np.broadcast_to(exact["image"], image.shape)
            np.testing.assert_allclose(image, wanted, rtol=0, atol=self.tolerance)
        if "lesion" in exact:
            [sample] = table[table["image_path"] == str(self.home / exact["item"])].to_dict(
                "records"
            )
            lesion = data.read_lesion(sample)
            assert (lesion != (exact["lesion"] > 0)).sum() <= self.tolerance
        if "volume" in exact:
            [case] = [one for one in data.cases() if exact["item"] in str(one)]
            images = np.asarray(data.cut(case).images)
            np.testing.assert_allclose(images, exact["volume"], rtol=0, atol=self.tolerance)

    def may_be_left_out(self, file):
        """Whether the case has such a file left out, by its ending."""
        return Path(file).suffix in self.exact.get("or left out", ())

    def check_score(self):
        (path, window), exact = self.scored(), self.exact
        [one] = find_inputs(path, self.home / "results")
        given = one.files[0] if one.kind == "nifti" else one.files
        images = np.asarray(cut(given, window, Slicing()).images)
        assert len(images) == exact.get("slices", len(images))
        assert sorted(images.shape[1:]) == exact.get("sides", sorted(images.shape[1:]))
        if "volume" in exact:
            voxels = images if one.kind == "series" else read_volume(given, window).voxels
            np.testing.assert_allclose(voxels, exact["volume"], rtol=0, atol=self.tolerance)


@pytest.mark.skipif(not NAMES, reason="ANOMALIB_MEDCLIP_TEST_DATA names no folder with cases")
@pytest.mark.parametrize("name", NAMES)
def test_it_is_read_right_or_refused_with_the_reason(name, cases):
    out, expected = cases
    case = Case(out, expected[name])
    if name not in REFUSED:
        case.run()
        return
    assert re.search(r"\b(typed|Weights)\s?[Ee]rror", expected[name]["right"]), "it has to be read"
    with pytest.raises(MedclipError, match=REFUSED[name]):
        case.run()


@pytest.mark.skipif("nifti-nan" not in NAMES, reason="there is no such case")
def test_nan_is_background_by_the_option_that_the_error_names(cases):
    out, expected = cases
    case = Case(out, expected["nifti-nan"])
    path, window = case.scored()
    voxels = read_volume(path, with_nan_as_background(window)).voxels
    wanted = case.exact["volume with the option"]
    np.testing.assert_allclose(voxels, wanted, rtol=0, atol=case.tolerance)
