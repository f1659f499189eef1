"""Scores pictures with an exported OpenVINO file by OpenVINO's Model API.

python score_model_api.py model.xml picture.png ...
"""

import json
import sys

import numpy as np
from model_api.adapters import OpenvinoAdapter, create_core
from model_api.models import AnomalyDetection
from PIL import Image

file, *pictures = sys.argv[1:]
exact = {"INFERENCE_PRECISION_HINT": "f32"}
adapter = OpenvinoAdapter(create_core(), file, device="CPU", plugin_config=exact)
inside, window = (
    json.loads(adapter.get_rt_info(["anomalib_medclip", name]).astype(str))
    for name in ("inside", "intensity_window")
)
if "resize" not in inside:
    sys.exit(f"{file} takes images of one size; export it with any_size")
model = AnomalyDetection.create_model(adapter)


def read(path: str) -> np.ndarray:
    """RGB in whole numbers to 255, or in [0, 1], (height, width, 3)."""
    picture = Image.open(path)
    if ";16" not in str(picture.tile):  # what Pillow finds in the file, before it decodes
        return np.asarray(picture.convert("RGB"))
    if not picture.mode.startswith("I"):
        sys.exit(f"{path} has 16 bits of colour, of which Pillow keeps 8: save it as grey")
    if window is None:
        sys.exit(f"{path} has 16 bits, of which the model does not say what they mean")
    low, high = window
    grey = np.clip((np.asarray(picture, np.float64) - low) / (high - low), 0, 1)
    return np.stack([grey] * 3, axis=2)


for path in pictures:
    found = model(read(path))
    print(path, found.pred_score, found.pred_label)
