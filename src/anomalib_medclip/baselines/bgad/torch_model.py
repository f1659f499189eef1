"""BGAD's computation: how likely positions of frozen maps are, by flows that both classes train."""

from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from anomalib_medclip.baselines.bgad.flows import LevelFlow
from anomalib_medclip.baselines.bgad.losses import Boundary, FlowLoss, flow_loss
from anomalib_medclip.baselines.common.joined import joined, parted
from anomalib_medclip.baselines.common.network_model import NetworkModel
from anomalib_medclip.baselines.common.owners import others
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
        beta: See ``Boundary``.
        tau: See ``Boundary``.
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
        beta: float = 0.01,
        tau: float = 0.1,
        boundary_weight: float = 1.0,
        focal: bool = True,
        positions: int = 4096,
        seed: int = 0,
    ) -> None:
        super().__init__(clip)
        self.boundary, self.boundary_weight = Boundary(beta, tau), boundary_weight
        self.focal, self.positions = focal, positions
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
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
        peaks = [
            torch.cat([one.flatten(1).amax(dim=1) for one in level])
            for level in zip(*parts, strict=True)
        ]
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
        losses = [self.group_loss(one, self.focal) for one in self.groups(encoded, masks)]
        return without_masks(torch.stack([one.total(self.boundary_weight) for one in losses]))

    def idle_parameters(self, has_masks: bool) -> Iterable[nn.Parameter]:
        """All of them, where there are no masks: the label of a position is not known then."""
        return () if has_masks else self.parameters()

    def groups(
        self,
        encoded: Float[Tensor, "batch value"],
        masks: Float[Tensor, "batch 1 side side"] | None,
    ) -> list["Positions"]:
        """Positions of each level, image by image and row by row.

        Args:
            encoded: What ``encode`` gives.
            masks: 1 on the lesion, 0 elsewhere, NaN where nobody knows; ``None`` for normal images.
        """
        found = []
        for flow, features in zip(self.level_flows, self.maps(encoded), strict=True):
            vectors = features.flatten(2).transpose(1, 2)
            codes = flow.positions.expand(len(features), -1, -1)
            here = torch.zeros_like(vectors[..., 0])
            if masks is not None:  # small lesions may be lost on a coarse grid, as in the code
                here = F.interpolate(masks, features.shape[2:], mode="nearest").flatten(1)
            values = (one.flatten(0, 1) for one in (vectors, codes, here))
            found.append(Positions(flow, *values))
        return found

    def steps(
        self,
        encoded: Float[Tensor, "batch value"],
        masks: Float[Tensor, "batch 1 side side"] | None,
        focal: bool,
    ) -> Iterator[Float[Tensor, ""]]:
        """Loss of each step on a batch: of some positions of one level, each time others.

        Positions that are too few for another step are left out this time.

        Args:
            encoded: What ``encode`` gives.
            masks: See ``groups``.
            focal: Weigh positions by how hard they are, if the model is to do so at all.
        """
        for group in self.groups(encoded, masks):
            known = (~group.abnormal.isnan()).nonzero()[:, 0]
            size = min(self.positions, len(known))
            order = known[torch.randperm(len(known)).to(known.device)]
            for chosen in order[: len(order) // max(1, size) * size].split(max(1, size)):
                some = group.at(chosen)
                if not some.abnormal.all():
                    loss = self.group_loss(some, focal and self.focal)
                    yield loss.total(self.boundary_weight)

    def group_loss(self, group: "Positions", focal: bool) -> FlowLoss:
        """Losses of positions of one level; see ``flow_loss``."""
        logp = group.flow.logp(group.vectors, group.codes)
        return flow_loss(logp, group.abnormal > 0, self.boundary, focal)

    def _peaks(self, leave_out: Tensor | None = None) -> Float[Tensor, "level _"]:
        """The highest likelihoods of normal images: of all, or of those that an image may see."""
        if self.peaks.numel() == 0:
            msg = "no normal image was seen: train with k_shot > 0, or load a checkpoint"
            raise NotReadyError(msg)
        if leave_out is None:
            return self.peaks.amax(dim=1, keepdim=True)
        hidden = ~others(self._owners, leave_out).to(self.peaks.device)
        return self.peaks[:, None].masked_fill(hidden, -torch.inf).amax(dim=2)


class Positions(NamedTuple):
    """Positions of one level.

    Attributes:
        flow: The level's.
        vectors: Of the frozen map.
        codes: Where each is.
        abnormal: 1 on the lesion, 0 elsewhere, NaN where nobody knows.
    """

    flow: LevelFlow
    vectors: Float[Tensor, "position width"]
    codes: Float[Tensor, "position code"]
    abnormal: Float[Tensor, "position"]

    def at(self, chosen: Int[Tensor, "some"]) -> "Positions":
        """Some of these, by number."""
        return Positions(self.flow, self.vectors[chosen], self.codes[chosen], self.abnormal[chosen])


def likelihood_maps(
    logp: Sequence[Float[Tensor, "batch height columns"]],
    peaks: Float[Tensor, "level _"],
    size: tuple[int, int],
) -> Float[Tensor, "level batch side side"]:
    """How likely each pixel is in comparison with the most likely position, level by level.

    Args:
        logp: Log-likelihoods of positions.
        peaks: The highest of normal images, of each level for all images or for each.
        size: Height and width of the maps in pixels.
    """
    found = []
    for values, peak in zip(logp, peaks, strict=True):
        likely = (values - peak[:, None, None]).clamp(max=0).exp()
        found.append(to_map(likely.flatten(1).unsqueeze(-1), size)[:, 0])
    return torch.stack(found)
