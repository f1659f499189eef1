"""Where a file comes from: which packages made it, and what exactly it holds."""

import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

NOTICE = "research use only"
"""Said by every file that could be taken for a diagnosis."""

_PACKAGES = (
    "anomalib-medclip",
    "anomalib",
    "torch",
    "open_clip_torch",
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


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()
