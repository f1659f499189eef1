"""Files of all that a method's authors train, by the names that their code gives it."""

import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor, nn

from anomalib_medclip.clip.weights import released_by_authors

logger = logging.getLogger(__name__)


def renamed(theirs: str, ours: Mapping[str, str]) -> str:
    r"""What a parameter of the authors' is called here.

    Args:
        theirs: Its name.
        ours: Patterns and what stands in the place of each, applied one after the other.

    Example:
        >>> renamed("linear.fc.2.bias", {r"^linear\.fc\.": "linears."})
        'linears.2.bias'
    """
    for pattern, replacement in ours.items():
        theirs = re.sub(pattern, replacement, theirs)
    return theirs


def load_trained(
    model: nn.Module,
    path: str | Path,
    method: str,
    our_name: Callable[[str], str],
    without_effect: str = r"(?!)",
) -> None:
    """Load a file that holds each parameter that trains, and nothing else that has an effect.

    Args:
        model: A method's torch model with the published parts.
        path: Torch file of tensors by the authors' names, plain or as the only dictionary in it.
        method: The method's name, for messages.
        our_name: What a name of the authors' is here.
        without_effect: Pattern of names whose tensors change no result; they are left out.

    Raises:
        WeightsError: The file is missing, is no such file such as a checkpoint of this package, or
            does not fit.
    """
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    parts = "what the authors' code trains, for the method's options and backbone"
    with released_by_authors(path, method, parts) as state:
        if "anomalib_medclip" in state:  # the notes of our own checkpoints
            msg = "it is a checkpoint of anomalib-medclip: go on from it by 'anomalib train "
            msg += "--ckpt_path', or restore it by load_from_checkpoint, without adapters"
            raise ValueError(msg)
        if len(state) == 1 and isinstance(inner := next(iter(state.values())), dict):
            state = inner
        unused = [name for name in state if re.fullmatch(without_effect, name)]
        found = {our_name(n): v for n, v in state.items() if n not in unused}
        if differing := sorted(found.keys() ^ trained.keys()):
            raise KeyError(differing[0])
        # Their layers of one pixel, and their vectors, have axes of length 1 more.
        fitting = {name: _squeezed(v, trained[name]) for name, v in found.items()}
        model.load_state_dict(fitting, strict=False)
    if unused:
        logger.info("%s: %d tensors without effect are left out: %s", path, len(unused), unused[0])


def _squeezed(value: Tensor, like: Tensor) -> Tensor:
    """A tensor without axes of length 1 that another one does not have."""
    longer = value.ndim > like.ndim and value.squeeze().shape == like.squeeze().shape
    return value.reshape(like.shape) if longer else value
