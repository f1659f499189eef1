"""The planes that volumes are cut along, and how pictures of them are turned."""

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor

logger = logging.getLogger(__name__)

Plane = Literal["axial", "coronal", "sagittal"]
"""How a volume is cut."""

AXES: dict[Plane, str] = {"axial": "PLS", "coronal": "ILP", "sagittal": "IPL"}
"""Where rows, columns and slices go. As radiologists look at them: from the feet or from the front,
the patient's right on the left of the picture; or from the patient's left."""

_ENDS = (("L", "R"), ("P", "A"), ("I", "S"))
_ACROSS: tuple[Plane, ...] = ("sagittal", "coronal", "axial")  # right, front and head


def turn_of(image: "MetaTensor", asked: Plane, keys: Iterable[str]) -> Any:  # noqa: ANN401 - MONAI's
    """What turns volumes so that their last axis leads from slice to slice.

    Args:
        image: ``(1, i, j, k)``. If it is one voxel thick it is one picture, as it lies.
        asked: The plane of any other.
        keys: Of the image, and of what is turned with it.
    """
    from monai.transforms.spatial.dictionary import Orientationd
    from nibabel.orientations import io_orientation

    plane = asked
    if 1 in (sides := image.shape[1:]):
        plane = _ACROSS[int(io_orientation(image.affine.numpy())[sides.index(1), 0])]
    if plane != asked:
        logger.info("%s is one %s picture", image.meta["filename_or_obj"], plane)
    return Orientationd(tuple(keys), axcodes=AXES[plane], labels=_ENDS, allow_missing_keys=True)
