"""Whether an exported model gives the answer of the trained one, in figures."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.data import InferenceBatch
from jaxtyping import Float
from scipy.stats import spearmanr
from torch import Tensor

from anomalib_medclip.errors import CheckpointError, ParityError
from anomalib_medclip.export.runtimes import Run
from anomalib_medclip.files import read_json, sha256

TOLERANCE = 1e-4
"""Largest difference of a score or a pixel, of the range of the maps where that is below 1."""

ROUNDING = 1e-6
"""What a method's own score may differ by, before it is put on the scale of its threshold.

That scale is the range of the validation's scores: a narrow one enlarges float32's rounding.
"""

BATCHES = (1, 3)
"""Images are run in batches of these sizes."""


def read_certificate(path: Path) -> dict[str, Any]:
    """What stands beside an exported model, once its files are those that it certifies.

    Args:
        path: The model file.

    Raises:
        CheckpointError: There is no certificate, or it is of other files.
        DamagedFileError: The certificate is no JSON.
    """
    certificate = path.with_suffix(".json")
    if not certificate.is_file():
        msg = f"{certificate} is missing; export the model again, or copy it together with {path}"
        raise CheckpointError(msg)
    paper: dict[str, Any] = read_json(certificate)
    for name, expected in paper["files"].items():
        file = path.parent / name
        beside = file.parent == path.parent and file.is_file()  # no pipe, nothing elsewhere
        if not beside or sha256(file) != expected:
            msg = f"{file} is not the file that {certificate} certifies; export again"
            raise CheckpointError(msg)
    return {**paper, "method": paper["model"]}


@dataclass(frozen=True)
class Differences:
    """How far an exported model is from the trained one on some images.

    Attributes:
        map: Largest difference of a pixel.
        score: Largest difference of an image score.
        labels: How many images have another label, those on the threshold itself left out.
        rank_correlation: Spearman's correlation of the pixels of a map; the lowest of all images.
        allowed: Largest difference that passes for the same: ``TOLERANCE`` times the range of the
            trained model's maps, or times 1 where that is larger.
        allowed_score: The same for scores, but at least ``ROUNDING`` on the threshold's scale.
    """

    map: float
    score: float
    labels: int
    rank_correlation: float
    allowed: float
    allowed_score: float


@dataclass(frozen=True)
class Bound:
    """What a compressed model must still satisfy.

    Attributes:
        rank_correlation: At least this in every image.
        score: At most this difference of an image score.
    """

    rank_correlation: float
    score: float


def run_in_batches(
    run: Run, images: Float[Tensor, "image 3 side side"], size: int
) -> InferenceBatch:
    """Outputs for all images, computed in batches of this size."""
    parts = [run(part) for part in images.split(size)]
    joined = [None if part[0] is None else torch.cat(part) for part in zip(*parts, strict=True)]
    return InferenceBatch(*joined)


def compare(
    expected: InferenceBatch,
    exported: Run,
    images: Float[Tensor, "image 3 side side"],
    threshold: float = 0.5,
    spread: float = 1.0,
) -> Differences:
    """Run images through an exported model, one by one and in threes, and take the worst.

    Args:
        expected: What the trained model says of the images, one by one.
        exported: The exported model.
        images: RGB in [0, 1] at the model's size.
        threshold: Score above which an image is abnormal. A score that lies closer to it than what
            passes for the same may fall to either side, and does where the threshold is that of an
            image that is compared.
        spread: Range of the method's own scores that the threshold's scale has for 1.
    """
    runs = (run_in_batches(exported, images, size) for size in BATCHES)
    found = [_differences(expected, one, threshold, ROUNDING / spread) for one in runs]
    # Tensors, whose extremes of anything and NaN are NaN: what is not a number never passes.
    worst = torch.tensor([[f.map, f.score, f.labels, -f.rank_correlation] for f in found])
    of_map, of_score, labels, ranks = worst.double().amax(dim=0).tolist()
    known = found[0]
    return Differences(of_map, of_score, int(labels), -ranks, known.allowed, known.allowed_score)


def rank_correlations(
    expected: Float[Tensor, "image *pixels"], found: Float[Tensor, "image *pixels"]
) -> list[float]:
    """Spearman's correlation of the pixels of each map with the expected ones; NaN for a flat map.

    Example:
        >>> rank_correlations(torch.tensor([[0.1, 0.2, 0.4]]), torch.tensor([[1.0, 5.0, 3.0]]))
        [0.5]
    """
    pairs = zip(expected.flatten(1).float(), found.flatten(1).float(), strict=True)
    return [float(spearmanr(mine, theirs).statistic) for mine, theirs in pairs]


def as_figures(differences: Differences) -> dict[str, Any]:
    """Differences by name; ``None`` is the rank correlation of a flat map, which has none."""
    return {n: v if math.isfinite(v) else None for n, v in asdict(differences).items()}


def check(differences: Differences, bound: Bound | None = None) -> dict[str, Any]:
    """Figures of an export that passes.

    Args:
        differences: What was measured.
        bound: What a compressed model must satisfy; ``None`` for one that must be the same.

    Raises:
        ParityError: The exported model is another one.
    """
    found = as_figures(differences)
    if bound is None:
        passed = differences.map <= differences.allowed
        passed = passed and differences.score <= differences.allowed_score
        passed = passed and differences.labels == 0
        wanted = f"map within {differences.allowed:.1e}, score within "
        wanted += f"{differences.allowed_score:.1e} and equal labels"
    else:
        passed = differences.rank_correlation >= bound.rank_correlation
        passed = passed and differences.score <= bound.score
        wanted = f"rank correlation >= {bound.rank_correlation} and scores within {bound.score}"
        found["bound"] = asdict(bound)
        del found["allowed"], found["allowed_score"]
    if not passed:
        msg = (
            f"the exported model differs from the trained one: map by {differences.map:.1e}, score "
            f"by {differences.score:.1e}, {differences.labels} labels, rank correlation "
            f"{differences.rank_correlation:.4f}; wanted were {wanted}. Nothing was written. "
            "Export with another version of the runtime, or without compression"
        )
        raise ParityError(msg)
    return found


def _differences(
    expected: Any,  # noqa: ANN401 - fields not None
    found: Any,  # noqa: ANN401 - likewise
    threshold: float,
    step: float,
) -> Differences:
    maps = expected.anomaly_map.flatten(1), found.anomaly_map.flatten(1)
    labels = expected.pred_label, found.pred_label  # none without a threshold
    allowed = TOLERANCE * min(1.0, float(maps[0].max() - maps[0].min()))
    allowed_score = max(allowed, step)
    apart = (expected.pred_score - threshold).abs() > allowed_score
    return Differences(
        map=float((maps[0] - maps[1]).abs().max()),
        score=float((expected.pred_score - found.pred_score).abs().max()),
        labels=0 if labels[0] is None else int(((labels[0] != labels[1]) & apart).sum()),
        rank_correlation=float(np.min(rank_correlations(*maps))),
        allowed=allowed,
        allowed_score=allowed_score,
    )


def number(value: Tensor) -> float | None:
    """A number for JSON, which has no NaN."""
    return float(value) if value.isfinite() else None
