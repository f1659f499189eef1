"""Which normal images of a memory an image may be compared with, by whose they are."""

from jaxtyping import Bool, Int
from torch import Tensor

from anomalib_medclip.errors import NotReadyError


def others(
    owners: Int[Tensor, "row"], leave_out: Int[Tensor, "batch"]
) -> Bool[Tensor, "batch row"]:
    """Which rows of a memory each image may see.

    Args:
        owners: Owner of each row, as ``fit_support`` was told; of none where it was restored.
        leave_out: Owner whose rows each image must not see; -1 for none.

    Raises:
        NotReadyError: Nobody knows whose the rows are, or an image may see none.

    Example:
        >>> import torch
        >>> others(torch.tensor([0, 0, 1]), torch.tensor([0, -1]))
        tensor([[False, False,  True],
                [ True,  True,  True]])
    """
    if not len(owners):
        msg = "a checkpoint does not say whose its normal images are, so that none can be left "
        msg += "out; score without leave_out, or fit the support again"
        raise NotReadyError(msg)
    out = leave_out.to(owners.device)[:, None]
    seen: Tensor = (owners != out) | (out < 0)
    if not seen.any(dim=1).all():
        msg = "no other normal image to compare with; leave-one-out needs at least two"
        raise NotReadyError(msg)
    return seen
