"""A volume becomes pictures, and maps of the pictures become a volume again.

MONAI's dictionary transforms bring every volume into one orientation, whatever the order of its
axes, and take maps back onto the grid that the file came with. They are imported where a volume is
cut: importing MONAI takes half a second, and to read a config the options are enough.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anomalib_medclip.data.planes import turn_of
from anomalib_medclip.data.volume_labels import marks_of, organ_of
from anomalib_medclip.data.voxel_transforms import TransformSpec, transformed
from anomalib_medclip.errors import MaskError, VolumeError
from anomalib_medclip.readers.dicom import OnHeaders
from anomalib_medclip.readers.dicom_values import DicomWhere
from anomalib_medclip.readers.flat import AXES
from anomalib_medclip.readers.flat import Plane as Plane
from anomalib_medclip.readers.intensity import IntensityPolicy
from anomalib_medclip.readers.left_out import LeftOut
from anomalib_medclip.readers.lesion import LESION, MaskLabels, Number
from anomalib_medclip.readers.size_limit import check_voxels
from anomalib_medclip.readers.volume import Volume, check_same_slices, read_volume, same_grid

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor
    from monai.transforms.compose import Compose


@dataclass(frozen=True)
class Slicing:
    """How a volume is cut into pictures; what training used, scoring uses again.

    Attributes:
        plane: The plane of the pictures; what is one voxel thick is one picture, as it lies.
        spacing: Millimetres between rows, columns and slices to which the volume is resampled; by
            default it is not.
        organ_labels: Numbers of an organ in a second volume of labels, to whose box the volume is
            cropped; by default it is not.
        organ_margin: Rows and columns left around the organ; slices keep their numbers.
        slices: First and last slice along the cut, both included, counted from 0; by default all.
        transforms: What is done to the volume before it is cut, see
            ``anomalib_medclip.data.voxel_transforms``; by default nothing.

    Raises:
        VolumeError: A spacing that is not of three lengths, a margin below zero, or no slice.
    """

    plane: Plane = "axial"
    spacing: tuple[float, float, float] | None = None
    organ_labels: tuple[int, ...] | None = None
    organ_margin: int = 0
    slices: tuple[int, int] | None = None
    transforms: tuple[TransformSpec, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what no volume can be cut by."""
        if self.plane not in AXES:
            msg = f"plane {self.plane!r} is none of {', '.join(AXES)}; give one of them"
            raise VolumeError(msg)
        if self.spacing is not None and (len(self.spacing) != 3 or not min(self.spacing) > 0):
            msg = f"spacing {self.spacing} is not of three lengths; give millimetres above zero"
            raise VolumeError(msg)
        if self.organ_margin < 0:
            msg = f"organ_margin is {self.organ_margin}; give 0 or more voxels"
            raise VolumeError(msg)

        if self.slices is not None and not 0 <= self.slices[0] <= self.slices[1]:
            msg = f"slices {self.slices} are none; give the first and the last, counted from 0"
            raise VolumeError(msg)

    def numbers(self, count: int) -> range:
        """Numbers of the slices that are asked for, of a volume with ``count`` slices."""
        first, last = self.slices or (0, count - 1)
        return range(first, min(last, count - 1) + 1)

    def as_plain(self) -> dict[str, Any]:
        """The options as checkpoints and certificates hold them."""
        return asdict(self)


