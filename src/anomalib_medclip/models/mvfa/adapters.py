"""MVFA's adapters: two bottlenecks at each level, feeding back into the token stream."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from anomalib_medclip.clip.weights import released_by_authors
from anomalib_medclip.models.mvfa.variant import Activation, Variant


class Bottleneck(nn.Module):
    """Two layers without bias (eq. 1): the first one's output meets the text, the second's returns.

    Args:
        width: Width of the token stream.
        embed_dim: Width of the space shared with text.
        activation: As the code, leaky after both layers; eq. 1 has a ReLU after the first.
        is_projector: Have none after the first, as the paper's projector at the last level.
    """

    def __init__(
        self,
        width: int,
        embed_dim: int,
        activation: Activation = "leaky",
        is_projector: bool = False,
    ) -> None:
        super().__init__()
        leaky = activation == "leaky"
        first = nn.Identity() if is_projector else nn.LeakyReLU() if leaky else nn.ReLU()
        second = nn.LeakyReLU() if leaky else nn.Identity()
        self.fc1 = nn.Sequential(nn.Linear(width, embed_dim, bias=False), first)
        self.fc2 = nn.Sequential(nn.Linear(embed_dim, width, bias=False), second)

    def forward(
        self, stream: Float[Tensor, "batch token width"]
    ) -> tuple[Float[Tensor, "batch token embed_dim"], Float[Tensor, "batch token width"]]:
        """Tokens to compare, and what flows back into the stream."""
        tokens = self.fc1(stream)
        return tokens, self.fc2(tokens)


class Adapters(nn.Module):
    """One bottleneck for segmentation and one for detection at each level.

    The names are those of the authors' files.

    Args:
        levels: Number of levels.
        width: Width of the token stream.
        embed_dim: Width of the space shared with text.
        seed: Seed of the initial weights; the global generator is left alone.
        feed_back: Add to the stream (eq. 2); without, each level is a projector for itself.
        variant: Activation, residual ratio and last level.
    """

    def __init__(
        self,
        levels: int,
        width: int,
        embed_dim: int,
        seed: int,
        feed_back: bool = True,
        variant: Variant = Variant(),
    ) -> None:
        super().__init__()
        self.feed_back = feed_back
        self.residual_ratio = variant.residual_ratio
        last = levels - 1 if variant.last_level == "projector" else None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.seg_adapters, self.det_adapters = (
                nn.ModuleList(
                    Bottleneck(width, embed_dim, variant.activation, level == last)
                    for level in range(levels)
                )
                for _ in range(2)
            )
        for adapters in (self.seg_adapters, self.det_adapters):
            # Nothing reads the stream after the last level, so its second layer never learns; it
            # is kept because the authors' files have it.
            for adapter in adapters[-1:] if feed_back else adapters:
                adapter.fc2.requires_grad_(False)

    def forward(
        self, level: int, stream: Float[Tensor, "batch token width"]
    ) -> tuple[
        Float[Tensor, "batch token embed_dim"],
        Float[Tensor, "batch token embed_dim"],
        Float[Tensor, "batch token width"],
    ]:
        """Tokens for segmentation, tokens for detection, and the adapted stream (eq. 2).

        Args:
            level: Which level, from 0.
            stream: Tokens after that level's block, in the order of the stream.
        """
        segment, from_segment = self.seg_adapters[level](stream)
        detect, from_detect = self.det_adapters[level](stream)
        if not self.feed_back:
            return segment, detect, stream
        # 0.8 and twice 0.1 in the code; eq. 2 has 0.9 and 0.1, and two adapters are to share it.
        kept, half = 1 - self.residual_ratio, self.residual_ratio / 2
        return segment, detect, kept * stream + half * from_segment + half * from_detect

    def load_released(self, path: str | Path) -> None:
        """Load a file as the authors release them.

        Args:
            path: Torch file with the dictionaries ``seg_adapters`` and ``det_adapters``.

        Raises:
            WeightsError: The file is missing, is no such file, or does not fit.
        """
        parts = "seg_adapters and det_adapters for these levels and this backbone"
        with released_by_authors(path, "MVFA", parts) as state:
            self.seg_adapters.load_state_dict(state["seg_adapters"])
            self.det_adapters.load_state_dict(state["det_adapters"])
