"""NIfTI and Analyze files, read strictly: every byte is accounted for, and the header is sound."""

import logging
import re
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from anomalib_medclip.errors import ImageReadError, VolumeError
from anomalib_medclip.readers.file_kind import OTHER_OCT
from anomalib_medclip.readers.grid import (
    Voxels,
    named_after,
    nifti_header,
    sound_affine,
    three_sides,
)
from anomalib_medclip.readers.size_limit import check_voxels
from anomalib_medclip.readers.tool_commands import python_command
from anomalib_medclip.readers.unpacked import Unpacked, said_of

logger = logging.getLogger(__name__)

_LONGEST_BLOCK = 540  # bytes, of NIfTI-2
_LONGEST_HEADER = 2**26  # bytes, with all extensions

_UNITS = {0: "millimetres", 1: "metres", 2: "millimetres", 3: "micrometres"}
"""NIfTI's units of lengths; 0 is unknown, and then millimetres are usual."""


def parts_of_pair(path: Path) -> tuple[Path, ...]:
    """The header, the voxels and SPM's affine, if there is one, of either of the first two.

    Raises:
        ImageReadError: One of the two is not there.
    """
    packed = ".gz" if path.name.lower().endswith(".gz") else ""
    stem = path.name.removesuffix(path.name[-3:] if packed else "")
    asked = ".img" if stem.lower().endswith(".img") else ".hdr"
    stem = Path(stem).stem
    there = {one.name.lower(): one for one in path.parent.iterdir()} | {path.name.lower(): path}
    found: list[Path] = []
    for ending in (".hdr", ".img"):
        if asked == ending:
            found.append(path)
            continue
        names = [f"{stem}{ending}{gz}".lower() for gz in (packed, "", ".gz")]
        beside = next((there[name] for name in names if name in there), None)
        if beside is None:
            msg = f"{path} is one of a pair of files, and {stem}{ending} is not there; put it there"
            if ending == ".hdr":
                msg += f", or, if it is an OCT file of Zeiss, {OTHER_OCT.remedy}"
            raise ImageReadError(msg)
        found.append(beside)
    mat = there.get(f"{stem}.mat".lower())
    return (found[0], found[1], *([mat] if mat else []))


def read_nifti(file: Unpacked) -> Voxels:
    """Read a NIfTI file whose every byte is accounted for.

    nibabel alone reads what it needs: damage behind that, and a checksum that does not fit, would
    go unseen.

    Raises:
        ImageReadError: The file is missing, too large, cut off, longer than it says, or cannot be
            decoded.
        VolumeError: It is no volume of real numbers, or does not know where it lies.
    """
    import nibabel as nib  # pydicom comes with it; a run without NIfTI files needs neither

    with said_of(path := file.path, "NIfTI"):
        block = file.read(_LONGEST_BLOCK)
        kind = nib.Nifti2Image if _is_second(block[:4]) else nib.Nifti1Image
        header, wanted = _checked_header(path, kind.header_class, block, file)
        raw = file.read_whole(wanted)
        _check_length(path, header, len(raw), wanted)
        image = kind.from_bytes(header.binaryblock + raw[len(header.binaryblock) :])
        affine = _checked_place(path, image)
        return Voxels(_numbers(image, path), affine, image.header)


def read_pair(file: Unpacked) -> Voxels:
    """Read a header (``.hdr``) and its voxels (``.img``), of NIfTI or Analyze 7.5.

    Analyze is read as SPM 2 and nibabel read it, with the affine of SPM's ``.mat`` where there is
    one. By itself it does not say which side is the left: as these do, it is taken to count towards
    the left, with a warning.

    Args:
        file: Either of the two.

    Raises:
        ImageReadError: See ``read_nifti``; or the other file is missing.
        VolumeError: See ``read_nifti``.
    """
    import nibabel as nib
    from nibabel.fileholders import FileHolder

    header_path, voxels_path, *more = parts_of_pair(path := file.path)
    with (
        said_of(path, "a NIfTI or Analyze pair"),
        Unpacked(header_path) as first,
        Unpacked(voxels_path) as second,
    ):
        block = first.read(_LONGEST_BLOCK)
        nifti = nib.Nifti2Pair if _is_second(block[:4]) else nib.Nifti1Pair
        is_nifti = nifti is nib.Nifti2Pair or block[344:348] == b"ni1\0"
        kind: Any = nifti if is_nifti else nib.Spm2AnalyzeImage
        header, wanted = _checked_header(header_path, kind.header_class, block, second)
        raw = second.read_whole(wanted)
        _check_length(voxels_path, header, len(raw), wanted)
        mat = b"" if is_nifti or not more else _affine_of_spm(path, more[0])
        parts = {"header": header.binaryblock, "image": raw, "mat": mat}
        image = kind.from_file_map(
            {name: FileHolder(fileobj=BytesIO(part)) for name, part in parts.items()}
        )
        affine = _checked_place(path, image)
        return Voxels(_numbers(image, path), affine, nifti_header(image.shape, affine))


