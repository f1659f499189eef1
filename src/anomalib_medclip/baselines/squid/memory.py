"""What SQUID keeps of normal images: memories of windows and of their parts, and in-painting."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from anomalib_medclip.baselines.squid.networks import cut, glued

NEAREST = 4
"""Slots that are recalled; the weights of all others become 0."""

KEPT = 0.95
"""Share of positions that take what a memory gives, in training."""


def recalled(
    queries: Float[Tensor, "query width"], slots: Float[Tensor, "slot width"]
) -> Float[Tensor, "query width"]:
    """What a memory has in the place of vectors: a mean of the few slots most like each.

    The gradient is that of all slots' weights, as if none became 0.

    Args:
        queries: Vectors.
        slots: Of the memory.
    """
    weights = (queries @ slots.T).softmax(dim=1)
    largest, places = weights.topk(min(NEAREST, weights.shape[1] - 1), dim=1)
    few = torch.zeros_like(weights).scatter(1, places, largest / largest.sum(dim=1, keepdim=True))
    return (weights + (few - weights).detach()) @ slots


def with_shortcut(
    made: Float[Tensor, "batch channel height width"],
    given: Float[Tensor, "batch channel height width"],
    training: bool,
) -> Float[Tensor, "batch channel height width"]:
    """What a memory has made; in training, at some positions, what it was given."""
    if not training:
        return made
    kept = drawn(made)
    return made * kept + given * (1 - kept)


def drawn(maps: Float[Tensor, "batch _ height width"]) -> Float[Tensor, "batch 1 height width"]:
    """1 where a position is kept, 0 elsewhere."""
    return torch.bernoulli(torch.full_like(maps[:, :1], KEPT))


class Queue(nn.Module):
    """Vectors of the last normal windows of one place; it has no gradient, and is written to.

    Args:
        slots: How many.
        width: Of a vector.
    """

    rows: Tensor
    pointer: Tensor

    def __init__(self, slots: int, width: int) -> None:
        super().__init__()
        self.register_buffer("rows", _uniform(slots, width))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))

    def forward(self, queries: Float[Tensor, "query width"]) -> Float[Tensor, "query width"]:
        """What it has in their place."""
        return recalled(queries, self.rows)

    @torch.no_grad()
    def push(self, vectors: Float[Tensor, "query width"]) -> None:
        """Write vectors in the place of the oldest."""
        slots = len(self.rows)
        places = (self.pointer + torch.arange(len(vectors), device=vectors.device)) % slots
        # Reading has kept the rows for the gradient, and is done with them by now.
        self.rows.index_copy_(0, places[-slots:], vectors[-slots:])
        self.pointer.copy_((self.pointer + len(vectors)) % slots)


class PartMemory(nn.Module):
    """A learned memory for each of the four parts of a map.

    Args:
        slots: Of each memory.
        width: Of a part.
    """

    def __init__(self, slots: int, width: int) -> None:
        super().__init__()
        self.rows = nn.ParameterList(nn.Parameter(_uniform(slots, width)) for _ in range(4))

    def forward(
        self, maps: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch channel height width"]:
        """The maps, with what memories have in the place of their parts."""
        parts = cut(maps, 2).movedim(1, 3)  # position by position, each with its channels
        of_maps = parts.flatten(1).unflatten(0, (-1, 4))
        found = [recalled(of_maps[:, at], rows) for at, rows in enumerate(self.rows)]
        made = torch.stack(found, dim=1).flatten(0, 1).unflatten(1, parts.shape[1:])
        return with_shortcut(glued(made.movedim(3, 1), 2), maps, self.training)


class InPainting(nn.Module):
    """Each window, made anew of what its memory has for it and for its neighbours.

    Args:
        channels: Of the map of a window.
        inner: Of the same in the middle.
        side: Of the map.
        parts: Windows of a row.
        slots: Of the memory of each window.
    """

    HEADS = 8
    codes: Tensor

    def __init__(self, channels: int, inner: int, side: int, parts: int, slots: int) -> None:
        super().__init__()
        width = inner * side**2
        self.parts, self.shape = parts, (inner, side, side)
        codes = _codes(parts**2)
        self.register_buffer("codes", codes, persistent=False)
        self.bottleneck_conv1 = nn.Sequential(
            nn.Conv2d(channels, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU()
        )
        self.memory = nn.ModuleList(Queue(slots, width) for _ in range(parts**2))
        self.attention = nn.MultiheadAttention(width, self.HEADS, batch_first=True)
        self.attn_norm1, self.attn_norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        # The authors have dropouts here that drop nothing; the first keeps its number.
        self.ff = nn.Sequential(
            nn.Linear(width, width // 4), nn.Identity(), nn.ReLU(), nn.Linear(width // 4, width)
        )
        self.bottleneck_conv2 = nn.Sequential(
            nn.Conv2d(inner + codes.shape[1], channels, 1), nn.BatchNorm2d(channels), nn.ReLU()
        )

    def queries(
        self, windows: Float[Tensor, "window channel side side"]
    ) -> Float[Tensor, "batch place width"]:
        """The vector of each window, image by image."""
        vectors = self.bottleneck_conv1(windows).flatten(1)
        return vectors.unflatten(0, (-1, self.parts**2))

    def forward(
        self, windows: Float[Tensor, "window channel side side"]
    ) -> tuple[Float[Tensor, "window channel side side"], Float[Tensor, "batch place width"]]:
        """The windows made anew, and the vectors that memories were asked for."""
        asked = self.queries(windows)
        found = torch.stack([memory(asked[:, at]) for at, memory in enumerate(self.memory)], dim=1)
        near = _neighbours(found, self.parts).flatten(0, 1)
        query = asked.flatten(0, 1)[:, None]
        attended = self.attention(query, near, near, need_weights=False)[0][:, 0]
        vectors = found.flatten(0, 1)
        vectors = F.relu(self.attn_norm1(attended) + vectors)
        vectors = F.relu(self.attn_norm2(self.ff(vectors)) + vectors)
        places = self.codes.expand(asked.shape[0], -1, -1).flatten(0, 1)[:, :, None, None]
        inner = vectors.unflatten(1, self.shape)
        whole = torch.cat([inner, places.expand(-1, -1, *self.shape[1:])], dim=1)
        made = self.bottleneck_conv2(whole)
        return with_shortcut(made, windows, self.training), asked

    def push(self, asked: Float[Tensor, "batch place width"]) -> None:
        """Write the vectors of normal windows to the memories of their places."""
        for at, memory in enumerate(self.memory):
            memory.push(asked[:, at])  # type: ignore[operator]  # a Queue


def _codes(places: int) -> Float[Tensor, "place bit"]:
    """The number of each place in binary, the highest bit first.

    Example:
        >>> _codes(4)[3]
        tensor([0., 1., 1.])
    """
    bits = range(int(math.log2(places)), -1, -1)
    return torch.tensor([[float(place >> bit & 1) for bit in bits] for place in range(places)])


def _neighbours(
    vectors: Float[Tensor, "batch place width"], parts: int
) -> Float[Tensor, "batch place 8 width"]:
    """Vectors of the eight places around each; beyond the edge, zeros."""
    grid = vectors.transpose(1, 2).unflatten(2, (parts, parts))
    around = F.unfold(grid, 3, padding=1).unflatten(1, (-1, 9))
    others = torch.cat([around[:, :, :4], around[:, :, 5:]], dim=2)
    return others.permute(0, 3, 2, 1)


def _uniform(slots: int, width: int) -> Float[Tensor, "slots width"]:
    return torch.empty(slots, width).uniform_(-1, 1) / math.sqrt(width)
