"""BGAD's computation: how likely positions of frozen maps are, by flows that both classes train."""

from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from anomalib_medclip.baselines.bgad.flows import LevelFlow, seeded
from anomalib_medclip.baselines.bgad.losses import Boundary, FlowLoss, flow_loss
from anomalib_medclip.baselines.common.joined import joined, parted
from anomalib_medclip.baselines.common.network_model import NetworkModel
from anomalib_medclip.baselines.common.trunk import Trunk
from anomalib_medclip.components.anomaly_map import to_map
from anomalib_medclip.components.losses import LossTerms, without_masks
from anomalib_medclip.components.model import ModelOutput
from anomalib_medclip.errors import NotReadyError


class BGADModel(NetworkModel):
    """A conditional flow for each map of a frozen network.

    How likely a position is counts from the most likely one of the normal support, level by level.
    The authors count from that of all test images together.

    Args:
        clip: The frozen network.
        blocks: Coupling blocks of each flow.
        code: Width of the position code, a multiple of 4.
        boundary: Which boundary the classes keep off.
        boundary_weight: Weight of its loss.
        focal: Weigh positions by how hard they are, once both classes are learnt from.
        positions: Of a step, which are of one level.
        seed: Seed of the initial weights.
    """

    has_memory: ClassVar[bool] = True
    without_support = "give it normal images"
    clip: Trunk
    peaks: Tensor

    def __init__(
        self,
        clip: Trunk,
        blocks: int = 8,
        code: int = 128,
        boundary: Boundary = Boundary(),
        boundary_weight: float = 1.0,
        focal: bool = True,
        positions: int = 4096,
        seed: int = 0,
    ) -> None:
        super().__init__(clip)
        self.boundary, self.boundary_weight = boundary, boundary_weight
        self.focal, self.positions = focal, positions
        with seeded(seed):
            flows = [LevelFlow(shape, blocks, code) for shape in clip.shapes]
        self.flows = nn.ModuleList(flows)
        self.register_buffer("peaks", torch.empty(0))
        self._owners = torch.empty(0, dtype=torch.long)

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch value"]:
        """The frozen network's maps, side by side."""
        return joined(self.clip.maps(images))

    def middle_patches(
        self, encoded: Float[Tensor, "batch value"]
    ) -> Float[Tensor, "batch patch width"]:
        """The map of the level in the middle; see ``ClipModel``."""
        maps = self.maps(encoded)
        return maps[len(maps) // 2].flatten(2).transpose(1, 2)

    def maps(self, encoded: Float[Tensor, "batch value"]) -> list[Float[Tensor, "batch _ _ _"]]:
        """What was ``encode``d, level by level."""
        return parted(encoded, self.clip.shapes)

    def logp(
        self, encoded: Float[Tensor, "batch value"]
    ) -> list[Float[Tensor, "batch height columns"]]:
        """Log-likelihood of each position, divided by the width of its vector, level by level."""
        pairs = zip(self.level_flows, self.maps(encoded), strict=True)
        return [flow.logp_map(features) for flow, features in pairs]

    @property
    def level_flows(self) -> Sequence[LevelFlow]:
        """The flows, level by level."""
        return list(self.flows)  # type: ignore[arg-type]  # of nothing else

    def score(
        self,
        encoded: Float[Tensor, "batch value"],
        text: Tensor,
        leave_out: Int[Tensor, "batch"] | None = None,
    ) -> ModelOutput:
        """The highest pixel, of a map that is 1 less the mean likelihood; see ``ClipModel``.

        Raises:
            NotReadyError: No normal image was seen, or none but those to leave out.
        """
        del text
        likely = likelihood_maps(self.logp(encoded), self._peaks(leave_out), self.clip.size)
        abnormal = 1 - likely.mean(dim=0)
        return ModelOutput(abnormal.amax(dim=(-2, -1)), abnormal)

    def level_maps(
        self, encoded: Float[Tensor, "batch value"], text: Tensor
    ) -> dict[str, Float[Tensor, "level batch side side"]]:
        """Each level's map by itself: ``likelihood``."""
        del text
        return {
            "likelihood": 1 - likelihood_maps(self.logp(encoded), self._peaks(), self.clip.size)
        }

    @property
    def scored_levels(self) -> tuple[int, ...]:
        """The levels, counted from 1."""
        return tuple(range(1, len(self.flows) + 1))

    @torch.no_grad()
    def fit_support(
        self,
        support: Float[Tensor, "image value"],
        copies: Float[Tensor, "copy normal value"],
        labels: Bool[Tensor, "image"],
        owners: Int[Tensor, "image"],
    ) -> None:
        """Keep how likely the most likely position of each normal image is, level by level."""
        del copies
        normal = support[~labels]
        parts = [self.logp(some) for some in normal.split(8)]
        peaks = [torch.cat([one.flatten(1).amax(dim=1) for one in level]) for level in zip(*parts)]
        self.peaks, self._owners = torch.stack(peaks), owners[~labels].cpu()

    def loss_terms(
        self,
        encoded: Float[Tensor, "batch value"],
        masks: Float[Tensor, "batch 1 side side"] | None,
        labels: Bool[Tensor, "batch"],
        text: Tensor,
    ) -> LossTerms:
        """Losses of each level, all positions at once."""
        del labels, text
        whole = [self.loss_of(*step) for step in self.steps(encoded, masks, torch.inf)]
        return without_masks(torch.stack(whole))
