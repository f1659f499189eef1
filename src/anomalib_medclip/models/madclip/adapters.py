"""MadCLIP's adapters: at each level one for what is normal and one for what is abnormal."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from anomalib_medclip.clip.weights import released_by_authors
from anomalib_medclip.components.prompts import PromptEncoder
from anomalib_medclip.errors import WeightsError

logger = logging.getLogger(__name__)

Head = Literal["detect", "segment"]
"""What tokens are made for: the image's score or its map."""

HEADS: tuple[Head, Head] = ("detect", "segment")
"""Both of them."""


class Adapter(nn.Module):
    """A shared layer without bias, a layer norm without weights, and a layer for each head.

    Args:
        width: Width of the token stream.
        embed_dim: Width of the space shared with text.
        one_head: The layer for detection serves segmentation, too.
    """

    def __init__(self, width: int, embed_dim: int, one_head: bool = False) -> None:
        super().__init__()
        self.fc1 = nn.Sequential(nn.Linear(width, width, bias=False), nn.LeakyReLU())
        self.fc2 = nn.Sequential(nn.Linear(width, embed_dim, bias=False), nn.LeakyReLU())
        self.fc3: nn.Module | None = None
        if not one_head:
            self.fc3 = nn.Sequential(nn.Linear(width, embed_dim, bias=False), nn.LeakyReLU())

    def forward(
        self, tokens: Float[Tensor, "batch token width"], heads: Sequence[Head] = HEADS
    ) -> tuple[Float[Tensor, "batch token embed_dim"], ...]:
        """Tokens of each head that is asked for; by default for detection and for segmentation."""
        # The authors write InstanceNorm1d; on their axes it is this.
        shared = F.layer_norm(self.fc1(tokens), (tokens.shape[-1],))
        layers = {"detect": self.fc2, "segment": self.fc2 if self.fc3 is None else self.fc3}
        found = {layer: layer(shared) for layer in dict.fromkeys(layers[head] for head in heads)}
        return tuple(found[layers[head]] for head in heads)


def load_branches(
    normal: nn.ModuleList, abnormal: nn.ModuleList, prompts: PromptEncoder, path: str | Path
) -> None:
    """Load a file as the authors release them; of its copy of the text tower nothing is taken.

    Args:
        normal: Adapters of the normal branch.
        abnormal: Those of the abnormal branch.
        prompts: Take the file's context vectors, if they learn.
        path: Torch file with ``normal_det_adapters``, ``abnormal_det_adapters``,
            ``prompt_maker_normal`` and ``prompt_maker_abnormal``.

    Raises:
        WeightsError: The file is missing, is no such file, or does not fit.
    """
    if normal is abnormal:
        msg = f"file {path} holds adapters for two branches; leave branches at two"
        raise WeightsError(msg)
    if not prompts.learns:
        logger.warning("prompts are fixed: those of %s are not read", path)
    parts = (
        "normal_det_adapters, abnormal_det_adapters, prompt_maker_normal and "
        "prompt_maker_abnormal for these levels and this backbone"
    )
    with released_by_authors(path, "MadCLIP", parts) as state:
        normal.load_state_dict(state["normal_det_adapters"])
        abnormal.load_state_dict(state["abnormal_det_adapters"])
        if prompts.learns:
            prompts.load_state_dict(_contexts(state))


def _contexts(state: dict[str, Any]) -> dict[str, Tensor]:
    """The context vectors of both prompt makers, by the names of ``LearnablePrompts``."""
    prefix = "prompt_learner."
    return {
        name.removeprefix(prefix): value
        for maker in ("prompt_maker_normal", "prompt_maker_abnormal")
        for name, value in state[maker].items()
        if name.startswith(f"{prefix}ctx.{maker.removeprefix('prompt_maker_')}_")
    }
