"""What volumes of labels mark: lesions, what nobody knows, an organ."""

from pathlib import Path

import numpy as np

from anomalib_medclip.errors import MaskError
from anomalib_medclip.readers.lesion import MaskLabels
from anomalib_medclip.readers.volume import Volume, read_labels


def marks_of(path: Path, labels: MaskLabels) -> Volume:
    """What a mask marks, by default lesions by its one number beside 0.

    Args:
        path: See ``anomalib_medclip.readers.volume.read_labels``.
        labels: What its numbers mean.

    Returns:
        ``LESION``, ``IGNORED`` or 0 at each voxel; see ``anomalib_medclip.readers.lesion``.

    Raises:
        MaskError: Which of several numbers are lesions is not said.
    """
    found = read_labels(path, numbered=labels != MaskLabels())
    if several := labels.unclear(found.voxels):
        some = " and ".join(map(str, several[:3]))
        msg = f"{path} holds {some} beside 0, and which of them mean lesion is not said; say it by "
        msg += "'lesion_labels', an option of the source and of the data, such as [1], or all, and "
        raise MaskError(msg + "which are not known by 'ignore_labels'")
    return found._replace(voxels=labels.marks(found.voxels).astype(np.float32))


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
