"""What a trained method says of images."""

import copy
import csv
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anomalib_medclip.spreadsheet import original
from anomalib_medclip.testing.method_case import MethodCase
from anomalib_medclip.testing.promises.promise import differing, hold, learnt


def scores_lie_between_zero_and_one(case: MethodCase) -> None:
    """Scores and maps are finite numbers in [0, 1], and clipping makes no ties."""
    model = case.trained.model.eval()
    with torch.inference_mode():
        found = model(case.images)
    for name, values in (("scores", found.pred_score), ("maps", found.anomaly_map)):
        hold(values.isfinite().all(), f"{name} is not finite")
        hold(values.min() >= 0 and values.max() <= 1, f"{name} leaves [0, 1]")
    count = len(case.images)
    hold(
        found.anomaly_map.shape == (count, case.side, case.side),
        f"maps are {found.anomaly_map.shape}",
    )
    hold(found.pred_score.shape == (count,), f"scores are {found.pred_score.shape}")
    hold(len(found.pred_score.unique()) == count, "images of different pixels have one score")


def scores_an_image_alone_as_in_a_batch(case: MethodCase) -> None:
    """An image has the score and the map that it has in any company, but for rounding."""
    # Before they are brought to thresholds, which may stretch what hardly differs.
    model = case.trained.model.eval().model
    with torch.inference_mode():
        together = model(case.images)
        alone = [model(image[None]) for image in case.images]
    for joined, values in (
        (torch.cat([one.pred_score for one in alone]), together.pred_score),
        (torch.cat([one.anomaly_map for one in alone]), together.anomaly_map),
    ):
        spread = (values.max() - values.min()).item()
        torch.testing.assert_close(joined, values, atol=1e-6 + 2e-5 * spread, rtol=0)


def learns_nothing_from_images_to_score(case: MethodCase) -> None:
    """A test changes nothing in it, and an image has its score whatever else is tested."""
    with case.home() as home:
        model = case.method.load_from_checkpoint(case.trained.checkpoint)
        before, engine, found = learnt(model), case.engine(home), []
        for only in (None, 0, 1):
            data = case.data() if only is None else case.data_tested_on(only)
            engine.test(model, datamodule=data, verbose=False)
            found.append(_scores_in(home))
        hold(not differing(before, learnt(model)), "a test has changed what was learnt")
        engine.predict(model, data_path=case.lesions / "images" / "abnormal")
        hold(not differing(before, learnt(model)), "a prediction has changed what was learnt")
    whole, *parts = found
    for part in parts:
        hold(part and part.keys() < whole.keys(), "these are no part of the images")
        for path, score in part.items():
            words = f"{path} scores {score} or {whole[path]}, by what else is tested"
            hold(abs(score - whole[path]) < 1e-5, words)


def _scores_in(home: Path) -> dict[str, float]:
    """Those of the run that wrote last."""
    tables = sorted(home.rglob("test_scores.csv"), key=lambda one: one.stat().st_mtime_ns)
    with tables[-1].open(newline="", encoding="utf-8") as file:
        return {original(row["image"]): float(row["pred_score"]) for row in csv.DictReader(file)}


def leaves_an_owner_out_of_its_memory(case: MethodCase) -> None:
    """Asked to leave a support image out, it does not compare the image with itself."""
    trained = case.trained
    torch_model = copy.deepcopy(trained.model).eval().model
    support: Any = trained.data.support_data
    normal = [item for item in map(support.__getitem__, range(len(support))) if not item.gt_label]
    images = torch.stack([item.image for item in normal]).as_subclass(Tensor)
    text = torch_model.known_text()
    owners = torch.arange(len(images))
    labels = torch.zeros(len(images), dtype=torch.bool)
    with torch.no_grad():
        encoded = torch_model.encode(images)
        torch_model.fit_support(encoded, encoded[None], labels, owners)
        seen, nobody, unseen = (
            torch_model.score(encoded, text, who).anomaly_map
            for who in (None, torch.full_like(owners, -1), owners)
        )
    torch.testing.assert_close(seen, nobody, atol=1e-5, rtol=0)
    same = torch.allclose(seen, unseen, atol=1e-6)
    uses = torch_model.has_memory and torch_model.few_shot
    words = "is compared with itself all the same" if uses else "has no memory, and yet differs"
    hold(same is not uses, f"an image left out {words}")


def explains_itself_on_its_own_scale(case: MethodCase) -> None:
    """What it shows of levels, neighbours and embeddings fits its maps, and changes nothing."""
    model = copy.deepcopy(case.trained.model).eval().model
    before, images = learnt(model), case.images[:3]
    with torch.no_grad():
        encoded, text = model.encode(images), model.known_text()
        whole = model.score(encoded, text).anomaly_map
        maps, near = model.level_maps(encoded, text), model.nearest_support(encoded)
        vectors = model.embeddings(encoded, text)
        again = model.score(encoded, text).anomaly_map
    hold(torch.equal(whole, again) and not differing(before, learnt(model)), "looking changed it")
    levels = len(model.scored_levels)
    for name, of_level in maps.items():
        hold(
            of_level.shape == (levels, 3, case.side, case.side), f"maps {name} are {of_level.shape}"
        )
        hold(of_level.min() >= 0 and of_level.max() <= 1, f"maps {name} leave [0, 1]")
    if near is not None:
        hold(near.distance.shape[:2] == (levels, 3), f"distances are {near.distance.shape}")
        hold(near.distance.min() >= -1e-6 and near.distance.max() <= 2, "distances leave [0, 2]")
    for name, value in vectors.items():
        hold(value.ndim == 3 and len(value) == 3, f"embeddings {name} are {value.shape}")


def traces_to_the_same_numbers(case: MethodCase) -> None:
    """A graph traced of it, with batches of any size, gives its numbers."""
    model = case.method.load_from_checkpoint(case.shallow_checkpoint).eval()
    images, batch = case.images, torch.export.Dim("batch")
    with torch.no_grad():
        traced = torch.export.export(
            model, (images[:2],), dynamic_shapes=({0: batch},), strict=False
        ).module()
        mine, theirs, post = model(images[:3]), traced(images[:3]), model.post_processor
    # As the model gives them: post-processing divides by the range of a few validation scores.
    scale = {"pred_score": post.image_max - post.image_min}
    scale["anomaly_map"] = post.pixel_max - post.pixel_min
    for name, found in mine._asdict().items():
        size = float(scale.get(name, 1.0))
        torch.testing.assert_close(found * size, getattr(theirs, name) * size, atol=1e-5, rtol=0)
