"""Images of one input after another through a model, in batches that are always full.

A matrix product rounds differently at another number of rows. Of a batch of one size, a row comes
out the same to the bit whatever stands beside it and, in most runtimes, wherever it stands; there
inputs may share a batch, and each gets what it would get alone.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, repeat
from typing import Any, NamedTuple, TypeAlias, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from anomalib_medclip.errors import NonFiniteError
from anomalib_medclip.readers.resize import MethodResize
from anomalib_medclip.score.inferencer import BatchPrediction, full_map


class SliceScores(NamedTuple):
    """What a model says of the slices of a volume.

    Attributes:
        numbers: Numbers along the cut of the slices that were scored.
        scores: How abnormal each slice is, in [0, 1]; 0.5 is the threshold of single images.
        labels: Whether each counts as abnormal; ``None`` if the model knows no threshold.
        maps: How abnormal each pixel is, in [0, 1], for all slices of the cut; 0 in those that
            were not scored.
        areas: As of ``BatchPrediction``, and as validation measures them: at the model's size.
        vectors: As of ``BatchPrediction``.
    """

    numbers: tuple[int, ...]
    scores: Float[Tensor, "scored"]
    labels: Bool[Tensor, "scored"] | None
    maps: Float[Tensor, "slice row column"]
    areas: Float[Tensor, "scored"]
    vectors: Float[Tensor, "scored value"] | None = None


Answer: TypeAlias = tuple[Tensor, Tensor | None, Tensor, Tensor, Tensor | None]
"""Score, label if there is one, map, its area above the threshold, and vector if there is one."""


@dataclass(eq=False)
class Stack:
    """Images of one input, and what a model has said of them so far.

    Attributes:
        numbers: Which slices of the input they are.
        shape: Slices, rows and columns of the input.
        images: At the model's size, in [0, 1]; grey ones have one channel.
        answers: What it has said of the first of them.
        failed: Why there are no more, if one of them has none.
    """

    numbers: tuple[int, ...]
    shape: tuple[int, ...]
    images: Float[Tensor, "scored channel side side"]
    answers: list[Answer] = field(default_factory=list, init=False)
    failed: str = field(default="", init=False)

    @property
    def done(self) -> bool:
        """Whether nothing more is to be asked: all images have their answer, or one has none."""
        return bool(self.failed) or len(self.answers) == len(self.images)

    def take(self, found: Answer | NonFiniteError) -> None:
        """Add the answer of the next image; after one without, there is nothing to add."""
        if isinstance(found, NonFiniteError):
            number = self.numbers[len(self.answers)]
            self.failed = self.failed or f"slice {number}: {found}"
        elif not self.failed:
            self.answers.append(found)

    def scores(self) -> SliceScores:
        """The answers together, maps at the size of the input.

        Raises:
            NonFiniteError: An image has none, because its score or map is NaN or infinite.
        """
        if self.failed:
            raise NonFiniteError(self.failed)
        scores, labels, small, areas, vectors = zip(*self.answers, strict=True)
        maps = torch.zeros(self.shape)
        for number, one in zip(self.numbers, small, strict=True):
            maps[number] = full_map(one, self.shape[1:])
        return SliceScores(
            numbers=self.numbers, scores=torch.stack(scores), labels=_stacked(labels), maps=maps,
            areas=torch.stack(areas), vectors=_stacked(vectors),
        )  # fmt: skip


def _stacked(found: Sequence[Any]) -> Tensor | None:
    """All of them, where there is any."""
    return None if found[0] is None else torch.stack(list(found))


Some = TypeVar("Some", bound=Stack)


def resized_slices(
    resize: MethodResize, images: Float[Tensor, "slice row column"], numbers: Iterable[int]
) -> Float[Tensor, "scored 1 side side"]:
    """Some slices of a volume at the model's size, resized as pictures of three channels are."""
    return torch.stack(
        [resize(images[number].expand(3, -1, -1)).as_subclass(Tensor)[:1] for number in numbers]
    )


def in_batches(
    answer: Callable[[Tensor], BatchPrediction],
    stacks: Iterable[Some],
    size: int,
    report: Callable[[Some], None] = lambda stack: None,
    *,
    shared: bool = True,
) -> Iterator[Some]:
    """Stacks with all answers, in their order; one with an answer that is not finite has failed.

    Args:
        answer: The model, on images ``(batch, 3, side, side)``.
        stacks: Each with an image at least. The next one is asked for as soon as there is room
            for its images.
        size: Images at once; the last batch is filled up with its last image.
        report: Told after each batch, of the stack it ended in.
        shared: Whether batches go on from one stack into the next. Without, a stack smaller than
            a batch is one, as it is.
    """
    if not shared:
        for stack in stacks:
            yield from in_batches(answer, [stack], min(size, len(stack.images)), report)
        return
    begun: deque[Some] = deque()
    waiting = _images(stacks, begun)
    while part := list(islice(waiting, size)):
        found = _answered(answer, [image for _, image in part], size)
        for (stack, _), one in zip(part, found, strict=False):
            stack.take(one)
        report(part[-1][0])
        while begun and begun[0].done:
            yield begun.popleft()


def _images(stacks: Iterable[Some], begun: deque[Some]) -> Iterator[tuple[Some, Tensor]]:
    """All images, each with its stack, which is added to ``begun``."""
    for stack in stacks:
        begun.append(stack)
        for image in stack.images:
            if not stack.failed:
                yield stack, image.expand(3, -1, -1)


def _answered(
    answer: Callable[[Tensor], BatchPrediction], images: list[Tensor], size: int
) -> list[Answer | NonFiniteError]:
    """What a model says of each image; of one it has no number for, why.

    A batch that is refused is asked again image by image, each in a batch of its copies: the others
    get what they would have got.
    """
    try:
        found = answer(torch.stack(images + images[-1:] * (size - len(images))))
        parts: list[Any] = [repeat(None) if one is None else one for one in found]
        return list(zip(*parts, strict=False))
    except NonFiniteError as error:
        if len(images) == 1:
            return [error]
        return [one for image in images for one in _answered(answer, [image], size)[:1]]
