"""MONAI transforms of a user's own, between the reader and the cut.

They are named by class path and plain options, as configs name classes, so that a checkpoint can
hold them. Which classes a file may name is said here: none that reads, writes or runs anything.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import torch

from anomalib_medclip.errors import (
    ConfigError,
    IntensityError,
    MaskError,
    MedclipError,
    VolumeError,
)
from anomalib_medclip.readers.lesion import IGNORED, LESION
from anomalib_medclip.readers.size_limit import check_voxels

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor

TransformSpec: TypeAlias = dict[str, Any]
"""A transform: ``class_path``, such as ``monai.transforms.MedianSmooth``, and ``init_args``."""

_MONAI = "monai.transforms"
_HARMLESS = ("croppad", "intensity", "post", "smooth_field", "spatial")
"""Rooms of MONAI's transforms that change voxels and nothing else."""

_ROUNDED = 1e-5  # by which sums of numbers in [0, 1] may leave it


def is_harmless(spec: Any) -> bool:  # noqa: ANN401 - whatever a file says
    """Whether a transform that a file names is one of MONAI's that change voxels and nothing else.

    Example:
        >>> is_harmless({"class_path": "monai.transforms.MedianSmooth"})
        True
        >>> is_harmless({"class_path": "monai.transforms.SaveImage"})
        False
    """
    module, _, name = str(spec.get("class_path") if isinstance(spec, dict) else "").rpartition(".")
    if module != _MONAI:
        return False
    home = str(getattr(getattr(import_module(_MONAI), name, None), "__module__", ""))
    return home.removeprefix(f"{_MONAI}.").partition(".")[0] in _HARMLESS


def build_transforms(specs: Sequence[TransformSpec]) -> list[Any]:
    """Make transforms of MONAI's kind.

    Raises:
        ConfigError: A class is not there, is random or no transform, or takes other options.
    """
    return [_built(spec) for spec in specs]


def _built(spec: TransformSpec) -> Any:  # noqa: ANN401 - a transform
    from monai.transforms.traits import RandomizableTrait
    from monai.transforms.transform import MapTransform, Transform

    if not isinstance(spec, Mapping) or not spec.keys() <= {"class_path", "init_args"}:
        msg = f"the transform {spec!r} is none; give it as class_path and init_args"
        raise ConfigError(msg)
    path = str(spec.get("class_path", ""))
    module, _, name = path.rpartition(".")
    try:
        one = getattr(import_module(module), name)(**spec.get("init_args") or {})
    except Exception as error:  # whatever a module or constructor of anyone's raises
        msg = f"the transform {path!r} cannot be made: {error}; correct its class_path or init_args"
        raise ConfigError(msg) from error
    if not isinstance(one, Transform) or isinstance(one, RandomizableTrait):
        wrong = "is no transform of MONAI's kind" if not isinstance(one, Transform) else "is random"
        msg = f"the transform {path} {wrong}; give one that does the same to a volume each time"
        raise ConfigError(msg)
    if isinstance(one, MapTransform):
        one.allow_missing_keys = True  # not every volume has masks and organs, and no map has
    return one


def transformed(
    specs: Sequence[TransformSpec], found: Mapping[str, "MetaTensor"], where: str
) -> tuple[dict[str, "MetaTensor"], list[Any]]:
    """Volumes as transforms leave them, and those that have to be inverted to take maps back.

    Args:
        specs: The transforms. A dictionary transform of MONAI (its name ends in d) changes the
            volumes that its ``keys`` name, any other the image alone.
        found: ``image`` in [0, 1], and ``mask`` and ``organ`` where there are, ``(1, i, j, k)``.
        where: What messages call the volume.

    Raises:
        ConfigError: See ``build_transforms``.
        ImageReadError: A volume would be too large.
        VolumeError: A transform fails, or moves voxels and cannot be inverted.
        IntensityError: The image leaves [0, 1].
        MaskError: A mask is no longer of the labels that it had.
    """
    from monai.transforms.inverse import InvertibleTransform
    from monai.transforms.transform import MapTransform

    now, inverted = dict(found), []
    for spec, one in zip(specs, build_transforms(specs), strict=True):
        path, by_key = spec["class_path"], isinstance(one, MapTransform)
        before = now
        try:
            _check_size(one, now, where, by_key=by_key)
            made = one(dict(now)) if by_key else {**now, "image": one(now["image"])}
            now = {key: _placed(made[key], before[key]) for key in before}
        except MedclipError:
            raise
        except Exception as error:  # whatever a transform of anyone's raises
            msg = f"{where}: the transform {path} fails: {error}; correct transforms"
            raise VolumeError(msg) from error
        if by_key and isinstance(one, InvertibleTransform):
            inverted.append(one)
        elif not all(_same_place(now[key], before[key]) for key in now):
            msg = (
                f"{where}: the transform {path} moves voxels, and maps could not be taken back; "
                "use a dictionary transform of MONAI that can be inverted, such as Spacingd"
            )
            raise VolumeError(msg)
    return {key: _checked(key, one, where) for key, one in now.items()}, inverted


def _check_size(one: Any, now: Mapping[str, "MetaTensor"], where: str, *, by_key: bool) -> None:  # noqa: ANN401
    """Refuse a grid that would be too large, as far as a transform can say so beforehand."""
    from monai.transforms.traits import LazyTrait

    lazily: Any = one
    if isinstance(one, LazyTrait):
        copies: Any = {key: volume.clone() for key, volume in now.items()}
        planned: Any = (
            lazily(copies, lazy=True) if by_key else {"image": lazily(copies["image"], lazy=True)}
        )
        for volume in planned.values():
            check_voxels(where, *map(int, volume.peek_pending_shape()))


def _placed(value: Any, before: "MetaTensor") -> "MetaTensor":  # noqa: ANN401 - of any making
    """A volume, that lies where it did if the transform does not say."""
    from monai.data.meta_tensor import MetaTensor

    if isinstance(value, MetaTensor):
        return value
    made = MetaTensor(torch.as_tensor(np.asarray(value)), meta=before.meta)
    made.applied_operations = before.applied_operations
    return made


def _same_place(one: "MetaTensor", other: "MetaTensor") -> bool:
    return one.shape == other.shape and torch.equal(one.affine, other.affine)


def _checked(key: str, one: "MetaTensor", where: str) -> "MetaTensor":
    """A volume of one channel, in the range that it should have."""
    if one.ndim != 4 or one.shape[0] != 1 or not one.numel() or one.pending_operations:
        msg = f"{where} is of shape {tuple(one.shape)} after its transforms; keep one channel and "
        raise VolumeError(msg + "three axes, and no lazy ones")
    low, high = float(one.min()), float(one.max())
    if key != "image":
        if not torch.isin(one.as_tensor(), torch.tensor([0.0, LESION, IGNORED])).all():
            msg = f"the {key} of {where} is not of whole labels after its transforms; use mode "
            raise MaskError(msg + "nearest")
        return cast("MetaTensor", one.float())
    if not (low >= -_ROUNDED and high <= 1 + _ROUNDED):
        msg = (
            f"{where} has numbers from {low:g} to {high:g} after its transforms; end them in [0, 1]"
        )
        raise IntensityError(msg + ", for example by monai.transforms.ScaleIntensity")
    return cast("MetaTensor", one.float().clamp(0, 1))
