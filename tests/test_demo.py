"""What the demo promises: it learns, on other patients, what no trivial cue and no chance finds."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from sklearn.metrics import roc_auc_score

from anomalib_medclip.components.augmentation import all_copies
from anomalib_medclip.components.clip import TextTower
from anomalib_medclip.components.lightning_mixin import number_owners
from anomalib_medclip.components.prompts import ensemble
from anomalib_medclip.data.phantoms import Phantoms
from anomalib_medclip.models.mvfa import MVFA

CONFIG = yaml.safe_load((Path(__file__).parents[1] / "configs" / "demo.yaml").read_text())
SEEDS = (0, 1, 2)
RADII = (0.05, 0.075, 0.1)  # of lesions, in sides, for the blob filter
STRIDE = 3  # of the pixels that pixel AUROC is taken on, the same for all


def options(part):
    return CONFIG[part]["init_args"]


def arrays(dataset):
    items = [dataset[i] for i in range(len(dataset))]
    images = torch.stack([item.image.as_subclass(torch.Tensor) for item in items])
    masks = torch.stack([item.gt_mask.as_subclass(torch.Tensor) for item in items]).float()
    return images, masks, [item.group for item in items]


def auroc(truth, scores):
    return roc_auc_score(truth, scores)


def two_sided(truth, scores):
    """The cue with whichever sign serves it better."""
    found = roc_auc_score(truth, scores)
    return max(found, 1 - found)


def pixels(maps):
    return np.asarray(maps)[:, ::STRIDE, ::STRIDE].ravel()


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


def cues(images, masks, normals):
    """Best AUROC of the trivial cues, of images and of pixels."""
    labels, flat = masks.any(axis=(1, 2)), images.reshape(len(images), -1)
    scores = {"mean": flat.mean(1), "max": flat.max(1), "p99": np.percentile(flat, 99, axis=1)}
    maps = cue_maps(images, normals)
    for name, found in maps.items():
        if name != "intensity":
            scores[f"max {name}"] = found.max(axis=(1, 2))
            scores[f"mean {name}"] = found.mean(axis=(1, 2))
    image = max(two_sided(labels, s) for s in scores.values())
    return image, max(two_sided(pixels(masks), pixels(m)) for m in maps.values())


def fit_and_score(model, support, test):
    images, masks, groups = support
    labels = masks.any(dim=(1, 2)) if masks.ndim == 3 else masks.flatten(1).any(1)
    model.fit_support(images, labels, torch.tensor(number_owners(groups, labels.tolist())))
    with torch.no_grad():
        found = [model(part) for part in test[0].split(16)]
    truth = test[1].numpy() > 0
    scores = torch.cat([f.pred_score for f in found]).numpy()
    maps = torch.cat([f.anomaly_map for f in found]).numpy()
    return auroc(truth.any(axis=(1, 2)), scores), auroc(pixels(truth), pixels(maps))


def learn(model, optimiser, support, augmentations, seed):
    images, masks, _ = support
    copies = all_copies(images, augmentations)
    outlines = (all_copies(masks[:, None], augmentations) > 0.5).float()
    labels = masks.flatten(1).any(dim=1).repeat(len(augmentations))
    torch.manual_seed(seed)
    for _ in range(CONFIG["trainer"]["max_epochs"]):
        for part in torch.randperm(len(copies)).split(options("data")["train_batch_size"]):
            optimiser.zero_grad()
            model.loss(copies[part], outlines[part], labels[part]).backward()
            optimiser.step()


def run_demo(seed, root):
    """AUROC of images and of pixels: trained, untrained, and the best trivial cue."""
    data = Phantoms(**{**options("data"), "root": root, "seed": seed, "num_workers": 0})
    data.setup()
    method = MVFA(**{**options("model"), "seed": seed})
    model = method.model
    model.text = ensemble(TextTower(model.clip.backbone), data.object_name)
    support, test = arrays(data.support_data), arrays(data.test_data)
    untrained = fit_and_score(model, support, test)
    learn(model, method.configure_optimizers(), support, method.augmentations, seed)
    normals = support[0][~support[1].flatten(1).any(dim=1), 0].numpy()
    cue = cues(test[0][:, 0].numpy(), test[1].numpy() > 0, normals)
    return np.array([fit_and_score(model, support, test), untrained, cue])


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_the_demo_finds_on_new_patients_what_no_cue_and_no_chance_finds(seed, tmp_path):
    trained, untrained, cue = run_demo(seed, tmp_path)
    assert (trained >= 0.90).all(), trained
    for other in (untrained, cue):
        image, pixel = trained - other
        assert image >= 0.10, (trained, other)
        assert pixel >= 0.02, (trained, other)
