"""What was found in pictures as COCO JSON, which tools for labelling and for evaluation import.

The file is a data set as COCO has it (cocodataset.org, "Data format"): ``images``, those without a
finding, too, ``categories`` and ``annotations``. Each annotation has a ``score`` besides, so that
``annotations`` alone are results as COCO has them.
"""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from anomalib_medclip.errors import ConfigError
from anomalib_medclip.files import as_json, read_json, write_whole
from anomalib_medclip.provenance import NOTICE
from anomalib_medclip.readers.picture import lesion_numbers
from anomalib_medclip.score.inferencer import Inferencer
from anomalib_medclip.score.record import former_rows, results_lock

logger = logging.getLogger(__name__)

COCO = "coco.json"
"""Name of the file."""

CATEGORY = {"id": 1, "name": "abnormal", "supercategory": "lesion"}
"""The one kind of finding."""


def check_outlines(inferencer: Inferencer) -> None:
    """Refuse a model that outlines nothing, since every image of its would seem to be healthy.

    Raises:
        ConfigError: It knows no threshold of pixels.
    """
    if not inferencer.has_pixel_threshold:
        msg = "the model knows no threshold of pixels, since its validation had no masks, so that "
        msg += "nothing can be outlined; leave --coco out, or train it on data with masks"
        raise ConfigError(msg)


def write_coco(out: Path, model: Mapping[str, Any], threshold: float) -> Path:
    """Write ``coco.json`` of all pictures that one model has scored into a folder.

    Args:
        out: Folder of all results, with their table.
        model: What results say of it, as ``describe_model`` gives it. Those of other models and
            those of volumes, whose slices are no files, are left out, which is said in the log.
        threshold: A pixel above it belongs to a finding.
    """
    with results_lock(out):
        names = former_rows(out)["name"]
        there = {name: read_json(out / name / "scores.json") for name in names}
        ours = {k: one for k, one in there.items() if one["provenance"]["model"] == model["model"]}
        pictures = {k: one for k, one in ours.items() if (out / k / "map.tiff").is_file()}
        _say_what_is_missing(len(there) - len(ours), len(ours) - len(pictures))
        about = {"description": f"anomalib-medclip; {NOTICE}", "pixel_threshold": threshold}
        content = {
            "info": {**about, "model": model["model"], "versions": model["versions"]},
            "licenses": [],
            **_content(out, pictures, threshold),
        }
        write_whole(out / COCO, as_json(content, ensure_ascii=False) + "\n")
    return out / COCO


def _say_what_is_missing(of_others: int, volumes: int) -> None:
    if of_others:
        logger.warning("%s has no results of other models, of which there are %d", COCO, of_others)
    if volumes:
        advice = "%s has no volumes, of which there are %d: cut them by 'anomalib-medclip slice'"
        logger.warning(advice, COCO, volumes)


def _content(out: Path, pictures: Mapping[str, Any], threshold: float) -> dict[str, Any]:
    """Images, categories and annotations."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for name, said in pictures.items():
        with Image.open(out / name / "map.tiff") as opened:
            heat = np.asarray(opened)
        images.append(_image(len(images) + 1, said, heat.shape))
        for region in findings(heat, threshold):
            about = {"id": len(annotations) + 1, "image_id": len(images), "iscrowd": 0}
            annotations.append({**about, "category_id": CATEGORY["id"], **region})
    return {"images": images, "categories": [CATEGORY], "annotations": annotations}


def _image(number: int, said: Mapping[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
    height, width = shape
    return {
        "id": number, "file_name": said["input"], "width": width, "height": height,
        "score": said["score"], "label": said["label"],
    }  # fmt: skip


def findings(heat: NDArray[np.float32], threshold: float) -> Iterator[dict[str, Any]]:
    """Each connected region above a threshold, with what COCO says of one.

    Args:
        heat: How abnormal each pixel is.
        threshold: A pixel above it belongs to a region.

    Yields:
        ``segmentation``, ``bbox`` as left, top, width and height, ``area`` in pixels, and as
        ``score`` the highest value of the map in the region.

    Example:
        >>> heat = np.zeros((4, 6), dtype=np.float32)
        >>> heat[1:3, 2:5] = 0.75
        >>> next(findings(heat, 0.5))
        {'segmentation': [[2, 1, 2, 3, 5, 3, 5, 1]], 'bbox': [2, 1, 3, 2], 'area': 6, 'score': 0.75}
    """
    numbers = lesion_numbers(heat > threshold)
    for number, (rows, columns) in enumerate(ndimage.find_objects(numbers), start=1):
        region = numbers[rows, columns] == number
        left, top = columns.start, rows.start
        corner = np.array([left, top])
        yield {
            "segmentation": [(one + corner).ravel().tolist() for one in outlines(region)],
            "bbox": [left, top, columns.stop - left, rows.stop - top],
            "area": int(region.sum()),
            "score": float(heat[rows, columns][region].max()),
        }


def outlines(region: NDArray[np.bool_]) -> Iterator[NDArray[np.int32]]:
    """Polygons ``(corner, 2)`` along the edges of pixels; together they are the region exactly.

    A polygon of COCO's has no hole, and OpenCV's go through the middle of pixels. So a region is
    cut through its holes, and of each pixel OpenCV is given four, of which the outer ones lie where
    its corners are.
    """
    import cv2  # only for who wants outlines; the import takes a while

    for part in _without_holes(region):
        doubled = np.kron(part, np.ones((2, 2), dtype=np.uint8))
        found, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        [contour] = found
        yield _corners(((contour[:, 0] + 1) // 2).astype(np.int32))


def _without_holes(region: NDArray[np.bool_]) -> Iterator[NDArray[np.uint8]]:
    """Parts of a region, each connected by edges and without a hole."""
    waiting = [region]
    while waiting:
        numbers, count = ndimage.label(waiting.pop())
        for number in range(1, count + 1):
            part = numbers == number
            holes = ndimage.binary_fill_holes(part) & ~part
            if not holes.any():
                yield part.astype(np.uint8)
                continue
            columns = np.flatnonzero(holes.any(axis=0))
            left, right = part.copy(), part.copy()
            left[:, columns[len(columns) // 2] :] = False
            right[:, : columns[len(columns) // 2]] = False
            waiting += [left, right]


def _corners(points: NDArray[np.int32]) -> NDArray[np.int32]:
    """Points of a closed path along edges without those that it does not turn at."""
    points = points[(points != np.roll(points, 1, axis=0)).any(axis=1)]
    turns = (points - np.roll(points, 1, axis=0)) != (np.roll(points, -1, axis=0) - points)
    return points[turns.any(axis=1)]
