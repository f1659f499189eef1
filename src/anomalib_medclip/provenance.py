"""Where a file comes from: which packages made it, and what exactly it holds."""

import hashlib
import os
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from torch import Tensor

NOTICE = "research use only"
"""Said by every file that could be taken for a diagnosis."""

_PACKAGES = (
    "anomalib-medclip",
    "anomalib",
    "torch",
    "torchvision",
    "lightning",
    "numpy",
    "pillow",
    "timm",
    "open_clip_torch",
    "monai",
    "nibabel",
    "pydicom",
    "highdicom",
    "onnx",
    "onnxruntime",
    "openvino",
    "nncf",
)


def versions() -> dict[str, str]:
    """Versions of this package and of those that its results depend on, where installed."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def packages() -> dict[str, str]:
    """Versions of Python and of what results depend on."""
    return {"python": sys.version.split()[0], **versions()}


def sha256_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of named tensors, in hexadecimal digits."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def without_folders(words: str, *folders: Path) -> str:
    """Words for a file that travels: paths begin with the name of one of these folders.

    Example:
        >>> without_folders("/home/jane/scans/P4.nii is cut off", Path("/home/jane/scans"))
        'scans/P4.nii is cut off'
    """
    for folder in folders:
        for above in (folder.absolute().parent, folder.resolve().parent):
            words = words.replace(f"{above}{os.sep}", "")
    return words
