"""What is exported, and what a reader of the file must know to use it as it was trained."""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, TypeAlias

from anomalib.data import InferenceBatch

from anomalib_medclip.clip.backbone import without_clip
from anomalib_medclip.clip.source import Stated
from anomalib_medclip.clip.towers import ImageTower
from anomalib_medclip.components.threshold import has_pixel_threshold, has_threshold
from anomalib_medclip.export.parity import number
from anomalib_medclip.files import as_json
from anomalib_medclip.provenance import NOTICE, sha256_of_tensors, versions
from anomalib_medclip.readers.intensity import IntensityPolicy, window_of_16_bits

Exportable: TypeAlias = Any
"""A ``training.method.ClipMethod``, whose room lies above this one."""

RESIZE = (
    "to input_size, whatever the aspect ratio, by PIL.Image.resize of the Pillow among versions, "
    "with the filter of resample: of 8-bit pixels where all values are whole 255ths, else of each "
    "channel in mode F, cut to [0, 1]"
)
"""What ``MethodResize`` does to images, for who has no ``MethodResize``."""

LABELS = ("normal", "abnormal")


class Entrance(NamedTuple):
    """How images come into a graph.

    Attributes:
        name: Of the input.
        any_size: Whether it resizes images itself.
    """

    name: str = "input"
    any_size: bool = False


@dataclass(frozen=True)
class Description:
    """What a reader of an exported file must know, beside it and in it.

    Attributes:
        notice: What it must not be used for.
        model: The method.
        format: ``torch``, ``pt2``, ``onnx``, ``openvino`` or ``monai``.
        compression: What was compressed, and how, if anything was.
        input: Name, type, layout, shape, channels and range of what goes in.
        outputs: By name, shape and meaning of what comes out.
        inside: What of the following happens in the graph, so is not to be done before it.
        outside: What of the following is to be done before it.
        intensity: What becomes of images of more than 8 bits; those of 8 bits are divided by 255.
        intensity_window: What becomes 0 and 1 in images of 16 bits; ``None`` where that depends on
            the image, or where such images are refused.
        slicing: How volumes are cut into images.
        resize: The rule.
        resample: Its filter.
        input_size: Its height and width.
        normalisation: What is subtracted from, and divided by.
        labels: What ``pred_label`` says, for no and yes.
        object_name: What the images show, as prompts name it.
        image_threshold: ``pred_score`` above it is abnormal; ``None`` if no threshold is known.
        pixel_threshold: ``anomaly_map`` above it is abnormal, likewise.
        raw_image_threshold: The first before scores were placed around one half.
        raw_pixel_threshold: The second likewise.
        threshold_from: Which images the threshold was found on.
        decisions: By what volumes and patients are decided, as ``Decisions.as_plain`` has it.
        backbone: CLIP's name and weights.
        backbone_fingerprint: Tells CLIP's weights apart.
        checkpoint: Name and SHA-256 of the file the model was restored from.
        weights_sha256: Of all that was learnt.
        versions: Of the packages that made the file.
    """

    notice: str
    model: str
    format: str
    compression: str | None
    input: dict[str, Any]
    outputs: dict[str, dict[str, Any]]
    inside: list[str]
    outside: list[str]
    intensity: IntensityPolicy
    intensity_window: tuple[float, float] | None
    slicing: dict[str, Any] | None
    resize: str
    resample: str
    input_size: list[int]
    normalisation: str
    labels: tuple[str, str]
    object_name: str
    image_threshold: float | None
    pixel_threshold: float | None
    raw_image_threshold: float | None
    raw_pixel_threshold: float | None
    threshold_from: str | None
    decisions: dict[str, Any] | None
    backbone: str
    backbone_fingerprint: str
    checkpoint: dict[str, str] | None
    weights_sha256: str
    versions: dict[str, str]

    def texts(self) -> dict[str, str]:
        """Each key as text, for files that hold nothing else: words as they are, others as JSON."""
        items = asdict(self).items()
        return {name: v if isinstance(v, str) else as_json(v) for name, v in items}

    def model_info(self) -> dict[str, str]:
        """The keys by which OpenVINO's Model API opens the file as its ``AnomalyDetection``.

        It resizes otherwise, so that it is to be given images of the input's size; or of any size,
        if the graph resizes them. Without a threshold there are none, as it must give a verdict.
        """
        if self.image_threshold is None:
            return {}
        # Of 8 bits, in the order of OpenCV. It leaves images alone where the input has no size.
        of_one_size = {
            "resize_type": "standard",
            "interpolation_mode": "CUBIC" if self.resample == "bicubic" else "LINEAR",
            "reverse_input_channels": "True",
            "scale_values": "255.0 255.0 255.0",
        }
        return {
            "model_type": "AnomalyDetection",
            "task": "segmentation" if self.pixel_threshold is not None else "classification",
            "labels": " ".join(self.labels),
            "image_threshold": str(self.image_threshold),
            "pixel_threshold": str(self.pixel_threshold or self.image_threshold),
            "normalization_scale": "1.0",
            **({} if "resize" in self.inside else of_one_size),
        }


