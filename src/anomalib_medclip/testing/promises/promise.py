"""What a promise is, and how it says that it is broken."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from types import FunctionType, ModuleType

import torch
from torch import Tensor

from anomalib_medclip.clip.backbone import without_clip
from anomalib_medclip.testing.method_case import MethodCase

Promise = Callable[[MethodCase], None]


def promises_of(module: ModuleType) -> Iterator[Promise]:
    """The promises that a module defines, in their order there."""
    for name, value in vars(module).items():
        own = isinstance(value, FunctionType) and value.__module__ == module.__name__
        if own and not name.startswith("_"):
            yield value


def of_learning(promise: Promise) -> Promise:
    """A promise of what training does; a method in which nothing learns keeps it by that."""

    @wraps(promise)
    def asked(case: MethodCase) -> None:
        if case.method.learns:
            promise(case)

    return asked


def of_option(name: str) -> Callable[[Promise], Promise]:
    """A promise of what an option does; a method that declares no use for it keeps it by that."""

    def of(promise: Promise) -> Promise:
        @wraps(promise)
        def asked(case: MethodCase) -> None:
            if name not in case.method.no_use_for:
                promise(case)

        return asked

    return of


def hold(kept: object, words: str) -> None:
    """Go on if something holds.

    Raises:
        AssertionError: It does not; the words say what was expected.
    """
    if not kept:
        raise AssertionError(words)


@contextmanager
def refused(kind: type[Exception], word: str) -> Iterator[None]:
    """Expect an error, and a word in its message.

    Raises:
        AssertionError: It did not come, or does not say so.
    """
    try:
        yield
    except kind as error:
        hold(word in str(error), f"{kind.__name__} should say {word!r}; it says: {error}")
    else:
        hold(False, f"{kind.__name__} was expected, saying {word!r}")


def learnt(model: torch.nn.Module) -> dict[str, Tensor]:
    """A copy of all that a model holds besides the frozen towers."""
    return {name: value.clone() for name, value in without_clip(model.state_dict()).items()}


def differing(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> list[str]:
    """Names of tensors that are not equal to the bit; NaN is NaN."""
    names = sorted(first.keys() | second.keys())
    return [n for n in names if n not in first or n not in second or not _same(first[n], second[n])]


def _same(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    both_nan = one.isnan() & other.isnan()
    return bool((both_nan | (one == other)).all())