@dataclass(frozen=True)
class Sliced:
    """The pictures of one volume.

    Attributes:
        images: Values in [0, 1], of shape ``(slice, row, column)``.
        masks: ``LESION``, ``IGNORED`` or 0, of the same shape, where there are outlines; see
            ``anomalib_medclip.readers.lesion``.
        shown: Which slices show something: more than one value and, where the volume is cropped to
            an organ, that organ. Of a volume of one value, all.
        headers: As of ``Volume``.
        left_out: As of ``Volume``, of the volume and of what is laid on it.
        number: By which number the mask marks lesions, where that is not said.
    """

    images: Tensor
    masks: Tensor | None
    shown: Tensor
    headers: tuple[Any, ...]
    left_out: tuple[LeftOut, ...]
    number: Number | None
    _image: "MetaTensor"
    _transform: "Compose"

    @property
    def lesions(self) -> Tensor:
        """Where lesions are; none where there are no outlines."""
        return torch.zeros_like(self.images).bool() if self.masks is None else self.masks == LESION

    @property
    def picture_affine(self) -> NDArray[np.float64]:
        """From ``(row, column, slice)`` to millimetres, towards right, anterior and superior."""
        affine: NDArray[np.float64] = self._image.affine.numpy()
        return affine

    @property
    def affine(self) -> NDArray[np.float64]:
        """From voxel indices of the file to millimetres, as the reader gives it."""
        affine: NDArray[np.float64] = self._image.meta["file_affine"]
        return affine

    @property
    def aspect(self) -> float:
        """Height of a pixel, where its width is 1."""
        rows, columns = self._image.pixdim[:2].tolist()
        return float(rows / columns)

    def restore(self, maps: Tensor) -> NDArray[np.float32]:
        """Lay maps ``(slice, row, column)`` onto the grid of the file, ``(i, j, k)``.

        Axes are turned back exactly; where the volume was resampled, the maps are, too, and what
        was cropped away becomes 0.

        Raises:
            VolumeError: The maps are not of the shape of the images.
        """
        from monai.data.meta_tensor import MetaTensor

        if maps.shape != self.images.shape:
            msg = (
                f"maps are of shape {tuple(maps.shape)}, the pictures of "
                f"{tuple(self.images.shape)}; resize each to its picture first"
            )
            raise VolumeError(msg)
        voxels = maps.permute(1, 2, 0)[None].float().contiguous()
        laid = MetaTensor(voxels, meta=self._image.meta)
        laid.applied_operations = list(self._image.applied_operations)  # which inverting consumes
        restored: Any = self._transform.inverse({"image": laid})["image"]
        return np.ascontiguousarray(restored[0].numpy())


def cut(
    image: str | Path | Sequence[Path],
    intensity: IntensityPolicy = None,
    slicing: Slicing = Slicing(),
    mask: str | Path | None = None,
    labels: MaskLabels = MaskLabels(),
    organ: str | Path | None = None,
    uneven: bool = False,
    dicom_where: DicomWhere | None = None,
    on_headers: OnHeaders | None = None,
) -> Sliced:
    """Read a volume and cut it into pictures.

    Args:
        image: See ``anomalib_medclip.readers.volume.read_volume``.
        intensity: How its numbers reach [0, 1].
        slicing: How it is cut.
        mask: Labels of lesions, on the same grid.
        labels: What they mean; needed where there is more than one.
        organ: Labels of organs, on the same grid; needed where ``slicing`` crops to one.
        uneven: See ``anomalib_medclip.readers.dicom.read_series``.
        dicom_where: Chooses one of several volumes; see there.
        on_headers: Told those of the files of a series, before a pixel is read.

    Raises:
        ConfigError: ``dicom_where`` names no attribute of DICOM, or there is no such transform.
        ImageReadError: A file is missing, cut off or cannot be decoded, or the volume is too large.
        IntensityError: The policy does not fit, or numbers are not finite.
        VolumeError: The volume is not what it says.
        MaskError: Labels lie on another grid, the organ is not there, or which of several labels
            are lesions is not said.
    """
    from monai.transforms.compose import Compose

    paths: dict[str, Any] = {"image": image}
    where = image if isinstance(image, str | Path) else image[0].parent
    if mask is not None:
        paths["mask"] = mask
        check_same_slices(image, mask)
    if slicing.organ_labels:
        paths["organ"] = _given(organ, where)
    volumes = {"image": read_volume(image, intensity, uneven, dicom_where, on_headers)}
    number = None
    if mask is not None:
        volumes["mask"], number = marks_of(Path(mask), labels)
    if slicing.organ_labels and organ is not None:
        volumes["organ"] = organ_of(Path(organ), slicing.organ_labels)
    found: Any = {key: _tensor(one, paths[key]) for key, one in volumes.items()}
    found, own = transformed(slicing.transforms, found, str(where))
    turn = turn_of(found["image"], slicing.plane, paths)
    turned: Any = turn(found)
    _check_one_grid(turned)
    if slicing.spacing:
        _check_resampled(where, turned["image"], slicing.spacing)
    steps = _steps(tuple(paths), slicing)
    found = Compose(steps)(turned)
    stacks: dict[str, Tensor] = {key: found[key].as_tensor()[0].permute(2, 0, 1) for key in paths}
    images, masks, organs = stacks["image"], stacks.get("mask"), stacks.get("organ")
    return Sliced(
        images=images,
        masks=None if masks is None else masks.to(torch.uint8),
        shown=_shown(images, organs),
        headers=volumes["image"].headers,
        left_out=tuple(dict.fromkeys(out for one in volumes.values() for out in one.left_out)),
        number=number,
        _image=found["image"],
        _transform=Compose([*own, turn, *steps]),  # to take maps back
    )


