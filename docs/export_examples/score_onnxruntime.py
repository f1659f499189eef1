"""Scores pictures with an exported ONNX file; of numpy, Pillow and onnxruntime alone.

python score_onnxruntime.py model.onnx picture.png ...
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image

model, *pictures = sys.argv[1:]
session = onnxruntime.InferenceSession(model)
says = session.get_modelmeta().custom_metadata_map
threshold, window = json.loads(says["image_threshold"]), json.loads(says["intensity_window"])
if "resize" not in json.loads(says["inside"]):
    sys.exit(f"{model} takes images of one size; export it with any_size")


def read(path: str) -> np.ndarray:
    """RGB in [0, 1], (3, height, width)."""
    picture = Image.open(path)
    if ";16" not in str(picture.tile):  # what Pillow finds in the file, before it decodes
        return np.asarray(picture.convert("RGB")).transpose(2, 0, 1) / 255
    if not picture.mode.startswith("I"):
        sys.exit(f"{path} has 16 bits of colour, of which Pillow keeps 8: save it as grey")
    if window is None:
        sys.exit(f"{path} has 16 bits, of which the model does not say what they mean")
    low, high = window
    return np.stack([np.clip((np.asarray(picture, np.float64) - low) / (high - low), 0, 1)] * 3)


for path in pictures:
    images = {session.get_inputs()[0].name: read(path)[None].astype(np.float32)}
    (score,) = session.run(["pred_score"], images)[0].flat
    print(path, score, "" if threshold is None else score > threshold)
