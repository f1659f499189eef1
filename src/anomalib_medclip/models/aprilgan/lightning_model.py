"""APRIL-GAN as an anomalib model: its options, and which data teach its layers."""

import logging
from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from anomalib.data import ImageBatch
from anomalib.models.components.base import AnomalibModule
from torch import Tensor

from anomalib_medclip.components.augmentation import ELEVEN_FOLD, Copies, unchanged
from anomalib_medclip.components.prompts import NoPrompts
from anomalib_medclip.errors import ConfigError, NotReadyError
from anomalib_medclip.models.aprilgan.given_layers import refuse_other_layers
from anomalib_medclip.models.aprilgan.mosaic import Mosaics
from anomalib_medclip.models.aprilgan.torch_model import APRILGANModel, ImageScore
from anomalib_medclip.option_checks import Idle, checked
from anomalib_medclip.training.method import ClipMethod
from anomalib_medclip.training.schedule import Schedule

logger = logging.getLogger(__name__)


_NOTHING_TO_SCALE = (
    "transductive scales the maxima of few-shot maps on a whole test set, for the published image "
    "score; pass few-shot data, and leave few_shot and image_score out"
)


class APRILGAN(ClipMethod, AnomalibModule):
    """Linear layers on frozen levels, and a bank of frozen patches (VAND challenge, CVPR 2023).

    As published, the layers learn from other sets and see nothing of the target: zero-shot, or with
    ``adapters``, few-shot by K normal images. The papers' medical tables train them on K normal and
    K abnormal images of the target. See ``anomalib_medclip.models.aprilgan`` for the settings and
    where its code differs from what is expected.

    Args:
        normalize: Apply CLIP's mean and standard deviation.
        memory_levels: Blocks whose patches are compared with normal images, counted from 1; by
            default ``levels``.
        image_score: That of the authors' code, which zero-shot no layer has a part in, or the
            maximum of the map.
        few_shot: Compare with the support images, too; by default as the data allow. An image tower
            without text (``timm:``) does nothing else, and its score is the map's maximum.
        train_layers: Train the layers; by default unless ``adapters`` gives them.
        eleven_fold: Learn from MVFA's eleven copies of each support image; the authors make none.
        mosaic: Probability that four training images of the set stand for a training image; 0.2
            where the authors train on MVTec AD.
        bank_precision: Precision of the memory bank's rows.
        transductive: Scale the maxima of maps on the test images themselves, as the authors' tables
            do; for comparison only, because then no image can be scored alone.
        **kwargs: The options that all methods share; see ``SharedOptions``.

    Raises:
        ConfigError: ``mosaic`` is no probability; ``transductive`` has nothing to scale; options of
            training without any training, or of text without a text tower.
        WeightsError: ``adapters`` is of another method, of other levels, or untaught.
        BackboneMismatchError: Its layers were trained on another backbone.
    """

    augmentations = Copies.alike((unchanged,))
    default_batch_size = 8
    default_epochs = 15
    loss_names = ("focal", "dice")
    idle = (
        Idle(
            ("memory_levels", "bank_precision"),
            lambda given: given["few_shot"] is False,
            "few_shot: false",
        ),
    )
    model: APRILGANModel

    def __init__(
        self,
        normalize: bool = True,
        memory_levels: Sequence[int] | None = None,
        image_score: ImageScore = "published",
        few_shot: bool | None = None,
        train_layers: bool | None = None,
        eleven_fold: bool = False,
        mosaic: float = 0.0,
        bank_precision: Literal["float16", "float32"] = "float16",
        transductive: bool = False,
        **kwargs: Any,  # noqa: ANN401 - the options that all methods share
    ) -> None:
        super().__init__(normalize=normalize, **kwargs)
        self._has_layers = self.hparams["adapters"] is not None
        without_text = not self.backbone.has_text
        if without_text:
            self._refuse_what_needs_text(train_layers, few_shot)
        by_default = not (self._has_layers or without_text)
        trains = by_default if train_layers is None else train_layers
        self.hparams["train_layers"] = trains  # which a checkpoint's options say without a file
        checked("mosaic", mosaic, 0, 1)
        if transductive and (few_shot is False or image_score == "map_max"):
            raise ConfigError(_NOTHING_TO_SCALE)
        if not trains:
            self._refuse_options_of_training()
        if eleven_fold:
            self.augmentations = Copies.alike(ELEVEN_FOLD)
        self.wants_abnormal = trains
        self._mosaics: Mosaics | None = None
        tower = self.image_tower()
        model = APRILGANModel(
            tower,
            self.hparams["levels"],
            memory_levels,
            image_score,
            {"float16": torch.float16, "float32": torch.float32}[bank_precision],
            self.hparams["seed"],
            NoPrompts(tower.embed_dim) if without_text else None,
        )
        if self._has_layers:
            refuse_other_layers(self.hparams["adapters"], model)
        model.layers.requires_grad_(trains)
        if without_text:
            model.without_support = "a backbone with text"
        self.assemble(model, True if without_text else few_shot)
        if not trains:
            self.schedule = Schedule(default_epochs=1)

    def __getstate__(self) -> dict[str, Any]:
        """Without the training images."""
        return super().__getstate__() | {"_mosaics": None}

    def _refuse_what_needs_text(self, train_layers: bool | None, few_shot: bool | None) -> None:
        asked = {"few_shot: false": few_shot is False, "train_layers": bool(train_layers)}
        asked["adapters"] = self._has_layers
        if said := [name for name, is_so in asked.items() if is_so]:
            msg = f"{self.backbone.name} is an image tower without text, and leaves the comparison "
            msg += f"with normal images alone; leave {said[0]} out, or take a CLIP"
            raise ConfigError(msg)

    def _refuse_options_of_training(self) -> None:
        without = {"lr": None, "loss_weights": None, "eleven_fold": False, "mosaic": 0}
        for name, nothing in without.items():
            if self.hparams[name] != nothing:
                msg = f"{name} has a part in training, and the layers are not trained; leave it "
                msg += "out, or set train_layers"
                raise ConfigError(msg)

    def on_fit_start(self) -> None:
        """See which of the training images teach the layers, and say which do not.

        Raises:
            NotReadyError: None does, nobody gave layers, and there are no normal images of the
                target to compare with; or there is no table of images to make mosaics of.
        """
        super().on_fit_start()
        trains, data = self.hparams["train_layers"], self.data
        without = data.training_images(outlined=False)
        taught = trains and not data.trains_on_normals_alone
        taught = taught and bool(data.training_images(outlined=True))
        before = self.support.readiness.has_learnt and self.model.uses_layers
        self.model.uses_layers = self.model.prompts.reads_words
        if not (taught or before or self._has_layers):
            self._do_without_layers()
        elif trains and without:
            logger.warning("the layers learn from masks; skipped are images without: %s", without)
        self._mosaics = self._mosaics_of_training() if self.hparams["mosaic"] else None

    def on_fit_end(self) -> None:
        """Let the training images go, too."""
        super().on_fit_end()
        self._mosaics = None

    def _mosaics_of_training(self) -> Mosaics:
        data, resize = self.data.train_data, getattr(self.pre_processor, "resize", None)
        if resize is None or "set_name" not in getattr(data, "samples", ()):
            msg = "mosaic needs a datamodule of this package, and its pre_processor; leave it out"
            raise NotReadyError(msg)
        return Mosaics(data, resize, self.hparams["seed"])

    def _do_without_layers(self) -> None:
        """Leave layers that nothing taught out of the map: they are random."""
        if not self.model.prompts.reads_words:
            return  # there are none in it
        if not self.model.few_shot:
            msg = (
                "APRIL-GAN learns from masks, and no abnormal image that it is to learn from has "
                "one: train on sets with masks, give adapters, or few-shot data to compare with"
            )
            raise NotReadyError(msg)
        logger.warning(
            "nothing has taught the layers: there are neither masks of abnormal images nor "
            "adapters, and the map is that of the comparison with normal images alone"
        )
        self.model.uses_layers = False

    def examples(self, batch: ImageBatch) -> tuple[Tensor, Tensor | None, Tensor]:
        """What a training batch teaches; some of its images are mosaics, if that is asked for."""
        encoded, masks, labels = super().examples(batch)
        if self._mosaics is None or masks is None:
            return encoded, masks, labels
        copies = cast("Tensor", batch.copy).tolist()  # type: ignore[attr-defined]  # of our data
        for place, (path, copy) in enumerate(zip(batch.image_path or (), copies, strict=True)):
            drawn = self._mosaics.draw(path, self.hparams["mosaic"], self.current_epoch, copy)
            if drawn is not None:
                encoded[place] = self.model.encode(drawn.image[None].to(self.device))[0]
                masks[place] = drawn.mask
        return encoded, masks, labels

    def on_validation_start(self) -> None:
        """Without a training, see that nothing random has a part in the map."""
        super().on_validation_start()
        self._mind_the_layers()

    def on_predict_start(self) -> None:
        """Likewise."""
        super().on_predict_start()
        self._mind_the_layers()

    def on_test_start(self) -> None:
        """Likewise; and scale on the test images, if that is asked for.

        Raises:
            NotReadyError: ``transductive``, but nothing is scaled, or there is no test set.
        """
        super().on_test_start()
        self._mind_the_layers()
        if not self.hparams["transductive"]:
            return
        batches = self.data.test_batches()
        if not self.model.few_shot or batches is None:
            raise NotReadyError(_NOTHING_TO_SCALE)
        logger.warning(
            "transductive: scores depend on the whole test set, and the threshold, found on "
            "validation images, does not fit them: AUROC can be compared with the papers, F1 cannot"
        )
        self._inductive_extremes = self.model.scale.extremes
        text = self.model.known_text()
        images = (batch.image.to(self.device) for batch in batches)
        maps = (self.model.fused_map(self.model.encode(some), text) for some in images)
        self.model.scale.fit(torch.cat([some.amax(dim=(-2, -1)) for some in maps]))

    def on_test_end(self) -> None:
        """Forget the test images."""
        super().on_test_end()
        if self.hparams["transductive"]:
            self.model.scale.extremes = self._inductive_extremes

    def _mind_the_layers(self) -> None:
        """What was neither trained nor restored has random layers, unless somebody gave some."""
        if not (self._has_layers or self.support.readiness.has_learnt):
            self._do_without_layers()
