"""Where voxels lie: what shapes and affines can be, whatever the format of their file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomalib_medclip.errors import VolumeError
from anomalib_medclip.readers.tool_commands import python_command

_STRAIGHT = 0.5  # degrees that axes may be off the right angle, as rounded numbers are
_CONTRADICTED = "convert its DICOM files again, since its spacing contradicts its affine"
_FLAT = 0.1  # of the volume that axes at right angles would span


class Voxels(NamedTuple):
    """What a file of any format holds.

    Attributes:
        numbers: As its header says they are, of shape ``(i, j, k)``.
        affine: From voxel indices to millimetres, towards right, anterior and superior.
        header: Of NIfTI, which a map on the same grid can have; of the shape of the file.
    """

    numbers: NDArray[Any]
    affine: NDArray[np.float64]
    header: Any


def nifti_header(shape: Sequence[int], affine: NDArray[np.float64]) -> Any:  # noqa: ANN401 - nibabel's
    """A header for maps of a volume whose file has none of NIfTI."""
    import nibabel as nib

    header = nib.Nifti2Header() if max(shape) >= 2**15 else nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_zooms(np.linalg.norm(affine[:3, : len(shape)], axis=0))
    header.set_sform(affine, code="scanner")
    header.set_qform(affine, code="scanner")
    header.set_xyzt_units("mm")
    return header


def three_sides(path: Path, shape: Sequence[int]) -> tuple[int, int, int]:
    """The shape of a volume, or of a picture as a volume that is one voxel thick.

    Raises:
        VolumeError: It is empty, a line, or holds several volumes, or several numbers at each
            voxel.
    """
    shape = tuple(int(side) for side in shape)
    if any(side < 1 for side in shape):
        msg = f"{path} says its shape is {shape}; repair or crop it"
        raise VolumeError(msg)
    if any(side > 1 for side in shape[3:]):
        vectors = len(shape) > 4 and shape[3] == 1
        count = int(np.prod(shape[3:]))
        held = f"{count} numbers at each voxel" if vectors else f"{count} volumes"
        command = python_command(
            "a=n.load({0});n.save(a.slicer[..., 0],{1})", path, named_after(path, "_0")
        )
        msg = f"{path} is of shape {shape} and holds {held}; take one out, the first by {command}"
        raise VolumeError(msg)
    one, two, three = (*shape[:3], 1, 1, 1)[:3]
    if sum(side > 1 for side in (one, two, three)) < 2:
        msg = f"{path} is of shape {shape}: a line, of which no picture is made; take it out"
        raise VolumeError(msg)
    return one, two, three


def named_after(path: Path, word: str) -> Path:
    """A NIfTI file beside another, called like it and by a word."""
    stem = path.name.lower().removesuffix(".gz")
    return path.with_name(path.name[: len(Path(stem).stem)] + f"{word}.nii.gz")


def sound_affine(
    path: Path,
    affine: Any,  # noqa: ANN401 - an array
    sides: Sequence[int],
    zooms: Sequence[float] | None = None,
    straighten: str | None = None,
) -> NDArray[np.float64]:
    """An affine that puts every voxel to one place, on axes at right angles.

    Along an axis of a single voxel nothing is far apart: what is said of it need not be sound.

    Args:
        path: Whose it is.
        affine: From voxel indices to millimetres, towards right, anterior and superior.
        sides: Of the volume.
        zooms: Millimetres between voxels, where they are said a second time.
        straighten: How to make axes of right angles; by default by nibabel, which reads the file.

    Raises:
        VolumeError: It is not finite, flat, sheared, or contradicts the spacing.
    """
    affine = np.array(affine, dtype=np.float64)
    long = [axis for axis, side in enumerate(sides) if side > 1]
    said = np.array([1.0 if zooms is None else zooms[axis] for axis in long])
    if not np.isfinite(affine[:, [*long, 3]]).all() or not (np.isfinite(said) & (said > 0)).all():
        msg = f"{path} states no place that is finite: spacing {said}, affine {affine.tolist()}"
        raise VolumeError(msg + "; repair its header")
    if len(long) == 2:
        _mend_the_third(affine, long)
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if (sizes <= 0).any() or abs(np.linalg.det(affine[:3, :3] / sizes)) < _FLAT:
        msg = f"{path} states an affine with flat axes: {affine.tolist()}; repair its header"
        raise VolumeError(msg)
    agree = zooms is None or np.allclose(sizes[long], said, rtol=1e-2)
    _refuse_sheared(path, affine, sizes, straighten if agree else _CONTRADICTED)
    if not agree:
        msg = f"{path} states a spacing of {said} mm, but its affine one of {sizes[long]}"
        one = python_command(
            "a=n.load({0});n.save(n.Nifti1Image(p.asanyarray(a.dataobj),a.affine),{1})",
            path, named_after(path, "_affine"),
        )  # fmt: skip
        msg += f"; if its affine is right, say so in a copy by {one}"
        raise VolumeError(msg)
    return affine


def _mend_the_third(affine: NDArray[np.float64], long: Sequence[int]) -> None:
    """Let the axis of the single voxel be at right angles to the two others.

    It keeps its length and its side, where it has them; else a millimetre, to the right hand.
    """
    [third] = {0, 1, 2} - {*long}
    one, other = affine[:3, (third + 1) % 3], affine[:3, (third + 2) % 3]
    normal = np.cross(one, other)
    length = np.linalg.norm(normal)
    if length > 0:
        along = float(affine[:3, third] @ normal / length)
        step = np.linalg.norm(affine[:3, third])
        usable = np.isfinite(along) and along != 0
        affine[:3, third] = normal / length * (np.copysign(step, along) if usable else 1.0)
    affine[3] = 0, 0, 0, 1


def _refuse_sheared(
    path: Path, affine: NDArray[np.float64], sizes: NDArray[np.float64], straighten: str | None
) -> None:
    """Slices that do not step along their normal lie otherwise than pictures show them."""
    axes = affine[:3, :3] / sizes
    cosines = np.abs([axes[:, 0] @ axes[:, 1], axes[:, 0] @ axes[:, 2], axes[:, 1] @ axes[:, 2]])
    degrees = float(np.degrees(np.arcsin(min(1.0, cosines.max()))))
    if degrees <= _STRAIGHT:
        return
    steps = [round(float(sizes[axis]), 3) for axis in np.abs(axes).argmax(axis=1)]
    straighten = straighten or "straighten it by " + python_command(
        "import nibabel.processing as q;n.save(q.resample_to_output("
        f"n.load({{0}}),{steps},1,'nearest'),{{1}})".replace("'", '"'),
        path, named_after(path, "_straight"),
    )  # fmt: skip
    msg = (
        f"{path} is sheared by {round(degrees, 1):g} degrees: its slices do not step along their "
        "normal, as in head CT with a tilted gantry; give the corrected file, which dcm2niix "
        f"writes beside it with _Tilt_ in its name, or {straighten}"
    )
    raise VolumeError(msg)


def same_grid(one: NDArray[np.float64], other: NDArray[np.float64], shape: tuple[int, ...]) -> bool:
    """Whether two affines put every voxel to the same place, to a hundredth of a voxel."""
    corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    corners = corners * [*(np.array(shape) - 1), 1]
    apart = np.linalg.norm((corners @ (one - other).T)[:, :3], axis=1)
    return bool(apart.max() <= _SAME_PLACE * np.linalg.norm(one[:3, :3], axis=0).min())


_SAME_PLACE = 0.01  # of a voxel, at the farthest corner