def _affine_of_spm(path: Path, mat: Path) -> bytes:
    """The file beside a pair with its affine; empty, where it is of something else.

    Raises:
        ImageReadError: It cannot be read, and so may say where the volume lies.
    """
    import scipy.io

    content = mat.read_bytes()
    try:
        held = scipy.io.loadmat(BytesIO(content), variable_names=("mat", "M"))
    except Exception as error:  # MATLAB's format has many ways to be damaged
        msg = (
            f"{mat} cannot be read, and may say where {path} lies; save it in MATLAB by the option "
        )
        msg += "-v6, or, if it is not of SPM, give it another name"
        raise ImageReadError(msg) from error
    affines = [held[name] for name in ("mat", "M") if name in held]
    if not affines or affines[0].shape[:2] != (4, 4) or affines[0].dtype.kind not in "iuf":
        logger.warning("%s holds no affine of SPM, and says nothing of %s beside it", mat, path)
        return b""
    return content


def _is_second(length: bytes) -> bool:
    """Whether the header is that of NIfTI-2, by its length, which is the first that it says."""
    if not length:
        msg = "the file is empty"
        raise EOFError(msg)
    sizes = {int.from_bytes(length, order) for order in ("little", "big")}
    if not sizes & {348, 540}:
        msg = "it does not begin as a NIfTI file does"
        raise ValueError(msg)
    return 540 in sizes


def _checked_header(path: Path, kind: Any, block: bytes, voxels: Unpacked) -> tuple[Any, int]:  # noqa: ANN401
    """A sound header, and how many bytes the file of the voxels should have.

    Args:
        path: Whose header it is.
        kind: Its class.
        block: The first bytes of the file.
        voxels: The file of the voxels.
    """
    header = kind(block[: kind.sizeof_hdr], check=False)
    _mend_flat(header)
    _check_sound(path, header)
    header = kind(header.binaryblock)
    return header, _check_numbers(path, header, voxels)


def _mend_flat(header: Any) -> None:  # noqa: ANN401
    """Give axes of a single voxel, or none, the spacing that they lack; it says nothing there."""
    shape = (*header.get_data_shape(), 1, 1, 1)[:3]
    for axis, side in enumerate(shape):
        if side == 1 and not header["pixdim"][axis + 1] > 0:
            header["pixdim"][axis + 1] = 1


def _check_sound(path: Path, header: Any) -> None:  # noqa: ANN401
    """Refuse what nibabel would set right without a word, such as an unknown sform code."""
    harmless = "not divisible by 16|qfac"  # the latter counts for a qform only
    said = type(header).diagnose_binaryblock(header.binaryblock).splitlines()
    if "qform_code" in header:
        if header["qform_code"] != 0 and header["pixdim"][0] not in (-1, 0, 1):
            said.append(f"qfac is {header['pixdim'][0]}")
        if (unit := int(header["xyzt_units"]) % 8) not in _UNITS:
            said.append(f"lengths are not in millimetres but in NIfTI's unit {unit}")
        if header["qform_code"] != 0 and header["sform_code"] == 0 and not _turns(header):
            said.append("its qform is no rotation")
    if np.isinf(header["scl_slope"]):  # not a number stands for none
        said.append(f"the slope is {header['scl_slope']}")
    wrong = [one for one in said if not re.search(harmless, one) or one.startswith("qfac is")]
    if wrong:
        msg = f"the header of {path} is unsound: {'; '.join(wrong)}; repair it"
        raise VolumeError(msg)
    if "qform_code" in header and _UNITS[unit] != "millimetres":
        _refuse_unit(path, _UNITS[unit])


def _turns(header: Any) -> bool:  # noqa: ANN401
    """Whether the quaternion of a qform is one."""
    try:
        return bool(np.isfinite(header.get_qform_quaternion()).all())
    except ValueError:  # its parts are too long
        return False


