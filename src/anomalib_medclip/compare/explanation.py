"""What lies behind a trained model's answers: maps of each level, nearest support, embeddings.

A method offers what it can by the verbs of ``ClipModel``; nothing here knows a method.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from anomalib.data import InferenceBatch
from anomalib.models.components.base import AnomalibModule
from jaxtyping import Float, UInt8
from sklearn.manifold import TSNE
from torch import Tensor

from anomalib_medclip.compare.cell_record import Arrays
from anomalib_medclip.compare.dataset_result import KeptExplanation, NearestPatch
from anomalib_medclip.compare.pictures import as_255ths
from anomalib_medclip.compare.untouched import untouched
from anomalib_medclip.components.model import ClipModel, NearestSupport
from anomalib_medclip.data.batch import MedicalDataset, MedicalItem

PICTURES = 6
"""Images whose maps and nearest patches are kept, unless asked otherwise."""

POINTS = 300
"""Most points of an embedding plot; t-SNE takes seconds for these, and minutes for thousands."""

_FEWEST_POINTS = 5
_BATCH = 8


@dataclass(frozen=True)
class Explanation:
    """What was found out about some test images.

    Attributes:
        shown: Positions, among the items given, of the images with pictures.
        embedded: Positions of the images in embedding plots.
        levels: Blocks whose maps there are, counted from 1.
        grid: Patches along each side of an image; 0 where ``nearest`` is empty.
        pictures: The images shown.
        masks: 255 on the lesion; ``None`` for a set without masks.
        maps: The final maps, times 255; the threshold lies at one half.
        level_maps: By branch, the map of each level alone, on the scale of ``maps``.
        nearest: For each image shown and each level, the hottest patch and the support patch that
            is nearest to it. Empty where nothing is compared with a support.
        support: File names of the normal support images, without folders.
        support_pictures: Each copy of a support image that ``nearest`` points to, as it is in the
            memory bank.
        embeddings: By name, places of the vectors in a t-SNE plot, without unit.
    """

    shown: tuple[int, ...]
    embedded: tuple[int, ...]
    levels: tuple[int, ...]
    grid: int
    pictures: UInt8[np.ndarray, "image height width 3"]
    masks: UInt8[np.ndarray, "image height width"] | None
    maps: UInt8[np.ndarray, "image height width"]
    level_maps: dict[str, UInt8[np.ndarray, "image level height width"]]
    nearest: tuple[tuple[NearestPatch, ...], ...]
    support: tuple[str, ...]
    support_pictures: UInt8[np.ndarray, "picture height width 3"]
    embeddings: dict[str, Float[np.ndarray, "image vector 2"]]

    def as_record(self, prefix: str, positions: Sequence[int]) -> tuple[KeptExplanation, Arrays]:
        """A part for the cell's JSON, and the arrays that it names.

        Args:
            prefix: Begins the names of the arrays, such as ``test0_explain``.
            positions: Of each item given, its position among the record's test images.
        """
        arrays: Arrays = {}
        support = self.support_pictures

        def keep(name: str, value: np.ndarray) -> str:
            arrays[f"{prefix}_{name}"] = value
            return f"{prefix}_{name}"

        def keep_all(name: str, values: Mapping[str, np.ndarray]) -> dict[str, str]:
            return {key: keep(f"{name}{n}", value) for n, (key, value) in enumerate(values.items())}

        kept = KeptExplanation(
            image=tuple(int(positions[number]) for number in self.shown),
            embedded=tuple(int(positions[number]) for number in self.embedded),
            levels=self.levels,
            grid=self.grid,
            nearest=self.nearest,
            support=self.support,
            pictures=keep("pictures", self.pictures),
            masks=None if self.masks is None else keep("masks", self.masks),
            maps=keep("maps", self.maps),
            level_maps=keep_all("level_maps", self.level_maps),
            support_pictures=keep("support_pictures", support) if len(support) else None,
            embeddings=keep_all("embedding", self.embeddings),
        )
        return kept, arrays


def explain(
    model: AnomalibModule,
    items: Sequence[MedicalItem],
    support: MedicalDataset | None,
    seed: int,
    pictures: int = PICTURES,
) -> Explanation | None:
    """Explain a trained model's answers to some test images; nothing changes by it.

    Args:
        model: Trained, its thresholds and support in place.
        items: Test images at the model's size. All are embedded, up to ``POINTS`` points; pictures
            are of the first normal and abnormal ones, in turn.
        support: The support images that the model was fitted to, at the same size.
        seed: Seed of t-SNE.
        pictures: Most images to have maps and nearest patches of.

    Returns:
        ``None`` where the model offers nothing to explain it by, as anomalib's own do not.
    """
    torch_model = model.model
    if not isinstance(torch_model, ClipModel) or not items:
        return None
    shown = _in_turn(items)[:pictures]
    with untouched(model), torch.no_grad():
        embedded, vectors = _vectors(torch_model, items)
        images = _stacked([items[number] for number in shown])
        encoded = torch_model.encode(images.to(torch_model.device))
        level_maps = torch_model.level_maps(encoded, torch_model.known_text())
        nearest = torch_model.nearest_support(encoded)
        if not (level_maps or nearest or vectors):
            return None
        found = {**_maps(model, encoded, level_maps), **_matches(model, nearest, support)}
    return Explanation(
        **found,
        shown=shown,
        embedded=embedded,
        levels=torch_model.scored_levels,
        pictures=_pictures(images),
        masks=_masks([items[number] for number in shown]),
        embeddings={name: _places(value, seed) for name, value in vectors.items()},
    )


def _in_turn(items: Sequence[MedicalItem]) -> tuple[int, ...]:
    """Positions of normal and abnormal images, in turn."""
    labels = [bool(item.gt_label) for item in items]
    by_class = ([n for n, ill in enumerate(labels) if ill is one] for one in (True, False))
    return tuple(n for pair in zip_longest(*by_class) for n in pair if n is not None)


def _maps(
    model: Any,  # noqa: ANN401 - an AnomalibModule that encodes
    encoded: Tensor,
    level_maps: Mapping[str, Tensor],
) -> dict[str, Any]:
    """The final maps and those of each level, all brought to the one scale of the threshold."""
    answers = model.model.score(encoded, model.model.known_text())

    def normalised(maps: Tensor) -> UInt8[np.ndarray, "image height width"]:
        batch = InferenceBatch(pred_score=answers.pred_score, anomaly_map=maps)
        post = model.post_processor
        return as_255ths(cast("Tensor", (batch if post is None else post(batch)).anomaly_map))

    return {
        "maps": normalised(answers.anomaly_map),
        "level_maps": {
            name: np.stack([normalised(level) for level in maps], axis=1)
            for name, maps in level_maps.items()
        },
    }


def _matches(
    model: Any,  # noqa: ANN401 - an AnomalibModule that encodes
    nearest: NearestSupport | None,
    support: MedicalDataset | None,
) -> dict[str, Any]:
    """The hottest patch of each image and level, and the support patch nearest to it."""
    if nearest is None or support is None:
        nothing = np.zeros((0, 0, 0, 3), np.uint8)
        return {"grid": 0, "nearest": (), "support": (), "support_pictures": nothing}
    normal = [item for item in map(support.__getitem__, range(len(support))) if not item.gt_label]
    levels, images, patches = nearest.distance.shape
    grid = math.isqrt(patches)
    hottest = nearest.distance.argmax(dim=-1, keepdim=True)
    mean = nearest.distance.mean(dim=-1)
    there = [part.gather(-1, hottest)[..., 0].tolist() for part in nearest]
    entries = {entry for of_level in there[1] for entry in of_level}
    needed = sorted(divmod(entry, len(normal))[::-1] for entry in entries)

    def match(image: int, level: int) -> NearestPatch:
        distance, entry, patch = (part[level][image] for part in there)
        copy, number = divmod(entry, len(normal))
        return NearestPatch(
            level=model.model.scored_levels[level],
            distance=distance,
            mean=float(mean[level, image]),
            patch=divmod(int(hottest[level, image]), grid),
            support=number,
            copy=copy,
            support_patch=None if patch < 0 else divmod(patch, grid),
            picture=needed.index((number, copy)),
        )

    augment = model.augmentations.normal
    copies = [augment[copy](_stacked([normal[number]])) for number, copy in needed]
    return {
        "grid": grid,
        "nearest": tuple(
            tuple(match(image, level) for level in range(levels)) for image in range(images)
        ),
        "support": tuple(Path(str(item.image_path)).name for item in normal),
        "support_pictures": _pictures(torch.cat(copies)),
    }


def _vectors(
    model: ClipModel, items: Sequence[MedicalItem]
) -> tuple[tuple[int, ...], dict[str, Float[np.ndarray, "image vector width"]]]:
    """Positions of the images that are embedded, and their vectors by name."""
    chosen = sorted(_in_turn(items)[: POINTS // 2])  # an image may have two vectors
    found: dict[str, list[Tensor]] = {}
    for start in range(0, len(chosen), _BATCH):
        images = _stacked([items[number] for number in chosen[start : start + _BATCH]])
        encoded = model.encode(images.to(model.device))
        for name, vectors in model.embeddings(encoded, model.known_text()).items():
            found.setdefault(name, []).append(vectors.cpu())
    whole = {name: torch.cat(parts).double().numpy() for name, parts in found.items()}
    whole = {name: vectors for name, vectors in whole.items() if _can_be_placed(vectors)}
    return (tuple(chosen) if whole else ()), whole


def _can_be_placed(vectors: Float[np.ndarray, "image vector width"]) -> bool:
    """Whether there are points enough that differ by more than rounding."""
    points = vectors.reshape(-1, vectors.shape[-1])
    return len(np.unique(points.round(5), axis=0)) >= _FEWEST_POINTS


def _places(
    vectors: Float[np.ndarray, "image vector width"], seed: int
) -> Float[np.ndarray, "image vector 2"]:
    """Places in a plane by t-SNE, whose neighbours mean something and whose distances do not."""
    points = vectors.reshape(-1, vectors.shape[-1])
    perplexity = min(30.0, (len(points) - 1) / 3)
    # Exact, because the approximation's sums depend on the number of threads.
    plane = TSNE(init="pca", perplexity=perplexity, method="exact", random_state=seed)
    return plane.fit_transform(points).astype(np.float32).reshape(*vectors.shape[:2], 2)


def _stacked(items: Sequence[MedicalItem]) -> Float[Tensor, "image 3 height width"]:
    images: list[Any] = [item.image for item in items]
    return torch.stack(images).as_subclass(Tensor)


def _masks(items: Sequence[MedicalItem]) -> UInt8[np.ndarray, "image height width"] | None:
    masks: list[Any] = [item.gt_mask for item in items if item.gt_mask is not None]
    return as_255ths(torch.stack(masks)) if masks else None


def _pictures(
    images: Float[Tensor, "image 3 height width"],
) -> UInt8[np.ndarray, "image height width 3"]:
    return as_255ths(images.movedim(1, -1))
