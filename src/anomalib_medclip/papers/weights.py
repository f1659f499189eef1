"""Which weights models of a table lack, as far as that is known before they are built."""

import inspect
from functools import cache
from pathlib import Path

import timm
from huggingface_hub import constants, try_to_load_from_cache

from anomalib_medclip.clip.weights import hub_is_out_of_reach
from anomalib_medclip.compare.comparison import ModelEntry, find_class

_FILES = ("model.safetensors", "pytorch_model.bin")
"""What timm takes of a repository, the first that there is."""


def lacking_weights(entry: ModelEntry) -> str:
    """What a model's weights lack, with a remedy; nothing where they are there or can be had.

    Seen are files that ``pretrained`` names, and what anomalib's own models take from Hugging Face.
    """
    given = entry["init_args"]
    file = Path(str(given.get("pretrained")))
    if file.parent != Path() and not file.exists():
        return f"no weights {file}; docs/reproduce.md says where they are from"
    known = inspect.signature(find_class(entry)).parameters
    if "pre_trained" not in known or not given.get("pre_trained", known["pre_trained"].default):
        return ""
    backbone = given.get("backbone", known["backbone"].default)
    if not (repository := _repository(backbone)) or _is_cached(repository) or not _offline():
        return ""
    return (
        f"no weights {repository} in {constants.HF_HUB_CACHE}, and {constants.ENDPOINT} is out of "
        "reach; fetch them where there is a network, copy that folder, and name the one above it "
        "by HF_HOME"
    )


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
