"""WinCLIP's computation as in anomalib, with windows encoded alone under every open_clip."""

from collections.abc import Sequence
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from anomalib.models.components.base.buffer_list import BufferListDescriptor
from anomalib.models.image.winclip.torch_model import TEMPERATURE, WinClipModel
from jaxtyping import Float, Int
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor
from torchvision.transforms.v2.functional import normalize as subtract_mean

from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.errors import ConfigError


class _PerScale(BufferListDescriptor):
    """Buffers of a model, one a scale; anomalib's counts those of the model that was made last."""

    def __get__(self, instance: Any, object_type: type | None = None) -> Any:  # noqa: ANN401
        del object_type
        if instance is None:
            return self
        # anomalib registers the buffers of a list under numbered names.
        return [getattr(instance, f"_{self.name}_{i}") for i in range(len(instance.scales))]


class WinCLIPModel(WinClipModel):
    """Scores of windows of patches, by prompts and by normal reference images.

    Args:
        backbone: Which CLIP, and how images enter it.
        scales: Sides of the square windows, in patches.

    Attributes:
        clip: The whole CLIP, frozen.

    Raises:
        ValueError: A window is larger than the patch grid, or has no patch.
    """

    masks = _PerScale("masks", 0)
    _visual_embeddings = _PerScale("_visual_embeddings", 0)

    def __init__(self, backbone: Backbone, scales: Sequence[int] = (2, 3)) -> None:
        # Not anomalib's own constructor, which can only download one CLIP.
        super(WinClipModel, self).__init__()
        self.clip, fingerprint, _ = backbone.load()
        if not isinstance(self.clip, open_clip.CLIP) or hasattr(self.clip.visual, "trunk"):
            msg = f"WinCLIP masks patches of CLIP's own towers, which {backbone.name} has not; "
            msg += "take a plain ViT-* model"
            raise ConfigError(msg)
        self.clip.requires_grad_(requires_grad=False).eval()
        self.clip.visual.output_tokens = True
        self.clip.fingerprint, self.clip.backbone = fingerprint, backbone
        self.scales, self.grid_size = tuple(scales), self.clip.visual.grid_size
        rows, columns = self.grid_size
        if not all(1 <= scale <= min(rows, columns) for scale in self.scales):
            msg = f"windows of scales {list(scales)} do not fit the {rows} x {columns} patches of "
            msg += f"{backbone}; take other scales or a larger image_size"
            raise ValueError(msg)
        self.temperature, self.apply_transform = TEMPERATURE, False
        self.class_name = self.reference_images = None
        self.k_shot = 0
        self.register_buffer_list("masks", self._generate_masks(), persistent=False)
        self.register_buffer("_text_embeddings", torch.empty(0))
        self.register_buffer_list("_visual_embeddings", [torch.empty(0) for _ in self.scales])
        self.register_buffer("_patch_embeddings", torch.empty(0))

    def encode_image(
        self, batch: Float[Tensor, "batch 3 side side"]
    ) -> tuple[
        Float[Tensor, "batch embed_dim"],
        list[Float[Tensor, "batch window embed_dim"]],
        Float[Tensor, "batch patch width"],
    ]:
        """Embeddings of images, of their windows at each scale, and of their patches.

        Args:
            batch: RGB in [0, 1] at the backbone's image size.
        """
        if self.clip.backbone.normalize:
            batch = subtract_mean(batch, list(OPENAI_DATASET_MEAN), list(OPENAI_DATASET_STD))
        pooled, patches = self.clip.encode_image(batch)
        return pooled, [self._encode_windows(batch, mask) for mask in self.masks], patches

    def _encode_windows(
        self, images: Tensor, mask: Int[Tensor, "patch window"]
    ) -> Float[Tensor, "batch window embed_dim"]:
        """Each window as if its patches and the class token were the whole image.

        The tokens are chosen where CLIP would drop patches in training, with their positions and
        before the first norm. All after it is open_clip's, which knows the order of its axes.
        """
        tokens = F.pad(mask.T + 1, (1, 0))  # number 0 is the class token

        def choose(_module: Any, _inputs: Any, stream: Tensor) -> Tensor:  # noqa: ANN401
            return stream[:, tokens].flatten(0, 1)

        handle = self.clip.visual.patch_dropout.register_forward_hook(choose)
        try:
            pooled, _ = self.clip.encode_image(images)
        finally:
            handle.remove()
        return pooled.unflatten(0, (-1, len(tokens)))
