"""What the demo promises: it learns, on other patients, what no trivial cue and no chance finds."""

from pathlib import Path

import cv2
import numpy as np
import torch
import yaml
from command import anomalib, metrics
from sklearn.metrics import roc_auc_score

from anomalib_medclip.data.phantoms import Phantoms

CONFIGS = Path(__file__).parents[2] / "configs"
FOUND = np.array([0.90, 0.965])
"""AUROC that the demo reaches at least, of images and of pixels; ``.ci/run`` asks for it, too."""

MARGINS = np.array([0.10, 0.02])
"""How much less whatever else finds, of images and of pixels."""

RADII = (0.05, 0.075, 0.1)  # of lesions, in sides, for the blob filter


def run_demo(verb, seed, patch):
    """The folder of a run of the README's command, without its pictures."""
    anomalib(
        f"{verb} --config configs/demo.yaml --model.seed {seed} --data.seed {seed} "
        f"--default_root_dir {verb} --model.visualizer false",
        patch,
    )
    own = ("test",) if verb == "test" else ()
    return Path(verb, "MVFA", "phantoms", "head", *own, "latest")


def aurocs(run):
    return np.array([metrics(run)[f"{what}_AUROC"] for what in ("image", "pixel")])


def two_sided(auroc):
    """With whichever sign of the score serves it better."""
    return np.maximum(auroc, 1 - auroc)


def phantoms(seed):
    """What the demo trained and tested on."""
    options = yaml.safe_load((CONFIGS / "demo.yaml").read_text())["data"]["init_args"]
    data = Phantoms(**options, seed=seed)
    data.setup()
    return data


def arrays(dataset):
    """Grey images and masks."""
    items = [dataset[i] for i in range(len(dataset))]
    images = torch.stack([item.image[0].as_subclass(torch.Tensor) for item in items])
    masks = torch.stack([item.gt_mask.as_subclass(torch.Tensor) for item in items])
    return images.numpy(), masks.numpy() > 0


def cue_maps(images, normals):
    maps = {"intensity": images, "difference": np.abs(images - normals.mean(axis=0))}
    for radius in RADII:
        sigma = radius * images.shape[-1] / 2**0.5
        blurred = [
            np.stack([cv2.GaussianBlur(i, (0, 0), s) for i in images]) for s in (sigma, 1.6 * sigma)
        ]
        maps[f"blobs of {radius}"] = np.abs(blurred[0] - blurred[1])
        maps[f"bright blobs of {radius}"] = blurred[0] - blurred[1]
    return maps


def cues(data):
    """Best AUROC of the trivial cues, of images and of pixels."""
    (images, masks), (support, outlines) = arrays(data.test_data), arrays(data.support_data)
    labels, flat = masks.any(axis=(1, 2)), images.reshape(len(images), -1)
    scores = {"mean": flat.mean(1), "max": flat.max(1), "p99": np.percentile(flat, 99, axis=1)}
    maps = cue_maps(images, normals=support[~outlines.any(axis=(1, 2))])
    for name, found in maps.items():
        if name != "intensity":
            scores[f"max {name}"] = found.max(axis=(1, 2))
            scores[f"mean {name}"] = found.mean(axis=(1, 2))
    of_images = [roc_auc_score(labels, score) for score in scores.values()]
    of_pixels = [roc_auc_score(masks.ravel(), found.ravel()) for found in maps.values()]
    return np.array([two_sided(found).max() for found in map(np.array, (of_images, of_pixels))])
