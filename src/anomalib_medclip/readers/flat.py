"""A NIfTI file that is one voxel thick, which is a picture."""

from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from anomalib_medclip.errors import ImageReadError
from anomalib_medclip.readers.file_kind import NIFTI, kind_by
from anomalib_medclip.readers.unpacked import Unpacked
from anomalib_medclip.readers.volume_file import read_volume_file

Plane = Literal["axial", "coronal", "sagittal"]
"""How a volume is cut."""

AXES: dict[Plane, str] = {"axial": "PLS", "coronal": "ILP", "sagittal": "IPL"}
"""Where rows, columns and slices go. As radiologists look at them: from the feet or from the front,
the patient's right on the left of the picture; or from the patient's left."""

ENDS = (("L", "R"), ("P", "A"), ("I", "S"))
ACROSS: tuple[Plane, ...] = ("sagittal", "coronal", "axial")  # right, front and head


def is_flat(path: Path) -> bool:
    """Whether a file is NIfTI, and one voxel thick by its header."""
    try:
        with Unpacked(path) as file:
            return shows_flat(file)
    except ImageReadError:  # which its reader says
        return False


def shows_flat(file: Unpacked) -> bool:
    """The same of a file that is open."""
    if kind_by(file.path, file.head) != NIFTI:
        return False
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    size = int.from_bytes(file.head[:4], "little" if file.head[:1] != b"\0" else "big")
    kinds: dict[int, Any] = {348: Nifti1Header, 540: Nifti2Header}
    kind = kinds.get(size)
    if kind is None or len(file.head) < size:
        return False
    sides = (*kind(file.head[:size], check=False).get_data_shape(), 1, 1, 1)[:3]
    return 1 in sides


def plane_of(affine: NDArray[Any], shape: tuple[int, ...], asked: Plane) -> Plane:
    """The plane of a volume that is one voxel thick; that which is asked for of any other."""
    from nibabel.orientations import io_orientation

    return ACROSS[int(io_orientation(affine)[shape.index(1), 0])] if 1 in shape else asked


def flat_picture(file: Unpacked) -> NDArray[Any]:
    """The numbers of a flat file, ``(height, width)``, as radiologists look at its plane.

    Raises:
        ImageReadError: See ``read_nifti``.
        VolumeError: See there.
    """
    from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

    found = read_volume_file(file)
    plane = plane_of(found.affine, found.numbers.shape, "axial")
    turn = ornt_transform(io_orientation(found.affine), axcodes2ornt(AXES[plane], ENDS))
    turned: NDArray[Any] = apply_orientation(found.numbers, turn)
    return turned[..., 0]
