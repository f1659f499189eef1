"""DICOM made of a series without a model, and what Debian's dciodvfy says of it."""

import shutil
import subprocess

import numpy as np
import pytest

from anomalib_medclip.readers.dicom import read_series
from anomalib_medclip.score.dicom_images import Maker
from anomalib_medclip.score.dicom_out import DicomResults
from anomalib_medclip.score.dicom_report import Findings, Measurement, Statement

NAMES = ("map.dcm", "segmentation.dcm", "report.dcm")

needs_dciodvfy = pytest.mark.skipif(
    not shutil.which("dciodvfy"), reason="Debian's dicom3tools is not installed"
)

FINDINGS = Findings(
    [Statement("verdict", "Verdict of the model", "abnormal")],
    [
        Measurement("score", "Anomaly score of the volume", 0.712345678901234567),
        Measurement("region", "Size of a region", 12.5, "mm3"),
        Measurement("slice-score", "Anomaly score of a slice", 0.5, slice=1),
    ],
)


def results_of(folder, paths, seed="model and input", findings=FINDINGS):
    """Write results of a series of some map into a folder, and say what became of them."""
    results = DicomResults("ct")
    series = read_series(paths, (0.0, 1000.0), on_headers=results.check)
    voxels = np.random.default_rng(0).random(series.voxels.shape).astype(np.float32)
    folder.mkdir()
    results.write(folder, voxels, findings, Maker("MVFA", seed))
    return results


def errors_in(folder):
    """The errors of the DICOM files of a folder, by dciodvfy; warnings are none.

    Known ones: the fourth value of ImageType, which highdicom writes and dciodvfy does not know,
    a Laterality that is empty because nobody knows it, our own scheme of codes, and what is empty
    in the series, too.
    """
    found = []
    for path in sorted(folder.glob("*.dcm")):
        command = ["dciodvfy", str(path)]
        done = subprocess.run(command, capture_output=True, check=False)
        lines = done.stderr.decode(errors="replace").splitlines()
        assert len(lines) > 0, "it names the kind of file, at least"
        found += [f"{path.name}: {line}" for line in lines if line.startswith(("Error", "Abort"))]
    return found
