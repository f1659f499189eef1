"""An image in one vector, by which it is known whether others are like it."""

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from anomalib_medclip.decisions.familiarity import Familiarity

_CELLS = 4
"""Of a row: what is where counts, as a brain in a ring of skull does, and not where exactly."""


def cell_vectors(
    patches: Float[Tensor, "batch patch width"],
) -> Float[Tensor, "batch 16*width"]:
    """Mean patch token of each cell of a coarse grid, of length one, cells side by side.

    Args:
        patches: Row by row of a square.
    """
    side = round(patches.shape[1] ** 0.5)
    square = patches.float().transpose(1, 2).unflatten(2, (side, side))
    cells = F.adaptive_avg_pool2d(square, _CELLS).flatten(2).transpose(1, 2)
    return F.normalize(cells, dim=-1).flatten(1)


class SeenImage(NamedTuple):
    """An image that the frozen tower has seen.

    Attributes:
        path: Its name.
        owner: Its patient; the image itself where that is not known.
        vector: As ``cell_vectors`` gives it, in float16.
    """

    path: str
    owner: str
    vector: Tensor


def seen_images(batch: Any, vectors: Tensor | None) -> list[SeenImage]:  # noqa: ANN401 - anyone's
    """The images of a batch, and their vectors, if there are any."""
    if vectors is None:
        return []
    paths = [str(path) for path in batch.image_path]
    owners = getattr(batch, "group", None) or paths  # batches of others' making have none
    kept = vectors.detach().half().cpu()
    return [
        SeenImage(path, owner or path, vector)
        for path, owner, vector in zip(paths, owners, kept, strict=True)
    ]


MOST = 128
"""Images that are kept; more tell little more, and a checkpoint has to hold them."""


def chosen_among(seen: Iterable[SeenImage]) -> list[SeenImage]:
    """At most ``MOST`` of these, the same whatever their order; each image once."""
    by_path = {image.path: image for image in seen}
    return [by_path[path] for path in sorted(by_path, key=shuffled)[:MOST]]


class FamiliarImages(NamedTuple):
    """Images that a model was made with, as ``cell_vectors`` in float16.

    Attributes:
        vectors: Of each; empty where there are none.
        owners: Number of the patient of each.
    """

    vectors: Float[Tensor, "image value"]
    owners: Int[Tensor, "image"]

    @classmethod
    def none(cls) -> "FamiliarImages":
        """No images."""
        return cls(torch.empty(0, 0, dtype=torch.float16), torch.empty(0, dtype=torch.int64))

    @classmethod
    def of(cls, seen: Iterable[SeenImage]) -> "FamiliarImages":
        """At most ``MOST`` of these, whatever their order; names are not kept."""
        chosen = chosen_among(seen)
        if not chosen:
            return cls.none()
        numbers = {name: at for at, name in enumerate(sorted({one.owner for one in chosen}))}
        owners = torch.tensor([numbers[one.owner] for one in chosen])
        return cls(torch.stack([one.vector for one in chosen]), owners)

    def familiarity(self) -> Familiarity:
        """What is like them."""
        return Familiarity(self.vectors.float().numpy(), self.owners.tolist())


def shuffled(name: str) -> str:
    """What names are sorted by for an order like chance, which depends on nothing but them."""
    return hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()
