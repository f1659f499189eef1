"""Headers broken in many ways cost no score, and no DICOM file that is written is unsound."""

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from dicom_faults import break_headers
from dicom_results import NAMES, errors_in, needs_dciodvfy, results_of
from scans import UP, numbers, record, write_stack

from anomalib_medclip.cli import main
from anomalib_medclip.errors import MedclipError


def broken(folder, seed):
    paths = write_stack(folder, numbers((3, 6, 5)), UP)
    return paths, break_headers(paths, seed)


def sound(home, seed):
    """Whether DICOM is made of a series with faults; sound in any case, or with a reason."""
    paths, faults = broken(home / "ct", seed)
    try:
        results = results_of(home / "out", paths)
    except MedclipError:  # they make it several series, or no picture
        return False
    there = {path.name for path in (home / "out").iterdir()}
    for name in NAMES:
        said = results.made[name]
        assert (said == "written") == (name in there), (seed, faults)
        assert said == "written" or "give --no-dicom" in said, (seed, faults)
    assert errors_in(home / "out") == [], (seed, faults)
    return bool(there)


@needs_dciodvfy
def test_what_is_written_is_sound(tmp_path):
    assert sum(sound(tmp_path / str(seed), seed) for seed in range(12)) >= 5


@needs_dciodvfy
@pytest.mark.nightly(also="tests/score/test_broken_headers.py::test_what_is_written_is_sound")
@pytest.mark.parametrize("block", range(4))
def test_what_is_written_is_sound_of_more(tmp_path, block):
    seeds = range(1000 + 100 * block, 1100 + 100 * block)
    assert sum(sound(tmp_path / str(seed), seed) for seed in seeds) >= 30


def test_a_score_is_there_or_the_reason_why_it_cannot_be(finished, tmp_path):
    seeds = range(20, 28)
    for seed in seeds:
        broken(tmp_path / "in" / f"ct{seed}", seed)
    out = tmp_path / "out"
    command = ["score", str(tmp_path / "in"), "--ckpt", str(finished), "--out", str(out)]
    main([*command, "--intensity", "[0, 1000]", "--worst", "1"])
    table = pd.read_csv(out / "scores.csv", keep_default_na=False)
    scored = table[table["status"] == "scored"]
    assert len(scored) >= len(seeds) / 2
    for row in table.itertuples():
        if row.status != "scored":
            assert row.error, row
            continue
        folder = out / row.name
        assert np.isfinite(nib.load(folder / "map.nii.gz").get_fdata()).all()
        said = record(folder)
        assert said["score"] == pytest.approx(float(row.score))
        files = said["dicom"]["files"]
        there = {path.name for path in folder.glob("*.dcm")}
        assert there == {name for name in files if files[name] == "written"}
        missing = [reason for reason in files.values() if reason.startswith("missing: ")]
        assert bool(missing) == bool(row.error)
