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
model = AnomalyDetection.create_model(adapter)
window = adapter.get_rt_info(["anomalib_medclip", "intensity_window"]).astype(str)

for path in pictures:
    picture = Image.open(path)
    if picture.mode.startswith("I"):  # grey, 16 bits
        low, high = json.loads(window)
        grey = np.clip((np.asarray(picture, dtype=np.float64) - low) / (high - low), 0, 1)
        pixels = np.stack([grey] * 3, axis=2)
    else:
        pixels = np.asarray(picture.convert("RGB"))
    found = model(pixels)
    print(path, found.pred_score, found.pred_label)