def _given(organ: str | Path | None, where: str | Path) -> str | Path:
    if organ is None:
        msg = f"{where} is to be cropped to an organ, but no volume of its organs is given; give "
        raise MaskError(msg + "labels of organs (for a command, by --organ)")
    return organ


def _steps(keys: tuple[str, ...], slicing: Slicing) -> list[Any]:
    """What comes after the volumes are turned."""
    from monai.transforms.croppad.dictionary import CropForegroundd
    from monai.transforms.spatial.dictionary import Spacingd

    from anomalib_medclip.data.voxel_steps import ColumnOfd, WidenedForSpacingd

    steps: list[Any] = []
    if slicing.spacing:
        modes = ["bilinear" if key == "image" else "nearest" for key in keys]
        steps += [
            WidenedForSpacingd([key for key in keys if key != "organ"], slicing.spacing),
            Spacingd(keys, pixdim=slicing.spacing, mode=modes, allow_missing_keys=True),
        ]
    if slicing.organ_labels:
        margin = (slicing.organ_margin, slicing.organ_margin, 0)
        steps += [
            ColumnOfd("organ", "box"),
            CropForegroundd(
                keys, "box", margin=margin, allow_smaller=True, allow_missing_keys=True
            ),
        ]
    return steps


def _tensor(volume: Volume, path: str | Path | Sequence[Path]) -> "MetaTensor":
    """``(1, i, j, k)``, with its place; nothing else of a file's header goes on."""
    from monai.data.meta_tensor import MetaTensor

    voxels = torch.from_numpy(np.ascontiguousarray(volume.voxels))[None]
    affine = torch.from_numpy(volume.affine)
    meta = {"filename_or_obj": str(path), "file_affine": volume.affine}
    return MetaTensor(voxels, affine=affine, meta=meta)


def _check_one_grid(found: dict[str, "MetaTensor"]) -> None:
    """Refuse labels that lie elsewhere than the image, once all are turned the same way.

    Not a step of the pipeline: MONAI would wrap the error into one of its own.
    """
    image = found["image"]
    for labels in found.values():
        shapes = tuple(image.shape[1:]), tuple(labels.shape[1:])
        affines = image.affine.numpy(), labels.affine.numpy()
        if shapes[0] != shapes[1] or not same_grid(*affines, shape=shapes[0]):
            names = [one.meta["filename_or_obj"] for one in (labels, image)]
            msg = (
                f"{names[0]} is of shape {shapes[1]}, affine {affines[1].round(4).tolist()}; "
                f"{names[1]} is of shape {shapes[0]}, affine {affines[0].round(4).tolist()} "
                "(both turned the same way); resample the labels onto the image's grid"
            )
            raise MaskError(msg)


def _check_resampled(
    path: str | Path, image: "MetaTensor", spacing: tuple[float, float, float]
) -> None:
    """Refuse a spacing at which a volume would be too large."""
    lengths = zip(image.shape[1:], image.pixdim.tolist(), spacing, strict=True)
    sides = [ceil(count * now / wanted) if count > 1 else 1 for count, now, wanted in lengths]
    said = f"has {' x '.join(map(str, sides))} voxels at a spacing of {spacing} mm"
    check_voxels(path, *sides, said=said)


def _shown(images: Tensor, organs: Tensor | None) -> Tensor:
    whole = torch.ones(len(images)).bool() if organs is None else organs.amax((1, 2)) > 0
    seen = whole & (images.amax((1, 2)) > images.amin((1, 2)))
    return seen if seen.any() else whole
