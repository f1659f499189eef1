"""Which weights models of a table lack, as far as that is known before they are built."""

import inspect
from functools import cache
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import constants, try_to_load_from_cache

from anomalib_medclip.clip.weights import find_weights, hub_is_out_of_reach, offline
from anomalib_medclip.compare.comparison import ModelEntry, find_class
from anomalib_medclip.errors import WeightsError

_FILES = ("model.safetensors", "pytorch_model.bin")
"""What timm takes of a repository, the first that there is."""


def lacking_weights(entry: ModelEntry) -> str:
    """What a model's weights lack, with a remedy; nothing where they are there or can be had.

    Seen are files and CLIP's tags that ``pretrained`` names, and what anomalib's own models take
    from Hugging Face.
    """
    signature = inspect.signature(find_class(entry))
    known = {name: one.default for name, one in signature.parameters.items()}
    given = {**known, **entry["init_args"]}
    backbone, pretrained = given.get("backbone"), given.get("pretrained")
    if isinstance(pretrained, str):
        return _lacking_file_or_tag(backbone, pretrained)
    if not given.get("pre_trained") or not (repository := _repository(backbone)):
        return ""
    if _is_cached(repository) or not _offline():
        return ""
    return (
        f"no weights {repository} in {constants.HF_HUB_CACHE}, and {constants.ENDPOINT} is out of "
        "reach; fetch them where there is a network, copy that folder, and name the one above it "
        "by HF_HOME"
    )


def _lacking_file_or_tag(backbone: Any, pretrained: str) -> str:  # noqa: ANN401 - as the model has it
    """What a local file, or weights of a CLIP by their tag, lack."""
    file = Path(pretrained)
    if file.parent != Path():
        return "" if file.exists() else f"no weights {file}; {_FROM_WHERE}"
    if not _offline():
        return ""
    try:
        with offline():  # as is known by now, so that nobody waits for an answer again
            find_weights(backbone, pretrained)
    except WeightsError as error:
        return str(error)
    return ""


_FROM_WHERE = "docs/reproduce.md says where they are from"


def _repository(backbone: object) -> str:
    """Where timm has the weights of a network from; nothing where Hugging Face has none."""
    found = timm.get_pretrained_cfg(backbone) if isinstance(backbone, str) else None
    return (found and found.hf_hub_id) or ""


def _is_cached(repository: str) -> bool:
    return any(isinstance(try_to_load_from_cache(repository, one), str) for one in _FILES)


@cache
def _offline() -> bool:
    """Asked once, for all models that lack something."""
    return constants.HF_HUB_OFFLINE or hub_is_out_of_reach()
