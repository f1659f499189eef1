"""How numbers of any depth become intensities in [0, 1]; nothing else here decides it."""

from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict, cast

import numpy as np
from numpy.typing import NDArray

from anomalib_medclip.errors import IntensityError

CTWindow = Literal[
    "abdomen", "bone", "brain", "liver", "lung", "mediastinum", "spine", "stroke", "subdural"
]
"""Usual windows of computed tomography."""

CT_WINDOWS: dict[str, tuple[float, float]] = {
    "abdomen": (50, 400),
    "bone": (400, 1800),
    "brain": (40, 80),
    "liver": (30, 150),
    "lung": (-600, 1500),
    "mediastinum": (50, 350),
    "spine": (50, 250),
    "stroke": (40, 40),
    "subdural": (75, 215),
}
"""Their centre and width in Hounsfield units."""


class _Background(TypedDict, total=False):
    """What becomes of numbers that are none: by default they are refused."""

    nan: Literal["background"]


class Window(_Background):
    """A window by its centre and width, as radiologists give it."""

    centre: float
    width: float


class Percentiles(_Background):
    """A window by percentiles of the numbers above zero, for MRI, whose numbers have no unit."""

    percentiles: tuple[float, float]


class Limits(_Background):
    """A policy by its name or its two numbers, where more is said than these."""

    window: Literal["unit"] | CTWindow | tuple[float, float]


IntensityPolicy: TypeAlias = (
    Literal["dtype", "unit", "voi"]
    | CTWindow
    | tuple[float, float]
    | Window
    | Percentiles
    | Limits
    | None
)
"""How numbers of more than 8 bits reach [0, 1]. Each maps a window to [0, 1] and saturates outside:
``(low, high)``; ``{"centre": c, "width": w}``, or the name of a CT window; ``{"percentiles":
[p, q]}`` of the numbers above zero, over a volume where there is one; ``"voi"``, the window that a
DICOM file itself has; ``"dtype"``, from zero up to the largest number the file format can hold,
which negative numbers do not fit. ``"unit"`` is for numbers that are in [0, 1] already. ``None``
refuses such images. 8-bit images are always divided by 255. NaN and infinities are refused, unless
a dictionary says ``"nan": "background"``, such as ``{"window": [0, 80], "nan": "background"}``:
then they become 0 and count in no percentile."""

POLICIES = (
    "[low, high], {centre: c, width: w}, {percentiles: [p, q]}, 'dtype' for the full range of the "
    f"file format, 'unit' for numbers in [0, 1], 'voi' for DICOM, or one of {', '.join(CT_WINDOWS)}"
)
"""The policies, for error messages."""


def apply_intensity(
    values: NDArray[Any], policy: IntensityPolicy, where: str | Path
) -> NDArray[np.float32]:
    """Apply a policy to the numbers of an image or a volume, of any shape.

    Raises:
        IntensityError: There is no policy, it does not fit the numbers, or some are not finite.

    Example:
        >>> apply_intensity(np.array([-160.0, 40.0, 300.0]), (-160.0, 240.0), "scan.nii.gz")
        array([0. , 0.5, 1. ], dtype=float32)
        >>> apply_intensity(np.array([0, 0, 1, 2, 3]), {"percentiles": (0.0, 100.0)}, "scan.nii.gz")
        array([0. , 0. , 0. , 0.5, 1. ], dtype=float32)
    """
    if policy is None:
        said = f"holds {values.dtype} numbers, which 8 bits cannot carry"
        if values.dtype == np.int8:
            said = "holds signed numbers (int8), whose black and white are not known"
        msg = (
            f"{where} {said}; set 'intensity', an option of the data and of MedicalPreProcessor, "
            f"to {POLICIES}"
        )
        raise IntensityError(msg)
    known = np.isfinite(values)
    if known.all():
        return _placed(values, policy, where)
    count = int((~known).sum())
    if not (isinstance(policy, dict) and "nan" in policy):
        named = (0.0, 1.0) if policy in ("dtype", "voi") else policy
        msg = (
            f"{where} holds {count} numbers that are not finite (NaN or infinite); if they are "
            f"background, set 'intensity' to such as {with_nan_as_background(named)}, for "
            "`anomalib-medclip score` by --nan background"
        )
        raise IntensityError(msg)
    placed = np.zeros(values.shape, dtype=np.float32)
    if count < values.size:
        placed[known] = _placed(values[known], policy, where)
    return placed