def fixed_size(method: Exportable, input_size: tuple[int, int] | None) -> tuple[int, int]:
    """The model's own input size: a tower has one grid.

    Raises:
        ValueError: Another one is asked for.
    """
    side, _ = method.model.clip.size
    if input_size is not None and tuple(input_size) != (side, side):
        msg = f"this model takes images of {side} x {side} pixels only; leave input_size out"
        raise ValueError(msg)
    return side, side


def describe(
    method: Exportable,
    checkpoint: dict[str, str] | None,
    answer: InferenceBatch,
    format_: str,
    compression: str | None = None,
    entrance: Entrance = Entrance(),
) -> Description:
    """What stands in a certificate besides the figures, and in the file.

    Args:
        method: The model.
        checkpoint: Name and SHA-256 of the file it was restored from.
        answer: What it says of some images.
        format_: ``torch``, ``pt2``, ``onnx``, ``openvino`` or ``monai``.
        compression: How the model was compressed, if it was.
        entrance: How images come into the graph.
    """
    backbone, post = method.model.clip.backbone, method.post_processor
    reading = method.pre_processor
    decisions = getattr(method, "decisions", None)
    known, knows_pixels = has_threshold(post), has_pixel_threshold(post)
    size = list(method.model.clip.size)
    return Description(
        notice=NOTICE,
        model=type(method).__name__,
        format=format_,
        compression=compression,
        input=_input(entrance, size),
        outputs=_channels(size) if format_ == "monai" else _outputs(answer, known, knows_pixels),
        inside=["resize", "normalisation"] if entrance.any_size else ["normalisation"],
        outside=["intensity"] if entrance.any_size else ["intensity", "resize"],
        intensity=reading.intensity,
        intensity_window=window_of_16_bits(reading.intensity),
        slicing=reading.slicing,
        resize=RESIZE,
        resample=reading.resize.resample,
        input_size=size,
        normalisation=_normalisation(method.model.clip),
        labels=LABELS,
        object_name=method.object_name,
        image_threshold=number(post.normalized_image_threshold) if known else None,
        pixel_threshold=number(post.normalized_pixel_threshold) if knows_pixels else None,
        raw_image_threshold=number(post.image_threshold) if known else None,
        raw_pixel_threshold=number(post.pixel_threshold) if knows_pixels else None,
        threshold_from=method.threshold_from if known else None,
        decisions=decisions and decisions.as_plain(),
        backbone=str(backbone),
        backbone_fingerprint=method.model.clip.fingerprint,
        checkpoint=checkpoint,
        weights_sha256=sha256_of_tensors(without_clip(method.state_dict())),
        versions=versions(),
    )


def _normalisation(clip: ImageTower) -> str:
    """What is subtracted from images, and divided by, in words."""
    if not clip.backbone.normalize:
        return "none"
    if (clip.stated.mean, clip.stated.std) == (Stated.mean, Stated.std):
        return "CLIP's mean and deviation"
    return f"mean {clip.stated.mean} and deviation {clip.stated.std}"


def _input(entrance: Entrance, size: list[int]) -> dict[str, Any]:
    return {
        "name": entrance.name,
        "type": "float32",
        "layout": "NCHW",
        "shape": ["batch", 3, *(["height", "width"] if entrance.any_size else size)],
        "channels": "RGB",
        "range": [0, 1],
        "of_8_bits": "divided by 255",
    }


def _channels(size: list[int]) -> dict[str, dict[str, Any]]:
    """The one output of a network as MONAI has them."""
    meaning = "channel 0: anomaly_map, how abnormal each pixel of the resized image is; "
    meaning += "channel 1: pred_score, how abnormal the image is, the same in each pixel"
    return {"pred": {"type": "float32", "shape": ["batch", 2, *size], "meaning": meaning}}


def _outputs(answer: InferenceBatch, known: bool, knows_pixels: bool) -> dict[str, dict[str, Any]]:
    """Shape and meaning of what a model gives, by name."""
    own = "; no threshold of {} is known"
    meanings = {
        "pred_score": f"how abnormal the image is{'' if known else own.format('images')}",
        "pred_label": "whether it is: pred_score is above image_threshold",
        "anomaly_map": "how abnormal each pixel of the resized image is"
        + ("" if knows_pixels else own.format("pixels")),
        "pred_mask": "whether it is: anomaly_map is above pixel_threshold",
    }
    given = {name: v for name, v in answer._asdict().items() if v is not None}
    return {
        name: {
            "type": str(value.dtype).removeprefix("torch."),
            "shape": ["batch", *value.shape[1:]],
            "meaning": meanings[name],
        }
        for name, value in given.items()
    }
