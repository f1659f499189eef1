"""What a backbone's name stands for: a configuration, the folder it lies in, and what it says.

======================  ================================================================
``ViT-L-14-336``        a model of open_clip's list
``local-dir:FOLDER``    a folder with ``open_clip_config.json`` and weights, as open_clip
                        writes it; the folder's path alone will do
``hf-hub:ORG/NAME``     such a folder on the Hugging Face Hub
``timm:NAME``           an image tower of timm's, such as DINOv2's, without text; with its
                        tag as ``timm:NAME.TAG``
keyword arguments       a model of one's own, or the content of such a configuration file
======================  ================================================================
"""

import copy
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.utils import EntryNotFoundError
from open_clip import pretrained as open_clip_weights
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

from anomalib_medclip.clip.configuration import check_timm, check_timm_tag, checked
from anomalib_medclip.clip.weights import (
    HOW_TO_GIVE,
    download,
    find_weights,
    given_file,
    offline_if_out_of_reach,
)
from anomalib_medclip.errors import WeightsError
from anomalib_medclip.files import fault_of, from_json

logger = logging.getLogger(__name__)

CONFIG_FILE = "open_clip_config.json"
"""How open_clip names the configuration in a folder."""

LOCAL, HUB, TIMM = "local-dir:", "hf-hub:", "timm:"
"""How names of folders, of repositories of the hub, and of timm's image towers begin."""


@dataclass(frozen=True)
class Stated:
    """How images entered when the weights were trained, as far as it is said.

    Attributes:
        mean: Of the three channels, in [0, 1].
        std: Standard deviation of them.
        interpolation: Filter of the resize.
        quick_gelu: Whether the activation was the sigmoid GELU.
    """

    mean: tuple[float, ...] = OPENAI_DATASET_MEAN
    std: tuple[float, ...] = OPENAI_DATASET_STD
    interpolation: str | None = None
    quick_gelu: bool | None = None

    @classmethod
    def of(cls, said: Mapping[str, Any], quick_gelu: bool | None = None) -> "Stated":
        """What open_clip's tables, its configuration files, and timm's tables say."""
        return cls(
            tuple(said.get("mean") or OPENAI_DATASET_MEAN),
            tuple(said.get("std") or OPENAI_DATASET_STD),
            said.get("interpolation"),
            said.get("quick_gelu", quick_gelu),
        )


@dataclass(frozen=True)
class Source:
    """A model before it is built.

    Attributes:
        name: For messages.
        config: Keyword arguments as open_clip's configuration files have them.
        folder: Where its other files lie, if it comes from a folder.
        repository: On the hub, if it comes from there.
        preprocess: What its configuration says of how images enter.
    """

    name: str
    config: dict[str, Any]
    folder: Path | None = None
    repository: str | None = None
    preprocess: Mapping[str, Any] = field(default_factory=dict)

    def stated(self, pretrained: str | None) -> Stated:
        """How images entered when the weights were trained.

        Args:
            pretrained: As ``Backbone`` has it. Of a local file for a model of open_clip's list
                nothing is said; where all tags of the model agree, it is taken to be as they are.
        """
        own = self.config.get("quick_gelu", False)
        if self.preprocess:
            return Stated.of(self.preprocess, own)
        tags = open_clip_weights.list_pretrained_tags_by_model(self.name)
        if pretrained in tags:
            said = open_clip_weights.get_pretrained_cfg(self.name, pretrained)
            return Stated.of(said, own or pretrained == "openai")
        entries = [open_clip_weights.get_pretrained_cfg(self.name, tag) for tag in tags]
        agreed = {Stated.of(said).mean + Stated.of(said).std for said in entries}
        if len(agreed) != 1:
            return Stated()
        [six] = agreed
        return Stated(six[:3], six[3:])


_NAMES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pt",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "model.pt",
)
"""Names that open_clip gives a file of weights in a folder, the best first."""


def weights_of(source: Source, pretrained: str) -> Path:
    """The weights file of a model: given, in its folder, cached or downloaded.

    Args:
        source: The model.
        pretrained: Path of a local file, or a tag. A folder has weights of its own, whatever tag is
            named, which is said in the log.

    Raises:
        WeightsError: There is none, or the download failed.
    """
    if file := given_file(pretrained):
        return file
    if source.folder is not None:
        file = _beside(source)
        logger.info("%s has weights of its own, and no tags: reading %s", source.name, file)
        return file
    if source.name.startswith(TIMM):
        return _timm_weights(source.name.removeprefix(TIMM), pretrained)
    listed = source.name in open_clip.list_models()
    return find_weights(source.name if listed else source.config, pretrained)


def _beside(source: Source) -> Path:
    """The weights beside a configuration, on this machine or on the hub."""
    folder = source.folder or Path()
    for name in _NAMES:
        if (folder / name).is_file():
            return folder / name
    for name in _NAMES if source.repository else ():
        with suppress(EntryNotFoundError), offline_if_out_of_reach():
            return Path(hf_hub_download(str(source.repository), name))
    msg = f"{source.name} holds no weights, which open_clip would name {_NAMES[0]}; {HOW_TO_GIVE}"
    raise WeightsError(msg)


