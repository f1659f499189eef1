"""What a file is, by its content: the one door that every reader and every list of files asks.

Endings lie: archives rename, mail programs unpack. Only where the content says nothing, because it
is damaged or cannot be read, is a file what its ending claims, so that its reader can say why not.
"""

import re
import struct
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import Literal, NamedTuple

from anomalib_medclip.files import A_FOLDER, fault_of
from anomalib_medclip.readers.dicom_file import begins_as_dicom
from anomalib_medclip.readers.unpacked import PACKED, Unpacked

Family = Literal["volume", "dicom", "picture", "foreign"]
"""A file with a volume, a DICOM file, a picture file, or what is known and not read."""


class FileKind(NamedTuple):
    """What a file is.

    Attributes:
        family: Who reads it, if anybody does.
        name: What people call the format.
        remedy: What to do with a foreign one, which commands call FILE.
    """

    family: Family
    name: str
    remedy: str = ""

    def about(self, path: Path) -> str:
        """The message of an error that refuses a foreign file, whatever it was to be."""
        return f"{path} is {self.name}; {self.remedy.replace('FILE', quote(str(path)))}"


NIFTI = FileKind("volume", "NIfTI")
PAIR = FileKind("volume", "NIfTI or Analyze pair")
MGH = FileKind("volume", "MGH")
NRRD = FileKind("volume", "NRRD")
META_IMAGE = FileKind("volume", "MetaImage")
DICOM = FileKind("dicom", "DICOM")
JPEG_2000 = FileKind("picture", "JPEG 2000")  # which is not read

_AS_PICTURES = "write its slices as pictures, and give their folder, numbered in their order"
_EYEPY = f"open it by the Python package eyepy or by the maker's program, {_AS_PICTURES}"
_OCT_CONVERTER = f"open it by the Python package oct-converter, {_AS_PICTURES}"
_BY_NIBABEL = "load it by its program or by Python, and save its numbers by nibabel as NIfTI"
_BY_DCM2NIIX = "make NIfTI of it by `dcm2niix -o . .` in its folder"
_BY_MNC2NII = "make NIfTI of it by `mnc2nii FILE volume.nii`"
_UNPACK = "unpack it, and give what is in it"


def _foreign(name: str, remedy: str) -> FileKind:
    return FileKind("foreign", name, remedy)


TWICE_PACKED = _foreign("packed twice by gzip", "unpack it once, by gunzip, and give it again")
HEIDELBERG = _foreign("an OCT file of Heidelberg Engineering (.vol)", _EYEPY)
HEIDELBERG_E2E = _foreign("an OCT file of Heidelberg Engineering (.e2e)", _OCT_CONVERTER)
TOPCON = _foreign("an OCT file of Topcon (.fda, .fds)", _OCT_CONVERTER)
OTHER_OCT = _foreign("an OCT file of its maker's own format", _OCT_CONVERTER)

MINC_2 = _foreign("a MINC file", _BY_MNC2NII)
HDF5 = _foreign("an HDF5 file, as MATLAB and others write", _BY_NIBABEL)
_AS_PNG = "save it as PNG by a program that shows it, such as GIMP"
HEIC = _foreign("a HEIC picture, as iPhones take", _AS_PNG)
AVIF = _foreign("an AVIF picture", _AS_PNG)
VIDEO = _foreign("a video", "save the frames that count as PNG")
WEB_PAGE = _foreign(
    "a web page", "download the file again: often one has to sign in first, or to confirm"
)
SVG = _foreign("a drawing of lines (SVG)", "save it as PNG by Inkscape")

OFFICE = _foreign("a file of an office program", "save pictures in it as PNG, tables as CSV")
_MINC_GROUP = b"minc-2.0"
"""The name of what an HDF5 file of MINC 2 holds."""

_FIRST_OF_OFFICE = (
    b"[Content_Types]",
    b"_rels/",
    b"docProps/",
    b"xl/",
    b"word/",
    b"ppt/",
    b"mimetype",
)
"""What lies first in their files, which are zip archives."""

_MAGIC: tuple[tuple[int, bytes, FileKind], ...] = (
    (344, b"n+1\0", NIFTI),
    (4, b"n+2\0", NIFTI),
    (344, b"ni1\0", PAIR),
    (4, b"ni2\0", PAIR),
    (0, b"NRRD000", NRRD),
    (128, b"DICM", DICOM),
    (0, b"\x89PNG\r\n\x1a\n", FileKind("picture", "PNG")),
    (0, b"\xff\xd8\xff", FileKind("picture", "JPEG")),
    (0, b"II*\0", FileKind("picture", "TIFF")),
    (0, b"MM\0*", FileKind("picture", "TIFF")),
    (0, b"II+\0", FileKind("picture", "TIFF")),
    (0, b"MM\0+", FileKind("picture", "TIFF")),
    (0, b"GIF8", FileKind("picture", "GIF")),
    (8, b"WEBP", FileKind("picture", "WebP")),
    (0, b"\0\0\0\x0cjP  \r\n", JPEG_2000),
    (0, b"\0\0\0\x0cJXL \r\n", _foreign("a JPEG XL picture", _AS_PNG)),
    *((4, b"ftyp" + brand, HEIC) for brand in (b"heic", b"heix", b"heim", b"mif1", b"msf1")),
    *((4, b"ftyp" + brand, AVIF) for brand in (b"avif", b"avis")),
    (4, b"ftyp", VIDEO),
    (8, b"AVI ", VIDEO),
    (0, b"\x1aE\xdf\xa3", VIDEO),
    (0, b"%PDF-", _foreign("a PDF file", "save the pictures in it as PNG")),
    (0, b"8BPS", _foreign("a Photoshop file", _AS_PNG)),
    (0, b"HSF-OCT-", HEIDELBERG),
    (0, b"CMDb", HEIDELBERG_E2E),
    (0, b"FOCT", TOPCON),
    (10, b"FRAMEHEADER", OTHER_OCT),
    (0, b"# === DATA DESCRIPTION FILE", _foreign("a Philips PAR file", _BY_DCM2NIIX)),
    (0, b"CDF", _foreign("a MINC or netCDF file", f"if it is MINC, {_BY_MNC2NII}")),
    (0, b"\x89HDF\r\n\x1a\n", HDF5),
    (0, b"\x93NUMPY", _foreign("a NumPy array, which says of no place", _BY_NIBABEL)),
    (0, b"MATLAB ", _foreign("a MATLAB file", _BY_NIBABEL)),
    *((30, name, OFFICE) for name in _FIRST_OF_OFFICE),
    (0, b"PK\x03\x04", _foreign("a zip archive", _UNPACK)),
    (257, b"ustar", _foreign("a tar archive", _UNPACK)),
    (0, b"7z\xbc\xaf\x27\x1c", _foreign("a 7z archive", _UNPACK)),
    (0, b"Rar!", _foreign("a RAR archive", _UNPACK)),
    (0, b"BZh", _foreign("packed by bzip2", _UNPACK)),
    (0, b"\xfd7zXZ\0", _foreign("packed by xz", _UNPACK)),
    (0, b"\x28\xb5\x2f\xfd", _foreign("packed by zstd", _UNPACK)),
)
"""Where which bytes stand in a file of which kind."""

