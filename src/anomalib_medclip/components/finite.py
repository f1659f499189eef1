"""What is NaN or infinite is no result: losses, weights, scores and maps are refused.

A comparison with NaN is false, so that a broken score would count as normal, silently.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from anomalib_medclip.errors import NonFiniteError


def non_finite(*values: Float[Tensor, "batch *any"] | None) -> Bool[Tensor, "batch"]:
    """Which images of a batch have a number that is NaN or infinite.

    Example:
        >>> non_finite(torch.tensor([0.5, 0.5]), torch.tensor([[[0.1, torch.inf]], [[0.1, 0.2]]]))
        tensor([ True, False])
    """
    known = [value.detach().reshape(len(value), -1) for value in values if value is not None]
    return ~torch.stack([value.isfinite().all(dim=1) for value in known]).all(dim=0)


def refuse_non_finite(
    scores: Float[Tensor, "batch"] | None,
    maps: Float[Tensor, "batch *pixels"] | None,
    names: Sequence[object] = (),
) -> None:
    """Let nothing pass that is NaN or infinite.

    Args:
        scores: How abnormal the images of a batch are, if that is known.
        maps: How abnormal their pixels are, if that is known.
        names: What to call the images, if they have names.

    Raises:
        NonFiniteError: Some are; the first image is named.
    """
    if scores is None and maps is None:
        return
    broken = non_finite(scores, maps)
    if not broken.any():
        return
    of = f" of {names[int(broken.nonzero()[0])]}" if names else ""
    msg = (
        f"a score or map{of} is NaN or infinite, which is neither normal nor abnormal: the model "
        f"has diverged or overflowed; {NonFiniteError.remedy}"
    )
    raise NonFiniteError(msg)


def refuse_non_finite_state(state: Mapping[str, Tensor], where: object) -> None:
    """Let no model pass that has learnt what is NaN or infinite.

    Thresholds that nobody has found yet are NaN, and pass.

    Args:
        state: What was learnt, by name.
        where: What to call the model.

    Raises:
        NonFiniteError: A number is not finite; its name is in the message.
    """
    for name, value in state.items():
        fine = value.isfinite()
        if name.startswith("post_processor."):
            fine |= value.isnan()
        if not fine.all():
            why = "is NaN or infinite: the model has diverged"
            msg = f"{name} of {where} {why}; {NonFiniteError.remedy}"
            raise NonFiniteError(msg)
