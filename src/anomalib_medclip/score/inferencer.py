"""Scores one image after another, with a trained checkpoint or an exported model."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from anomalib_medclip.clip.blocks import Precision
from anomalib_medclip.components.finite import refuse_non_finite
from anomalib_medclip.data.slicing import cut
from anomalib_medclip.decisions.decisions import Asked, Decisions, Verdict
from anomalib_medclip.errors import CheckpointError, VolumeError
from anomalib_medclip.readers.file_kind import is_volume
from anomalib_medclip.readers.intensity import IntensityPolicy
from anomalib_medclip.readers.picture import read_image
from anomalib_medclip.score.model_files import open_model, slicing_from

logger = logging.getLogger(__name__)


class Prediction(NamedTuple):
    """What a model says of one image.

    Attributes:
        score: How abnormal, in [0, 1]; 0.5 is the threshold of images by the largest F1, which
            another rule or a patient need not be decided by.
        label: Whether it counts as abnormal; ``None`` without a verdict.
        anomaly_map: How abnormal each pixel is, in [0, 1], at the model's size.
        full_map: The same at the image's own size.
        verdict: What the model decides about an image by itself, and how often that is wrong:
            threshold, p-value, probability, each with the reason where there is none.
    """

    score: float
    label: bool | None
    anomaly_map: Float[Tensor, "side side"]
    full_map: Float[Tensor, "height width"]
    verdict: Verdict


class BatchPrediction(NamedTuple):
    """What a model says of a batch of images at its own size.

    Attributes:
        scores: How abnormal, in [0, 1]; 0.5 is the threshold of images by the largest F1.
        labels: Whether they count as abnormal; ``None`` if the model knows no threshold.
        maps: How abnormal each pixel is, in [0, 1], at the model's size.
        areas: Share of each of these maps that is above the threshold of pixels.
        vectors: What tells whether the images are like those the model was made with, from
            checkpoints and ``.pt`` files; ``None`` from others.
    """

    scores: Float[Tensor, "batch"]
    labels: Bool[Tensor, "batch"] | None
    maps: Float[Tensor, "batch side side"]
    areas: Float[Tensor, "batch"]
    vectors: Float[Tensor, "batch value"] | None = None


class Scored(NamedTuple):
    """What a model says of a batch of images.

    Attributes:
        scores: How abnormal, in [0, 1]; 0.5 is the threshold of images by the largest F1.
        labels: Whether they count as abnormal; ``None`` if the model knows no threshold.
        maps: How abnormal each pixel is, in [0, 1], at the model's size.
        full_maps: The same at the images' own size.
    """

    scores: Float[Tensor, "batch"]
    labels: Bool[Tensor, "batch"] | None
    maps: Float[Tensor, "batch side side"]
    full_maps: Float[Tensor, "batch height width"]


class Inferencer:
    """Reads images as training did, and scores them.

    Reading and resizing happen outside the exported graph, because runtimes resize differently;
    everything that must be known for that is in the checkpoint, or in the certificate beside the
    exported model.

    A model that knows no threshold, because its training never validated, gives no labels, and
    says so; its scores and maps are then as the method computes them, in a range of its own.

    Args:
        path: A checkpoint (``.ckpt``), one in a folder of ``save_pretrained`` (``.safetensors``),
            or an exported model (``.onnx``, ``.xml``, ``.pt2`` or ``.pt``).
        device: ``"cpu"``, or a GPU: for checkpoints and files of torch as torch names it, such as
            ``"cuda"``, ``"cuda:1"``, ``"mps"`` or ``"xpu"``; for ``.onnx`` files ``"cuda"`` or
            ``"cuda:1"``; for ``.xml`` files as OpenVINO names it.
        intensity: What to do with images of more than 8 bits; by default as in training.
        precision: What most products are computed in, ``"fp32"`` or ``"bf16"``; by default that of
            the checkpoint or ``.pt`` file, and fp32 for other exported models. Of exported models,
            only OpenVINO's have a choice.
        pretrained: open_clip tag or weights file of a checkpoint's backbone, where it is not what
            the checkpoint names; other weights than those of the training run are refused.
        trust: Whether a ``.pt`` or ``.pt2`` file may run the code in it; ``TRUST_REMOTE_CODE=1``
            says so, too.

    Attributes:
        intensity: The policy that images are read with.
        shares_batches: Whether a result is the same to the bit wherever its image stands in a
            batch: so it is in torch and OpenVINO on a processor. In ONNX Runtime it need not be;
            in ``.pt2`` files, on other devices and with compressed models it was not measured.
        slicing: How training cut volumes into images, as ``Slicing.as_plain`` has it; ``None``
            where it did not.
        precision: What it computes most products in.
        has_threshold: Whether the model knows a threshold, without which nothing gets a label.
        has_pixel_threshold: Whether it knows one of pixels, above which they belong to a lesion; it
            does if validation had masks.
        decisions: By what single images, volumes and patients are decided.
        no_unlike: Why nobody can say whether images are like those it was made with, so that
            nothing is abstained from; else empty.
        origin: What the file says of itself: ``method``, ``object_name``, ``backbone``,
            ``backbone_fingerprint``, ``weights_sha256`` and ``threshold_from``, ``None`` where it
            does not say.
        certified: SHA-256 of the files of an exported model, by name, as its certificate says and
            as they were found to be; of weights and ``config.json`` of a folder; else empty.

    Raises:
        CheckpointError: No such file, no certificate beside it, or it is of another kind, or of a
            training that was not finished, or its precision is another one and cannot be chosen.
        BackboneMismatchError: The weights are not those of the training run.
        ConfigError: There is no such device here.
        TrustError: It is a ``.pt`` or ``.pt2`` file that is not trusted.
        RuntimeMissingError: The runtime for the file is not installed, or not for that device.
    """

    def __init__(
        self,
        path: str | Path,
        device: str = "cpu",
        intensity: IntensityPolicy = None,
        precision: Precision | None = None,
        pretrained: str | None = None,
        trust: bool = False,
    ) -> None:
        path = Path(path)
        opened = open_model(path, device, precision, pretrained, trust)
        self.run, self.resize, self.slicing = opened.run, opened.resize, opened.slicing
        self.precision, self.has_threshold = opened.precision, opened.has_threshold
        self.has_pixel_threshold = opened.has_pixel_threshold
        notes = opened.notes
        self._run_with_vectors, self._familiarity = opened.run_with_vectors, opened.familiarity
        self.no_unlike = opened.no_unlike
        self.decisions = decisions_of(path, notes, has_threshold=self.has_threshold)
        self.shares_batches = (
            path.suffix not in (".onnx", ".pt2")
            and device.lower() == "cpu"
            and not notes.get("compression")
        )
        in_torch = path.suffix not in (".onnx", ".xml")
        self._gpu = device if in_torch and device != "cpu" else None
        self.intensity = intensity if intensity is not None else opened.intensity
        self.origin = {name: notes.get(name) or None for name in _ORIGIN}
        self.certified: dict[str, str] = notes.get("files", {})
        if not self.has_threshold:
            logger.warning(
                "%s knows no threshold, since none was found or asked for: it gives scores, and "
                "calls nothing normal or abnormal",
                path,
            )
        if self.no_unlike:
            logger.info("%s cannot tell strange images: %s", path, self.no_unlike)

    def predict(self, path: str | Path, asked: Asked = Asked()) -> Prediction:
        """Score one image file, or a file with a volume that is one voxel thick.

        Args:
            path: The file.
            asked: By which rule to decide, and what to say of it.

        Raises:
            ImageReadError: It cannot be decoded.
            IntensityError: It has more than 8 bits, and there is no intensity policy.
            VolumeError: It is a volume of several slices.
            NonFiniteError: Its score or map is NaN or infinite.
        """
        image = self._read(Path(path))
        found = self.answer(self.resize(image[None]).as_subclass(Tensor))
        verdict = self.decide(
            found.scores, found.areas, found.vectors, is_volume=False, asked=asked
        )
        return Prediction(
            score=float(found.scores[0]), label=verdict.label, anomaly_map=found.maps[0],
            full_map=full_map(found.maps[0], image.shape[-2:]), verdict=verdict,
        )  # fmt: skip

    def decide(
        self,
        scores: Float[Tensor, "image"],
        areas: Float[Tensor, "image"],
        vectors: Float[Tensor, "image value"] | None = None,
        *,
        is_volume: bool,
        asked: Asked = Asked(),
        unfit: str = "",
    ) -> Verdict:
        """Decide about a volume, or about a picture by itself.

        Args:
            scores: Of its images, as ``answer`` gives them.
            areas: Share of each map above the threshold of pixels, likewise.
            vectors: What ``answer`` gives of them, if it does; without, nothing is abstained from.
            is_volume: Whether they are slices of one volume.
            asked: By which rule to decide, and what to say of it.
            unfit: Why the scores cannot be compared with those of validation, if they cannot.
        """
        level = self.decisions.level_of(is_volume=is_volume)
        known, unlike, why = self._familiarity, None, self.no_unlike
        if known is not None and vectors is not None:
            unlike = known.judge(vectors.numpy())
        elif known is not None:
            why = "no features of the images were given to compare"
        values, above = scores.double().numpy(), areas.double().numpy()
        return self.decisions.verdict(level, values, above, asked, unlike, unfit, why)

    def _read(self, path: Path) -> Tensor:
        """An image of any size, ``(3, height, width)``, or a volume that is one."""
        if not is_volume(path):
            return read_image(path, self.intensity)
        images = cut(path, self.intensity, slicing_from(self.slicing)).images
        if len(images) > 1:
            msg = f"{path} is a volume of {len(images)} slices; use `anomalib-medclip score`"
            raise VolumeError(msg)
        return images.expand(3, -1, -1)

    def score(self, images: Float[Tensor, "batch 3 height width"]) -> Scored:
        """Score images in [0, 1], at any size, as one batch.

        Raises:
            NonFiniteError: A score or map is NaN or infinite.
        """
        found = self.answer(self.resize(images).as_subclass(Tensor))
        full = [full_map(one, images.shape[-2:]) for one in found.maps]
        return Scored(found.scores, found.labels, found.maps, torch.stack(full))

    def send(self, images: Tensor) -> Tensor:
        """Images on their way to where ``answer`` computes, in any shape.

        To a CUDA device they are copied from pinned memory while it computes something else; other
        runtimes than torch take them where they are.
        """
        if self._gpu is None:
            return images
        if self._gpu.startswith("cuda"):
            return images.pin_memory().to(self._gpu, non_blocking=True)
        return images.to(self._gpu)

    def answer(self, images: Float[Tensor, "batch 3 side side"]) -> BatchPrediction:
        """Score images in [0, 1] that ``resize`` has made, as one batch.

        Raises:
            NonFiniteError: A score or map is NaN or infinite.
        """
        if self._run_with_vectors is None:
            found, vectors = cast("Any", self.run(images)), None
        else:
            found, vectors = self._run_with_vectors(images)
        maps = found.anomaly_map.float().reshape(len(images), *found.anomaly_map.shape[-2:])
        scores = found.pred_score.float().reshape(-1)
        refuse_non_finite(scores, maps)
        labels = found.pred_label.bool().reshape(-1) if self.has_threshold else None
        areas = (maps > self.decisions.pixel_threshold).double().mean(dim=(1, 2))
        return BatchPrediction(scores, labels, maps, areas, vectors)


def full_map(
    one: Float[Tensor, "side side"], size: tuple[int, ...]
) -> Float[Tensor, "height width"]:
    """A map at the size of its image; one at a time, so that others cannot change its digits."""
    return F.interpolate(one[None, None], size=size, mode="bilinear")[0, 0]


def decisions_of(path: Path, notes: Mapping[str, Any], *, has_threshold: bool) -> Decisions:
    """By what a model decides; files of former versions know single images alone.

    Args:
        path: The model's file.
        notes: Of a checkpoint or a certificate.
        has_threshold: Whether it knows a threshold of images.

    Raises:
        CheckpointError: The notes cannot be understood.
    """
    if plain := notes.get("decisions"):
        try:
            return Decisions.from_plain(plain)
        except CheckpointError as error:
            msg = f"{path} cannot be opened: {error}"
            raise CheckpointError(msg) from error
    known = 0.5 if notes.get("image_threshold") is None else notes["image_threshold"]
    source = "images that its version did not note"
    return Decisions(image_threshold=known if has_threshold else None, source=source)


_ORIGIN = (
    "method",
    "object_name",
    "backbone",
    "backbone_fingerprint",
    "weights_sha256",
    "threshold_from",
)
