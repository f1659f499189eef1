"""Image towers that are timm's: vision transformers, EVA and PE with rotary positions, and others.

Whatever ends in a plain sequence of blocks on one grid is run here, with or without a class token
and registers: also ViTamin and MobileCLIP-B, whose convolutions come before the first block.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jaxtyping import Float
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_relpos import VisionTransformerRelPos
from torch import Tensor, nn

from anomalib_medclip.clip.blocks import DTYPES, Precision
from anomalib_medclip.clip.trunks import OpenClipTrunk, Trunk
from anomalib_medclip.errors import WeightsError


class TimmTrunk(Trunk):
    """A ``VisionTransformer`` of timm's in open_clip's ``TimmModel``.

    Args:
        visual: The tower.
        precision: Of the blocks' products. Their linear layers are kept in bf16 and run under
            autocast; the stream, norms and sums stay in float32, as in blocks of our own.
    """

    kind = "timm's vision transformer"

    def __init__(self, visual: Any, precision: Precision) -> None:  # noqa: ANN401 - of any version
        self.visual = visual
        self.precision = precision
        self.trunk = visual.trunk
        self.prefix = int(self.trunk.num_prefix_tokens)
        self.width = int(self.trunk.embed_dim)
        self.embed_dim = _embed_dim(visual)
        for part in self.trunk.blocks.modules():
            if isinstance(part, nn.Linear):
                part.to(DTYPES[precision])

    def blocks_of(self, visual: Any) -> Sequence[nn.Module]:  # noqa: ANN401 - of any version
        """The blocks, as timm has them."""
        blocks: Sequence[nn.Module] = visual.trunk.blocks
        return blocks

    def embed(
        self, images: Float[Tensor, "batch 3 side side"]
    ) -> Float[Tensor, "batch token width"]:
        """What stands before the patches, then the patches; with positions that are added."""
        return self.trunk.norm_pre(self._with_positions(self.trunk.patch_embed(images)))

    def run(
        self,
        blocks: Sequence[nn.Module],
        stream: Float[Tensor, "batch token width"],
        start: int,
        end: int,
    ) -> Float[Tensor, "batch token width"]:
        """The stream after block number ``end``, of the one after block number ``start``."""
        with self._products(stream.device):
            for number, block in enumerate(blocks[start:end], start):
                stream = block(stream, **self._beside(number))
        return stream

    def pool(self, stream: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch embed_dim"]:
        """What ``encode_image`` makes of the stream."""
        return self.visual.head(self.trunk.forward_head(self.trunk.norm(stream)))

    def project(
        self, tokens: Float[Tensor, "*batch width"], norm: bool
    ) -> Float[Tensor, "*batch embed_dim"]:
        """All that comes after the blocks but the pooling."""
        trunk = self.trunk
        if getattr(trunk, "attn_pool", None) is not None:
            raise self.no_way_for_tokens()
        if norm:
            tokens = trunk.fc_norm(trunk.norm(tokens))
        return self.visual.head(trunk.head(tokens))

    def _with_positions(self, patches: Tensor) -> Tensor:
        stream: Tensor = self.trunk._pos_embed(patches)
        return stream

    def _beside(self, number: int) -> dict[str, Any]:
        """What a block is given beside the stream."""
        del number
        return {}

    def _products(self, device: torch.device) -> AbstractContextManager[Any]:
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(device.type, DTYPES[self.precision])


class EvaTrunk(TimmTrunk):
    """timm's ``Eva``: EVA, Perception Encoder and DINOv3, with rotary positions or without."""

    kind = "timm's EVA"

    def __init__(self, visual: Any, precision: Precision) -> None:  # noqa: ANN401 - of any version
        super().__init__(visual, precision)
        self.takes_tokens = self.trunk.rope is None

    def _with_positions(self, patches: Tensor) -> Tensor:
        stream, _ = self.trunk._pos_embed(patches)
        return stream

    def _beside(self, number: int) -> dict[str, Any]:
        """Rotary positions of the patches, of all blocks or of each its own."""
        trunk = self.trunk
        if trunk.rope is None:
            return {}
        grown = trunk.dynamic_img_size or not hasattr(trunk.rope, "feat_shape")
        rope = trunk.rope.get_embed(**({"shape": trunk.patch_embed.grid_size} if grown else {}))
        return {"rope": rope[number] if getattr(trunk, "rope_mixed", False) else rope}


class RelPosTrunk(TimmTrunk):
    """timm's ``VisionTransformerRelPos``, whose blocks know how far tokens are from one another."""

    kind = "timm's vision transformer with relative positions"
    takes_tokens = False

    def embed(
        self, images: Float[Tensor, "batch 3 side side"]
    ) -> Float[Tensor, "batch token width"]:
        """The class token, if there is one, and the patches, without positions."""
        patches: Tensor = self.trunk.patch_embed(images)
        if self.trunk.cls_token is None:
            return patches
        return torch.cat([self.trunk.cls_token.expand(patches.shape[0], -1, -1), patches], dim=1)

    def _beside(self, number: int) -> dict[str, Any]:
        """The bias that all blocks share, where they do."""
        shared = self.trunk.shared_rel_pos
        return {} if shared is None else {"shared_rel_pos": shared.get_bias()}


def trunk_of(name: str, visual: Any, precision: Precision = "fp32") -> Trunk:  # noqa: ANN401
    """What runs an image tower of open_clip's, whichever it is.

    Args:
        name: The model's, for messages.
        visual: The tower.
        precision: Of the blocks' products.

    Raises:
        WeightsError: It is no plain sequence of transformer blocks on one grid.
    """
    if hasattr(visual, "trunk"):
        return family_of(name, visual.trunk)(visual, precision)
    return OpenClipTrunk(visual, precision)


_FAMILIES = {
    VisionTransformer: TimmTrunk,
    Eva: EvaTrunk,
    VisionTransformerRelPos: RelPosTrunk,
}


def family_of(name: str, trunk: nn.Module) -> type[TimmTrunk]:
    """Which of these runs a tower of timm's.

    Raises:
        WeightsError: It is no plain sequence of transformer blocks on one grid.
    """
    for of, family in _FAMILIES.items():
        if isinstance(trunk, of):
            return family
    msg = f"{name} has the image tower {type(trunk).__name__}, which is no plain sequence of "
    msg += "transformer blocks on one grid of patches; take a ViT"
    raise WeightsError(msg)


def _embed_dim(visual: Any) -> int:  # noqa: ANN401 - of any version
    """Width of what a ``TimmModel`` gives: that of its last linear layer."""
    last = [part for part in visual.head.modules() if isinstance(part, nn.Linear)]
    if not last and isinstance(visual.trunk.head, nn.Linear):
        last = [visual.trunk.head]
    return int(last[-1].out_features if last else visual.trunk.num_features)
