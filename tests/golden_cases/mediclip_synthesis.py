"""The arrays of MediCLIP's ``synthesis.npz``: computed by this package, or inputs.

The authors' draws are inputs, so that every number that follows from them can be compared.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from anomalib_medclip.models.mediclip.masks import (
    Patch,
    Shape,
    perlin_mask,
    perlin_noise,
    rotate,
)
from anomalib_medclip.models.mediclip.tasks import (
    add_texture,
    changed_pixels,
    crop_box,
    deform,
    hard_paste,
    intensity_texture,
    source_mapping,
    warp_crop,
)

INPUTS = (
    r"perlin\d_(angles|rotate_deg)"
    r"|gauss\d_(image|mask|corner|noise|sigma_b|u0|sigma_edge)"
    r"|source\d_(kind|image|corner|shape|trans_matrix|centre|factor)"
    r"|cutpaste\d_(image|source|source_crop|matrix|mask|corner)"
)
"""Names of arrays that are draws, or images."""

TOLERANCES = [
    (r"perlin\d_(noise|rotated)", 1e-12),
    (r"gauss\d_texture|source\d_mapping|gauss\d_out_float", 1e-11),
    (r"perlin\d_mask|gauss\d_out_uint8|source\d_(mask|out_uint8)|cutpaste\d_.*", 0.0),
]
"""Largest error of the arrays whose names match. The splines and OpenCV's rotation have given the
same numbers from scipy 1.10 to 1.17 and from OpenCV 4.6 to 5.0."""

Computed = Iterator[tuple[str, np.ndarray]]


def computed(case_dir: Path) -> Computed:
    """Every array of a case that is not an input, by name."""
    golden = dict(np.load(case_dir / "synthesis.npz"))
    for number in (0, 1):
        for part in (perlin, gauss, source, cut_paste):
            prefix = f"{part.__name__.replace('_', '')}{number}_"
            given = {
                name.removeprefix(prefix): array
                for name, array in golden.items()
                if name.startswith(prefix)
            }
            for name, array in part(given):
                yield prefix + name, np.asarray(array)


def perlin(given: Mapping[str, np.ndarray]) -> Computed:
    noise = perlin_noise(given["angles"], given["noise"].shape)
    yield "noise", noise
    rotated = rotate(noise, float(given["rotate_deg"]))
    yield "rotated", rotated
    yield "mask", perlin_mask(rotated)


def gauss(given: Mapping[str, np.ndarray]) -> Computed:
    texture = intensity_texture(given["noise"], float(given["sigma_b"]), float(given["u0"]))
    yield "texture", texture
    out = add_texture(given["image"], patch(given), texture, float(given["sigma_edge"]))
    yield "out_float", out
    yield "out_uint8", out.astype(np.uint8)


def source(given: Mapping[str, np.ndarray]) -> Computed:
    shape = Shape(given["kind"] == "ellipse", tuple(given["shape"]), given["trans_matrix"])
    yield "mask", shape.mask()
    mapping = source_mapping(shape, given["centre"], float(given["factor"]))
    yield "mapping", mapping
    yield "out_uint8", deform(given["image"], patch(given), mapping)


def cut_paste(given: Mapping[str, np.ndarray]) -> Computed:
    image, matrix, size = given["image"], given["matrix"], given["mask"].shape
    offset, crop_size = crop_box(matrix, size)
    assert crop_size == given["source_crop"].shape
    yield "offset", offset
    content = warp_crop(given["source_crop"], matrix, size)
    content = np.clip(content, given["source"].min(), given["source"].max())
    yield "source_to_blend", content
    out = hard_paste(image, patch(given), content)
    yield "out_uint8", out
    mask = patch(given).mask(len(image)) | (out != image)
    yield "full_mask", mask
    label = changed_pixels(image, out, mask)
    yield "label", label
    yield "label_focal", label.astype(np.int64)


def patch(given: Mapping[str, np.ndarray]) -> Patch:
    top, left = given["corner"]
    return Patch(given["mask"], (int(top), int(left)))