_ENDINGS: tuple[tuple[tuple[str, ...], FileKind], ...] = (
    ((".dcm", ".dicom"), DICOM),
    ((".nii", ".nii.gz"), NIFTI),
    ((".hdr", ".hdr.gz", ".img", ".img.gz"), PAIR),
    ((".mgh", ".mgz", ".mgh.gz"), MGH),
    ((".nrrd", ".nhdr"), NRRD),
    ((".mha", ".mhd"), META_IMAGE),
    ((".vol",), HEIDELBERG),
    ((".e2e", ".sdb"), HEIDELBERG_E2E),
    ((".fda", ".fds"), TOPCON),
    ((".oct",), OTHER_OCT),
    ((".head", ".brik"), _foreign("an AFNI file", "make NIfTI of it by 3dAFNItoNIFTI")),
)
"""What endings claim, in lower case."""


def kind_of(path: Path) -> FileKind | None:
    """What a file is; ``None`` for what nobody here knows, or a folder.

    A file that cannot be read, or whose content says nothing, is what its ending claims.
    """
    fault = fault_of(path)
    if fault is A_FOLDER:
        return None
    if fault:
        return kind_by(path, b"")
    with Unpacked(path) as file:
        return kind_by(path, file.head)


def kind_by(path: Path, head: bytes) -> FileKind | None:
    """The same by the first bytes of a file, unpacked, and its ending."""
    if head.startswith(PACKED):
        return TWICE_PACKED
    for start, magic, kind in _MAGIC:
        if head.startswith(magic, start):
            return MINC_2 if kind == HDF5 and _MINC_GROUP in head else kind
    for looks_so, kind in _LOOKS:
        if looks_so(head):
            return kind
    if begins_as_dicom(head[:132]):
        return DICOM
    return next((kind for ends, kind in _ENDINGS if path.name.lower().endswith(ends)), None)


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM; that of a damaged one is said by its ending alone."""
    return kind_of(path) == DICOM


def is_volume(path: Path) -> bool:
    """Whether a file holds a volume, be it damaged; a DICOM file is one slice of several."""
    kind = kind_of(path)
    return kind is not None and kind.family == "volume"


def _looks_like_analyze(head: bytes) -> bool:
    """A header of 348 bytes that says so, of a volume and no NIfTI, in either byte order."""
    return len(head) == 348 and head[:4] in (struct.pack("<i", 348), struct.pack(">i", 348))


def _looks_like_bmp(head: bytes) -> bool:
    """Two letters are no proof: the size of the second header is one of those there are."""
    return head.startswith(b"BM") and head[14:18] in _BMP_HEADERS


_BMP_HEADERS = [struct.pack("<I", size) for size in (12, 16, 40, 52, 56, 64, 108, 124)]


def _looks_like_mgh(head: bytes) -> bool:
    if len(head) < 30:
        return False
    version, *sides, type_, _, good = struct.unpack(">iiiiiiih", head[:30])
    return version == 1 and min(sides) > 0 and type_ in (0, 1, 3, 4, 10) and good in (0, 1)


_META_IMAGE_BEGINS = re.compile(rb"(?:\s*\w+ *= *[^\r\n]*\r?\n)*? *(ObjectType|NDims) *=")


def _looks_like_meta_image(head: bytes) -> bool:
    return _META_IMAGE_BEGINS.match(head) is not None


_WEB_PAGE_BEGINS = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<!--.*?-->\s*)*<(?:!doctype html|html|head)\b", re.I | re.S
)
_SVG_BEGINS = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<[?!].*?>\s*)*<svg\b", re.I | re.S)


def _looks_like_web_page(head: bytes) -> bool:
    return _WEB_PAGE_BEGINS.match(head) is not None


def _looks_like_svg(head: bytes) -> bool:
    return _SVG_BEGINS.match(head) is not None


_LOOKS: tuple[tuple[Callable[[bytes], bool], FileKind], ...] = (
    (_looks_like_analyze, PAIR),
    (_looks_like_bmp, FileKind("picture", "BMP")),
    (_looks_like_mgh, MGH),
    (_looks_like_meta_image, META_IMAGE),
    (_looks_like_web_page, WEB_PAGE),
    (_looks_like_svg, SVG),
)
"""Kinds without bytes of their own at one place."""
