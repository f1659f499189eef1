"""The planes that volumes are cut along, and how pictures of them are turned."""

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from anomalib_medclip.readers.flat import AXES, ENDS, Plane, plane_of

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor

logger = logging.getLogger(__name__)


def turn_of(image: "MetaTensor", asked: Plane, keys: Iterable[str]) -> Any:  # noqa: ANN401 - MONAI's
    """What turns volumes so that their last axis leads from slice to slice.

    Args:
        image: ``(1, i, j, k)``. If it is one voxel thick it is one picture, as it lies.
        asked: The plane of any other.
        keys: Of the image, and of what is turned with it.
    """
    from monai.transforms.spatial.dictionary import Orientationd

    plane = plane_of(image.affine.numpy(), tuple(image.shape[1:]), asked)
    if plane != asked:
        logger.info("%s is one %s picture", image.meta["filename_or_obj"], plane)
    return Orientationd(tuple(keys), axcodes=AXES[plane], labels=ENDS, allow_missing_keys=True)