def with_nan_as_background(policy: IntensityPolicy) -> IntensityPolicy:
    """The same policy, by which NaN and infinities become 0, where numbers of its kind have any.

    Example:
        >>> with_nan_as_background((0.0, 80.0))
        {'window': (0.0, 80.0), 'nan': 'background'}
    """
    if policy in (None, "dtype", "voi"):
        return policy
    named: Any = policy if isinstance(policy, dict) else {"window": policy}
    said: Any = {**named, "nan": "background"}
    return cast(IntensityPolicy, said)


def _placed(
    values: NDArray[Any], policy: IntensityPolicy, where: str | Path
) -> NDArray[np.float32]:
    """Numbers in their window."""
    try:
        low, high = _window(values, policy, where)
    except (TypeError, ValueError) as error:  # words where numbers should be
        if isinstance(error, IntensityError):
            raise
        msg = f"{policy!r} is no intensity policy; give {POLICIES}"
        raise IntensityError(msg) from error
    if not (np.isfinite([low, high]).all() and low < high):
        msg = f"the intensity window [{low}, {high}] of {where} is empty; give one with low < high"
        raise IntensityError(msg)
    placed = values.astype(np.float64)
    placed -= low  # in place: a volume is large
    placed /= high - low
    return np.clip(placed, 0, 1, out=placed).astype(np.float32)


def window_of_16_bits(policy: IntensityPolicy) -> tuple[float, float] | None:
    """What a policy makes 0 and 1 in images of 16 bits; ``None`` where that depends on the image.

    Example:
        >>> window_of_16_bits("dtype"), window_of_16_bits("brain"), window_of_16_bits("voi")
        ((0.0, 65535.0), (0.0, 80.0), None)
    """
    if policy in (None, "voi") or (isinstance(policy, dict) and "percentiles" in policy):
        return None
    return _window(np.zeros(1, np.uint16), policy, "an image")


def _window(
    values: NDArray[Any],
    policy: Any,  # noqa: ANN401 - checked here
    where: str | Path,
) -> tuple[float, float]:
    """What becomes 0 and what becomes 1."""
    if isinstance(policy, dict) and policy.get("nan", "background") == "background":
        policy = {key: value for key, value in policy.items() if key != "nan"}
    if isinstance(policy, dict) and policy.keys() == {"window"}:
        policy = policy["window"]
    if isinstance(policy, str):
        return _named(values, policy, where)
    if isinstance(policy, dict) and policy.keys() == {"percentiles"}:
        return _percentiles(values, policy["percentiles"], where)
    if isinstance(policy, dict) and policy.keys() == {"centre", "width"}:
        return policy["centre"] - policy["width"] / 2, policy["centre"] + policy["width"] / 2
    if isinstance(policy, tuple | list) and len(policy) == 2:
        return float(policy[0]), float(policy[1])
    msg = f"{policy!r} is no intensity policy; give {POLICIES}"
    raise IntensityError(msg)


def _percentiles(values: NDArray[Any], asked: Any, where: str | Path) -> tuple[float, float]:  # noqa: ANN401
    if len(asked) != 2 or not 0 <= asked[0] < asked[1] <= 100:
        msg = f"{asked} are no percentiles of {where}; give [p, q] with 0 <= p < q <= 100"
        raise IntensityError(msg)
    above = values[values > 0]
    if not above.size:
        msg = f"{where} holds no number above zero, so it has no percentiles; take it out"
        raise IntensityError(msg)
    low, high = np.percentile(above, asked)
    if not low < high:
        msg = f"the percentiles {asked} of {where} are both {low}: it shows nothing; take it out"
        raise IntensityError(msg)
    return float(low), float(high)


def _named(values: NDArray[Any], policy: str, where: str | Path) -> tuple[float, float]:
    if policy in CT_WINDOWS:
        centre, width = CT_WINDOWS[policy]
        return centre - width / 2, centre + width / 2
    if policy == "dtype" and np.issubdtype(values.dtype, np.integer) and values.min() >= 0:
        return 0.0, float(np.iinfo(values.dtype).max)
    if policy == "unit" and values.min() >= 0 and values.max() <= 1:
        return 0.0, 1.0
    reasons = {
        "dtype": f"holds {values.dtype} numbers from {values.min()}, and 'dtype' needs integers "
        "that are not negative",
        "unit": f"holds numbers from {values.min()} to {values.max()}, which are not in [0, 1]",
        "voi": "has no window of its own, as only DICOM files have",
    }
    reason = reasons.get(policy, f"cannot be read by {policy!r}, which is no intensity policy")
    msg = f"{where} {reason}; give {POLICIES}"
    raise IntensityError(msg)
