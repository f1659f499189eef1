"""What a certificate says: how far an exported file is from the trained model."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from anomalib.deploy.export import CompressionType
from torch import Tensor

from anomalib_medclip.clip.backbone import without_clip
from anomalib_medclip.components.finite import refuse_non_finite_state
from anomalib_medclip.components.processors import MedicalPreProcessor
from anomalib_medclip.errors import ParityError
from anomalib_medclip.export import parity
from anomalib_medclip.export.compression import BOUNDS
from anomalib_medclip.export.description import Entrance, Exportable
from anomalib_medclip.export.pictures import at_other_sizes
from anomalib_medclip.export.runtimes import Run, torch_run

logger = logging.getLogger(__name__)


class Format(NamedTuple):
    """What a file is, and how it is opened.

    Attributes:
        name: What the certificate calls it.
        open_file: Opens it as exactly as its runtime can.
        also: Other ways to open it, whose figures are noted for information.
    """

    name: str
    open_file: Callable[[Path], Run]
    also: Mapping[str, Callable[[Path], Run]] = MappingProxyType({})


def figures_of(
    method: Exportable,
    written: Path,
    format_: Format,
    probes: Tensor,
    compression: CompressionType | None,
    entrance: Entrance,
) -> dict[str, Any]:
    """What a certificate says of a file that passes, on images of each size it takes."""
    bound = BOUNDS[compression] if compression else None
    run = format_.open_file(written)
    expected = parity.run_in_batches(torch_run(method), probes, 1)
    scale = _scale_of(method.post_processor)
    differences = parity.compare(expected, run, probes, *scale)
    figures = parity.check(differences, bound)
    for way, open_so in format_.also.items():
        loose = parity.as_figures(parity.compare(expected, open_so(written), probes, *scale))
        figures[way] = {k: v for k, v in loose.items() if not k.startswith("allowed")}
    for images in at_other_sizes(probes) if entrance.any_size else []:
        wanted = parity.run_in_batches(torch_run(method), images, 1)
        size = "{} x {}".format(*images.shape[-2:])
        figures[size] = parity.check(parity.compare(wanted, run, images, *scale), bound)
    logger.info(
        "certified on %d images: map within %.1e, score within %.1e, rank correlation %.5f",
        *(len(probes), differences.map, differences.score, differences.rank_correlation),
    )
    return figures


def _scale_of(post_processor: Any) -> tuple[float, float]:  # noqa: ANN401 - anyone's
    """Threshold on the scale of scores, and the range of the method's own that it has for 1."""
    threshold = float(post_processor.normalized_image_threshold)
    spread = float(post_processor.image_max - post_processor.image_min)
    scales = post_processor.enable_normalization and spread > 0  # NaN is not
    return threshold, spread if scales else 1.0


def refuse_graph(method: Exportable) -> None:
    """Refuse a model of which no graph is made: in bf16 it would be of one runtime."""
    if method.model.clip.precision != "fp32":
        msg = "graphs are made in fp32, for any runtime: load the model with precision fp32"
        raise ParityError(msg)
    if method.model.untraceable:
        raise ParityError(method.model.untraceable)


def refuse_uncertifiable(method: Exportable) -> None:
    """Refuse models whose processors are others, or which hold NaN."""
    if not isinstance(method.pre_processor, MedicalPreProcessor) or not method.post_processor:
        msg = (
            "only a model with this package's pre-processor and a post-processor can be certified; "
        )
        msg += "leave both options out"
        raise ParityError(msg)
    refuse_non_finite_state(without_clip(method.state_dict()), "the model to export")
