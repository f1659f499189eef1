"""What volumes of labels mark: lesions, what nobody knows, an organ."""

from pathlib import Path

import numpy as np

from anomalib_medclip.errors import MaskError
from anomalib_medclip.files import is_folder
from anomalib_medclip.readers.lesion import MaskLabels, Number
from anomalib_medclip.readers.volume import Volume, read_labels, read_outlines


def marks_of(path: Path, labels: MaskLabels) -> tuple[Volume, Number | None]:
    """What a mask marks, by default lesions by its one number beside 0.

    Args:
        path: See ``anomalib_medclip.readers.volume.read_labels``.
        labels: What its numbers mean.

    Returns:
        ``LESION``, ``IGNORED`` or 0 at each voxel, see ``anomalib_medclip.readers.lesion``, and the
        number that means lesion, where that is not said.

    Raises:
        MaskError: Which of several numbers are lesions is not said.
    """
    if is_folder(path):
        found, number = read_outlines(path, labels)
        return found._replace(voxels=found.voxels.astype(np.float32)), number
    found = read_labels(path)
    if several := labels.unclear(found.voxels):
        some = " and ".join(map(str, several[:3]))
        msg = f"{path} holds {some} beside 0, and which of them mean lesion is not said; say it by "
        msg += "'lesion_labels', an option of the source and of the data, such as [1], or all, and "
        raise MaskError(msg + "which are not known by 'ignore_labels'")
    marks = labels.marks(found.voxels).astype(np.float32)
    return found._replace(voxels=marks), labels.number(found.voxels)


def organ_of(path: Path, organ_labels: tuple[int, ...]) -> Volume:
    """1 on an organ.

    Raises:
        MaskError: The volume has none of its numbers.
    """
    found = read_labels(path, numbered=True)
    chosen = np.isin(found.voxels, organ_labels)
    if not chosen.any():
        msg = f"{path} has none of the organ's labels {organ_labels}; correct organ_labels"
        raise MaskError(msg)
    return found._replace(voxels=chosen.astype(np.float32))
