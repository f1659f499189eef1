"""WinCLIP (CVPR 2023) as in anomalib, with the right embeddings under every open_clip.

What anomalib 2.7 does otherwise, and what is done here:

- It turns tokens to ``(token, window, width)`` before the transformer, as open_clip wanted them
  before 2.26.1. Later ones read that as ``(window, token, width)``: windows attend to one another,
  and no error tells. Here open_clip's own forward pass runs on the tokens of each window.
- It subtracts CLIP's mean from the images to score, and not from reference images of the training
  data. Here the model does it itself, for both.
- ``few_shot_source`` fails. Here its pictures are read and resized as all others.
- Data whose category is empty, as a folder's, get no prompts, and fail. Here it is an "object".
- All models of a process have the number of scales of the one made last. Here each has its own.
- Its checkpoints hold CLIP. Here they hold the embeddings of prompts and reference images.

Prompts, windows and scores are anomalib's.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from anomalib.models.image.winclip.lightning_model import WinClip
from anomalib.post_processing import PostProcessor
from jaxtyping import Float
from lightning.pytorch import Callback
from torch import Tensor

from anomalib_medclip.baselines.winclip_model import WinCLIPModel
from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.components.processors import (
    MedicalPreProcessor,
    RankPreservingPostProcessor,
)
from anomalib_medclip.components.threshold import SUPPORT, VALIDATION, learnt_from
from anomalib_medclip.decisions.decisions import Decisions
from anomalib_medclip.errors import ConfigError, NotReadyError, SupportError
from anomalib_medclip.readers.left_out import warn_of
from anomalib_medclip.readers.listing import list_images
from anomalib_medclip.readers.picture import read_image
from anomalib_medclip.training.callbacks import common_callbacks
from anomalib_medclip.training.checkpoints import (
    Notes,
    complete,
    read_checkpoint,
    read_checkpoints_plainly,
    slim,
)
from anomalib_medclip.training.datamodule_view import DatamoduleView
from anomalib_medclip.training.deciding import Deciding
from anomalib_medclip.training.divergence import FiniteOnly
from anomalib_medclip.training.evaluators import evaluator
from anomalib_medclip.training.results import HeatMapVisualizer, ResultsWriter
from anomalib_medclip.training.user_components import UserComponents


class WinCLIP(WinClip):
    """WinCLIP, zero-shot or with a few normal images, on the data of this package or any other.

    A baseline and none of the package's methods: nothing is trained. ``anomalib train`` takes
    prompts, reference images and threshold from the data, and tests.

    Args:
        backbone: open_clip name of a ViT, or keyword arguments of ``open_clip.CLIP``.
        pretrained: open_clip tag, local weights file, or ``None`` for random weights.
        image_size: Side of the square input in pixels.
        quick_gelu: The activation that OpenAI trained with.
        normalize: Apply CLIP's mean and standard deviation.
        backbone_seed: Seed of random backbone weights.
        class_name: Words for the prompt; by default as the data say.
        object_name: The same, as the methods of this package call it.
        k_shot: Number of normal reference images; 0 is zero-shot.
        scales: Sides of the square windows, in patches.
        few_shot_source: Folder of reference images, taken by name; by default they are drawn from
            the training data.
        seed: Seed of that draw, where there are more than ``k_shot``.
        **kwargs: ``pre_processor``, ``post_processor``, ``evaluator`` and ``visualizer``, as in
            every anomalib model.
    """

    model: WinCLIPModel
    object_name = ""
    threshold_from = ""
    decisions: Decisions | None = None
    wants_abnormal = False
    _readied_for: int | None = None

    def __init__(
        self,
        backbone: dict[str, Any] | str = "ViT-B-16-plus-240",
        pretrained: str | None = "laion400m_e31",
        image_size: int = 240,
        quick_gelu: bool = False,
        normalize: bool = True,
        backbone_seed: int = 0,
        class_name: str | None = None,
        object_name: str | None = None,
        k_shot: int = 0,
        scales: Sequence[int] = (2, 3),
        few_shot_source: str | None = None,
        seed: int = 0,
        **kwargs: Any,  # noqa: ANN401 - anomalib's components
    ) -> None:
        # Not anomalib's own constructor, which makes the model of its one CLIP.
        super(WinClip, self).__init__(**kwargs)
        self.user_components = UserComponents(kwargs)
        if class_name and object_name:
            msg = "class_name and object_name are one option; give one of them"
            raise ConfigError(msg)
        self.hparams.pop("few_shot_source", None)  # a checkpoint holds what was read there
        self.model = WinCLIPModel(
            Backbone(backbone, pretrained, image_size, quick_gelu, normalize, backbone_seed),
            scales,
        )
        self.class_name = class_name or object_name
        self.k_shot = k_shot
        self.few_shot_source = Path(few_shot_source) if few_shot_source else None
        self.is_setup = False

    def configure_pre_processor(  # type: ignore[override] # the size is an option here
        self, image_size: tuple[int, int] | None = None
    ) -> MedicalPreProcessor:
        """The one resize of this package, to the backbone's image size."""
        return MedicalPreProcessor(image_size[0] if image_size else self.hparams["image_size"])

    @staticmethod
    def configure_post_processor() -> PostProcessor:
        """Threshold at one half, every rank kept."""
        return RankPreservingPostProcessor(enable_threshold_matching=False)

    configure_evaluator = staticmethod(evaluator)

    @classmethod
    def configure_visualizer(cls) -> HeatMapVisualizer:
        """A picture per image, none overwritten."""
        return HeatMapVisualizer()

    def configure_callbacks(self) -> list[Callback]:
        """Processes, signals, what stops at NaN, anomalib's own, scores on disk, decisions."""
        of_anomalib = cast("Sequence[Callback]", super().configure_callbacks())
        first = common_callbacks(self._trainer)
        return [*first, FiniteOnly(), *of_anomalib, ResultsWriter(), Deciding()]

    def setup(self, stage: str) -> None:
        """Little yet: whether a checkpoint holds all that is needed is known only later."""
        read_checkpoints_plainly(self.trainer)

    def on_validation_start(self) -> None:
        """Encode prompts and reference images, unless that is done or a checkpoint holds them.

        Raises:
            NotReadyError: There are neither reference images nor data to take them from, or the
                data's training images are of other sets than the tested one.
            SupportError: There are fewer than ``k_shot``.
            ImageReadError: A reference image cannot be decoded.
            IntensityError: One has more than 8 bits, and there is no intensity policy.
        """
        datamodule, data = self._datamodule, self._data
        if self.is_setup and (datamodule is None or self._readied_for in (None, id(datamodule))):
            return
        if isinstance(self.pre_processor, MedicalPreProcessor):
            self.pre_processor.slicing = data.slicing
            if data.knows_intensity:
                self.pre_processor.intensity = data.intensity
        self.object_name = self._get_class_name()
        # Validation runs in inference mode, whose tensors could never be loaded into again.
        with torch.inference_mode(mode=False), torch.no_grad():
            references = self._references() if self.k_shot else None
            self.model.setup(self.object_name, references)
        self.model.reference_images = None  # an export would hold them
        self.is_setup, self._readied_for = True, id(datamodule)
        support = learnt_from(wants_abnormal=False) if self.k_shot else SUPPORT
        self.threshold_from = support if data.validates_on_support else VALIDATION

    on_test_start = on_predict_start = on_validation_start

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - Lightning's
        """As anomalib's, but no file is opened that the checkpoint names, except its backbone.

        Raises:
            CheckpointError: It is no checkpoint of this baseline.
            BackboneMismatchError: The weights it names are not those it was made with.
        """
        if isinstance(checkpoint_path, str | Path):
            read_checkpoint(checkpoint_path)
        kwargs = {"few_shot_source": None, **kwargs}
        return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out CLIP.

        Raises:
            NonFiniteError: An embedding is NaN or infinite.
        """
        super().on_save_checkpoint(checkpoint)
        no_probes = torch.empty(0, dtype=torch.uint8)
        slim(
            checkpoint,
            Notes.of(self, support_is_stale=not self.is_setup, probes=no_probes, model={}),
        )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take prompts and reference images from the checkpoint.

        Raises:
            CheckpointError: It is of another method, or was made with other options.
            BackboneMismatchError: It was made with another backbone.
        """
        notes = complete(checkpoint, self)
        super().on_load_checkpoint(checkpoint)
        self.object_name, self.threshold_from = notes.object_name, notes.threshold_from
        self.decisions = notes.known_decisions
        self.model.k_shot = len(checkpoint["state_dict"]["model._patch_embeddings"])
        self.is_setup, self._readied_for = True, None

    @property
    def training_facts(self) -> dict[str, Any]:
        """It learns nothing, from no set."""
        setting = "few-shot" if self.k_shot else "zero-shot"
        return {"setting": setting, "sets": [], "epochs": 0}

    @property
    def _datamodule(self) -> Any:  # noqa: ANN401 - of whatever making, or none
        # Lightning's trainer has no such attribute before it was given data.
        return getattr(self._trainer, "datamodule", None)

    @property
    def _data(self) -> DatamoduleView:
        return DatamoduleView(self._datamodule)

    def _get_class_name(self) -> str:
        """The words asked for, else the data's, else as anomalib finds them."""
        self.class_name = self.hparams["class_name"] or self.hparams["object_name"]
        if self.class_name is None and self._data.object_name:
            return self._data.object_name
        # anomalib's folders have the category "", and its model then encodes no prompt at all.
        return super()._get_class_name() or "object"

    def _references(self) -> Float[Tensor, "k_shot 3 side side"]:
        images = self._drawn() if self.few_shot_source is None else self._read(self.few_shot_source)
        if len(images) < self.k_shot:
            msg = (
                f"{self.few_shot_source or 'the training data'} hold {len(images)} normal images, "
                f"and k_shot asks for {self.k_shot}; add images, or lower --model.k_shot"
            )
            raise SupportError(msg)
        return images.as_subclass(Tensor).to(self.device)

    def _drawn(self) -> Tensor:
        data = self._datamodule
        if data is None or self._data.zero_shot:
            msg = "there is no normal image of the target to take as reference; pass a checkpoint, "
            msg += "a folder (--model.few_shot_source) or few-shot data, or set k_shot to 0"
            raise NotReadyError(msg)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.hparams["seed"])
            return self._prepared(self.collect_reference_images(data.train_dataloader()))

    def _read(self, folder: Path) -> Tensor:
        before = self.pre_processor
        policy = before.intensity if isinstance(before, MedicalPreProcessor) else None
        listed = list_images(folder)
        warn_of(listed.left_out)
        files = listed.images[: self.k_shot]
        images = [self._prepared(read_image(file, policy)[None]) for file in files]
        return torch.cat(images) if images else torch.empty(0)

    @property
    def _prepared(self) -> Callable[[Tensor], Tensor]:
        """What images pass before they are scored; the identity for those that passed it."""
        return self.pre_processor or torch.nn.Identity()
