"""Results of a DICOM series as DICOM: map, segmentation and report, which point back to it.

They carry the patient and the study of the series, and its geometry, and nothing else of its
headers. Treat them as you treat it. Where one cannot be made, the others are, and it is said why.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomalib_medclip.errors import MedclipError, VolumeError
from anomalib_medclip.score import dicom_images
from anomalib_medclip.score.dicom_headers import Source, is_of_some_frames, source_of
from anomalib_medclip.score.dicom_images import Maker
from anomalib_medclip.score.dicom_report import Findings, report_of

logger = logging.getLogger(__name__)

MAP, SEGMENTATION, REPORT = "map.dcm", "segmentation.dcm", "report.dcm"

WRITTEN = "written"
_NONE = "none: {}"  # as it should be
_MISSING = "missing: {}"  # and it should be there
_OF_SOME_FRAMES = "DICOM maps point to whole files, and only some frames of some were scored"


class DicomResults:
    """What is written as DICOM of one series.

    Args:
        where: Name of the series, for messages.

    Attributes:
        source: What the files may say of the series; ``None`` until it was looked at, or if they
            cannot be made.
        made: What became of each file, by its name: ``written``, or why not, after ``none:`` where
            it should not be, after ``missing:`` where it should.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self.source: Source | None = None
        self.made: dict[str, str] = {}

    def check(self, headers: Sequence[Any]) -> None:
        """Look up all that the files need, and tell what is missing; no pixel is needed for it.

        Args:
            headers: Headers of the slices, in their order, as ``dicom.read_series`` gives them.
        """
        try:
            if is_of_some_frames(headers):
                self._without(_NONE.format(_OF_SOME_FRAMES))
            else:
                self.source = source_of(headers, self.where)
        except VolumeError as error:
            logger.warning("%s", error)
            self._without(_MISSING.format(error))
        except Exception as error:  # whatever stands in the file; reading did not need it
            msg = (
                f"no DICOM files can be made for {self.where}, since a header says what cannot be "
                f"understood ({type(error).__name__}); map and scores are written all the same; "
                "repair it, or give --no-dicom"
            )
            logger.warning("%s", msg)
            self._without(_MISSING.format(msg))
        for note in self.source.notes if self.source else ():
            logger.info("%s, in its DICOM files: %s", self.where, note)

    def _without(self, reason: str) -> None:
        self.made = dict.fromkeys((MAP, SEGMENTATION, REPORT), reason)

    def write(
        self,
        folder: Path,
        voxels: NDArray[np.float32],
        findings: Findings,
        maker: Maker,
        *,
        has_threshold: bool = True,
    ) -> None:
        """Write what can be written, and note in ``made`` what became of it.

        An empty segmentation is not written: many viewers take it for a broken file.

        Args:
            folder: Where to.
            voxels: The map, ``(slice, row, column)``; in [0, 1] if a threshold is known.
            findings: What the report says.
            maker: What has made it.
            has_threshold: Whether the model knows one of pixels; without it nothing is segmented.

        Raises:
            OSError: A file cannot be written.
        """
        if (source := self.source) is None:
            return
        make_map = partial(
            dicom_images.parametric_map, source, voxels, maker, has_threshold=has_threshold
        )
        self._save(folder / MAP, make_map)
        abnormal = voxels > dicom_images.THRESHOLD
        segmented = None
        if not has_threshold:
            self.made[SEGMENTATION] = _NONE.format("the model knows no threshold of pixels")
        elif not abnormal.any():
            words = f"no voxel is above {dicom_images.THRESHOLD}"
            self.made[SEGMENTATION] = _NONE.format(words)
        else:
            make = partial(dicom_images.segmentation, source, abnormal, maker)
            segmented = self._save(folder / SEGMENTATION, make)
        self._save(folder / REPORT, partial(report_of, source, findings, maker, segmented))

    def _save(self, path: Path, make: Callable[[], Any]) -> Any:  # noqa: ANN401 - pydicom's
        """Write what is made, and give it; nothing, if it cannot be.

        What highdicom refuses is a fault of the headers. Its words may quote them, and go into
        tables: only those that name an attribute are passed on.
        """
        try:
            dataset = make()
            dataset.save_as(path)
        except (OSError, MemoryError):  # which no header is to blame for
            raise
        except Exception as error:
            path.unlink(missing_ok=True)
            is_plain = isinstance(error, AttributeError | MedclipError)
            reason = str(error) if is_plain else type(error).__name__
            msg = (
                f"no {path.name} can be made for {self.where}: {reason}; map and scores are "
                "written all the same; complete the headers, or give --no-dicom"
            )
            logger.warning("%s", msg)
            self.made[path.name] = _MISSING.format(msg)
            return None
        self.made[path.name] = WRITTEN
        return dataset

    def record(self) -> dict[str, Any]:
        """What ``scores.json`` says of it."""
        said = self.made[SEGMENTATION]
        return {
            "segmentation": SEGMENTATION if said == WRITTEN else said,
            "dicom": {
                "files": self.made,
                "notes": list(self.source.notes) if self.source else [],
            },
        }


def lacking(record: dict[str, Any]) -> str:
    """Why files are missing that should be there, of a record that has come back from JSON, too.

    Returns:
        The reasons in words, each once; nothing if all are there.
    """
    said = dict.fromkeys(record.get("dicom", {}).get("files", {}).values())
    mark = _MISSING.format("")
    return "; ".join(one.removeprefix(mark) for one in said if one.startswith(mark))
