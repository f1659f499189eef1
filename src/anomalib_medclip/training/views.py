"""What is drawn of an item of a batch, and of what came of it."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from anomalib_medclip.components.threshold import has_pixel_threshold, has_threshold
from anomalib_medclip.pictures.heat import HeatScale
from anomalib_medclip.pictures.outlines import resized_mask
from anomalib_medclip.pictures.view import Extent, View

_TURNED = (5, 6, 7, 8)
"""Values of EXIF's orientation by which height and width change places."""

_ORIENTATION = 0x0112


def view_of(
    item: Any,  # noqa: ANN401 - anomalib's, of torch or NumPy
    name: str,
    post_processor: Any = None,  # noqa: ANN401 - anyone's, or none
    extent: Extent | None = None,
) -> View:
    """What there is of an item, in NumPy.

    Args:
        item: ``ImageItem`` or ``NumpyImageItem``; tensors are ``(3, height, width)`` in [0, 1].
        name: In words.
        post_processor: Which knows the threshold of images; without one none is named.
        extent: Of the whole picture, which was resized to a square.
    """
    called, truth = _mask(item.pred_mask), _mask(item.gt_mask)
    if called is not None and truth is not None and called.shape != truth.shape:
        called = resized_mask(called, truth.shape[1], truth.shape[0])
    known = has_threshold(post_processor)
    return View(
        image=_pixels(item.image),
        name=name,
        heat=_heat(item.anomaly_map),
        truth=truth,
        called=called,
        score=None if item.pred_score is None else float(item.pred_score),
        decision=None if item.pred_label is None else bool(item.pred_label),
        label=None if item.gt_label is None else bool(item.gt_label),
        threshold=float(post_processor.normalized_image_threshold) if known else None,
        extent=extent,
    )


def scale_of(view: View, post_processor: Any = None) -> HeatScale | None:  # noqa: ANN401 - as above
    """The scale of a map: from 0 to 1 if pixels have a threshold, which ``called`` is by.

    anomalib scales maps so that the threshold is one half.
    """
    if view.heat is None:
        return None
    threshold = 0.5 if view.called is not None else None
    if has_pixel_threshold(post_processor):
        threshold = float(post_processor.normalized_pixel_threshold)
    return HeatScale.of(view.heat, threshold)


def extent_of(path: str | Path) -> Extent | None:
    """Height and width of a picture as it is looked at; ``None`` of what Pillow cannot open.

    Models are shown squares; the picture of a result has the shape of its file.
    """
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            is_turned = picture.getexif().get(_ORIENTATION) in _TURNED
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None  # DICOM, NIfTI, a slice that is no file: drawn as the model saw it
    return Extent(width, height) if is_turned else Extent(height, width)


def _array(values: Any) -> np.ndarray:  # noqa: ANN401 - a tensor, or an array
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _pixels(image: Any) -> UInt8[np.ndarray, "row column 3"]:  # noqa: ANN401 - as above
    """0 to 255, colours last; of images that are not in [0, 1] what is beyond is cut off."""
    values = _array(image)
    if isinstance(image, Tensor):
        values = values.transpose(1, 2, 0)
    if values.dtype != np.uint8:
        values = (values.clip(0, 1) * 255).round().astype(np.uint8)
    found: UInt8[np.ndarray, "row column 3"] = np.ascontiguousarray(
        np.broadcast_to(values, (*values.shape[:2], 3))
    )
    return found


def _mask(values: Any) -> Bool[np.ndarray, "row column"] | None:  # noqa: ANN401 - as above
    if values is None:
        return None
    flat = _array(values)
    return flat.reshape(flat.shape[-2:]).astype(bool)


def _heat(values: Any) -> Float[np.ndarray, "row column"] | None:  # noqa: ANN401 - as above
    if values is None:
        return None
    flat = _array(values)
    return flat.reshape(flat.shape[-2:]).astype(np.float32)