def _refuse_unit(path: Path, unit: str) -> NoReturn:
    """Lengths that all programs would take for millimetres."""
    factor = {"metres": 1e3, "micrometres": 1e-3}[unit]
    one = python_command(
        "a=n.load({0});n.save(n.Nifti1Image(p.asanyarray(a.dataobj),"
        f"p.diag([{factor}]*3+[1])@a.affine),{{1}})", path, named_after(path, "_mm"),
    )  # fmt: skip
    msg = f"{path} states lengths in {unit}; if they are so, make millimetres of them in a copy by "
    raise VolumeError(msg + one)


def _check_numbers(path: Path, header: Any, voxels: Unpacked) -> int:  # noqa: ANN401
    """Refuse what the header cannot mean before memory is asked for; the bytes there should be."""
    shape, dtype = header.get_data_shape(), header.get_data_dtype()
    sides = three_sides(path, shape)
    if dtype.kind not in "iuf":
        _refuse_numbers(path, dtype)
    if header["bitpix"] != dtype.itemsize * 8:
        msg = f"{path} says that it holds {dtype} numbers of {header['bitpix']} bits; replace it"
        raise VolumeError(msg)
    needed = prod(sides) * dtype.itemsize
    if not voxels.could_hold(needed):
        msg = f"{path} says its shape is {shape}, which is more than can be in it; replace it"
        raise VolumeError(msg)
    check_voxels(path, *sides)
    offset = float(header["vox_offset"])
    first = 1 if voxels.path == path else 0  # a file of voxels alone has no header before them
    if offset % 1 or not first <= offset < _LONGEST_HEADER:
        msg = f"{path} says its voxels begin at byte {offset}; repair its header"
        raise VolumeError(msg)
    return int(offset) + needed


def _refuse_numbers(path: Path, dtype: np.dtype[Any]) -> NoReturn:
    """Of colours and complex numbers no slices are made; a command makes numbers of them."""
    colours = dtype.fields is not None
    word, part, how = "_G", 'p.asanyarray(a.dataobj)["G"]', "green alone becomes a volume by"
    if not colours:
        word, part, how = "_size", "abs(p.asanyarray(a.dataobj))", "their size becomes a volume by"
    held = "colours (RGB) at each voxel" if colours else f"{dtype} numbers, which are not real"
    one = python_command(
        f"a=n.load({{0}});n.save(n.Nifti1Image({part},a.affine),{{1}})",
        path, named_after(path, word),
    )  # fmt: skip
    msg = f"{path} holds {held}; give the grey volume it was made from; {how} {one}"
    raise VolumeError(msg)


def _check_length(path: Path, header: Any, length: int, wanted: int) -> None:  # noqa: ANN401
    if length != wanted:
        msg = (
            f"{path} holds {length if length < wanted else 'more'} bytes, but its header, which "
            f"says it is of shape {header.get_data_shape()} and {header.get_data_dtype()}, wants "
            f"{wanted}; replace it"
        )
        raise ImageReadError(msg)


def _checked_place(path: Path, image: Any) -> NDArray[np.float64]:  # noqa: ANN401
    """An affine that is one; two that point to different sides of the patient are refused."""
    from nibabel.orientations import aff2axcodes

    header = image.header
    sides = three_sides(path, image.shape)
    zooms = (*header.get_zooms(), 1.0, 1.0, 1.0)[:3]
    has_codes = "sform_code" in header
    affine = sound_affine(path, image.affine, sides, zooms if has_codes else None)
    codes = [int(header[f"{name}_code"]) for name in ("sform", "qform")] if has_codes else []
    if not any(codes):
        logger.warning("%s does not say how it lies in the patient", path)
    if has_codes and all(codes) and not _turns(header):
        logger.warning("%s has a qform that is no rotation; its sform is taken", path)
    elif has_codes and all(codes):
        said = ["".join(aff2axcodes(a)) for a in (affine, header.get_qform())]
        if said[0] != said[1]:
            msg = f"{path} says its axes are {said[0]} (sform) and {said[1]} (qform); repair one"
            raise VolumeError(msg)
    return affine


def _numbers(image: Any, path: Path) -> NDArray[Any]:  # noqa: ANN401
    """The numbers of an image, rescaled as its header says, in three dimensions.

    Raises:
        VolumeError: The rescaling is none.
    """
    slope, inter = image.dataobj.slope, image.dataobj.inter
    if not np.isfinite([slope, inter]).all() or slope == 0:
        msg = f"{path} states a slope of {slope} and an intercept of {inter}; repair its header"
        raise VolumeError(msg)
    with np.errstate(over="ignore"):  # what leaves its range is not finite, and refused as such
        values: NDArray[Any] = np.asanyarray(image.dataobj)
    return values.reshape(three_sides(path, values.shape))
