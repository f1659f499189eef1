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
threshold = json.loads(says["image_threshold"])

for path in pictures:
    picture = Image.open(path)
    if picture.mode.startswith("I"):  # grey, 16 bits
        low, high = json.loads(says["intensity_window"])
        grey = np.clip((np.asarray(picture, dtype=np.float64) - low) / (high - low), 0, 1)
        pixels = np.stack([grey] * 3)
    else:
        pixels = np.asarray(picture.convert("RGB")).transpose(2, 0, 1) / 255
    images = pixels[None].astype(np.float32)
    (score,) = session.run(["pred_score"], {session.get_inputs()[0].name: images})[0].flat
    print(path, score, "" if threshold is None else score > threshold)