def _timm_weights(name: str, tag: str) -> Path:
    """The file of timm's own tag; of one that the name has itself, whatever else is said."""
    name, _, own = name.partition(".")
    check_timm_tag(name, tag := own or tag)
    repository = timm.get_pretrained_cfg(f"{name}.{tag}").hf_hub_id
    return download(f"{name}.{tag}", {"hf_hub": f"{repository}/model.safetensors"})


def read_source(model: str | Mapping[str, Any]) -> Source:
    """What a backbone's name stands for.

    Raises:
        WeightsError: There is no such name, folder or file, or the hub is out of reach.
    """
    if not isinstance(model, str):
        config, enters = checked(name_of(model), copy.deepcopy(model))
        return Source(name_of(model), config, preprocess=enters)
    if model.startswith(TIMM):
        return _of_timm(model.removeprefix(TIMM))
    if model.startswith(HUB):
        return _of_hub(model.removeprefix(HUB))
    if model.startswith(LOCAL) or Path(model, CONFIG_FILE).is_file():
        return _of_folder(model, Path(model.removeprefix(LOCAL)))
    if model in open_clip.list_models():
        return Source(model, open_clip.get_model_config(model))
    msg = f"open_clip knows no model {model!r}; see open_clip.list_models(), or name a folder by "
    msg += f"{LOCAL}FOLDER, a repository by {HUB}ORG/NAME or an image tower by {TIMM}NAME"
    raise WeightsError(msg)


def name_of(model: str | Mapping[str, Any]) -> str:
    """What a model is called in messages."""
    return str(model.get("name", "custom CLIP")) if isinstance(model, Mapping) else str(model)


def check_names_nothing(model: str | Mapping[str, Any]) -> None:
    """Refuse what a file from anybody may not name: a folder, a repository, a part on the hub.

    Args:
        model: The backbone that a checkpoint names.

    Raises:
        WeightsError: It names such a thing.
    """
    if isinstance(model, str):
        if model in open_clip.list_models() or model.startswith(TIMM):
            return
        msg = f"open_clip knows no model {model!r}, and a checkpoint may name no folder and no "
        msg += "repository; train it again, which keeps the model's numbers"
        raise WeightsError(msg)
    config = model.get("model_cfg", model) if isinstance(model, Mapping) else None
    text = config.get("text_cfg") if isinstance(config, Mapping) else None
    if not isinstance(text, Mapping):
        return  # or no configuration, which is said where a model is made of it
    for part in ("hf_model_name", "hf_tokenizer_name"):
        if part in text and not Path(str(text[part])).is_absolute():
            msg = f"the checkpoint's {part} is {text[part]!r}, which is not fetched for it; train "
            msg += "it again with a backbone whose files lie in a folder"
            raise WeightsError(msg)


def _of_folder(name: str, folder: Path, repository: str | None = None) -> Source:
    path = folder / CONFIG_FILE
    if fault := fault_of(path):
        msg = f"{name}: {path} {fault.said}; copy the model's folder there, or name another as "
        msg += f"backbone (--model.backbone {LOCAL}FOLDER)"
        raise WeightsError(msg)
    try:
        content = from_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        msg = f"{path} is no JSON ({error}); write the folder again with open_clip"
        raise WeightsError(msg) from None
    config, enters = checked(str(path), content)
    return Source(name, config, folder, repository, enters)


@lru_cache(maxsize=8)  # a model is read for its towers, its width and its words
def _hub_folder(repository: str) -> Path:
    """Where the hub's own cache keeps a repository's configuration."""
    try:
        with offline_if_out_of_reach():
            return Path(hf_hub_download(repository, CONFIG_FILE)).parent
    except Exception as error:
        msg = f"could not read {CONFIG_FILE} of {repository} from the hub or its cache: {error}; "
        msg += f"copy the repository to a folder and name that by {LOCAL}FOLDER"
        raise WeightsError(msg) from error


def _of_hub(repository: str) -> Source:
    return _of_folder(HUB + repository, _hub_folder(repository), repository)


def _of_timm(name: str) -> Source:
    check_timm(name)
    arch, _, tag = name.partition(".")
    if tag:
        check_timm_tag(arch, tag)
    with torch.device("meta"):  # its pooling is not said anywhere else
        made = timm.create_model(name)
    said = made.pretrained_cfg
    vision = {"timm_model_name": name, "timm_pool": made.global_pool, "timm_proj": "none"}
    config = {"embed_dim": made.num_features, "vision_cfg": vision}
    preprocess = {key: said.get(key) for key in ("mean", "std", "interpolation")}
    return Source(TIMM + name, config, preprocess=preprocess)


def differences(
    stated: Stated, quick_gelu: bool, normalize: bool, interpolation: str | None = None
) -> Sequence[str]:
    """In what images enter otherwise than when the weights were trained, in words."""
    found = []
    if not normalize:
        found.append(
            f"no normalisation, trained with mean {stated.mean} and deviation {stated.std}"
        )
    if stated.quick_gelu is not None and stated.quick_gelu is not quick_gelu:
        names = {True: "QuickGELU", False: "exact GELU"}
        found.append(f"{names[quick_gelu]}, trained with {names[stated.quick_gelu]}")
    if interpolation and stated.interpolation not in (None, "random", interpolation):
        found.append(f"resized by {interpolation}, trained with {stated.interpolation}")
    return found
