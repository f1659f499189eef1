"""A fresh process that has torch, open_clip and jaxtyping, and nothing else that we require."""

import subprocess
import sys

OTHERS = (
    "anomalib", "cv2", "faiss", "highdicom", "jinja2", "jsonargparse", "lightning", "matplotlib",
    "monai", "nibabel", "pandas", "plotly", "pydicom", "rich", "scipy", "sklearn", "torchmetrics",
)  # fmt: skip
"""What cannot be imported there."""


def run_lean(script, *arguments):
    """Run a script where ``OTHERS`` cannot be imported, and return the completed process."""
    without = f"import sys\nsys.modules.update(dict.fromkeys({OTHERS}))\n"
    return subprocess.run(
        [sys.executable, "-c", without + script, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
