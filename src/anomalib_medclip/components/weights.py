"""Where weights come from: a local file, open_clip's cache, or one download."""

import os
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants as hub
from open_clip import pretrained as open_clip_weights
from safetensors.torch import load_file
from torch import Tensor

from anomalib_medclip.errors import WeightsError


@contextmanager
def released_by_authors(path: str | Path, method: str, must_hold: str) -> Iterator[Any]:
    """Read a file of the authors'; whatever goes wrong until its parts are loaded is of that file.

    Args:
        path: Torch file.
        method: The method's name, for the message.
        must_hold: What the file should have been, for the message.

    Raises:
        WeightsError: The file is missing, is no such file, or does not fit.
    """
    try:
        yield torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        msg = f"adapters file {path} does not fit {method}: {error}; it must hold {must_hold}"
        raise WeightsError(msg) from error


WEIGHTS_VARIABLE = "ANOMALIB_MEDCLIP_WEIGHTS"
"""Environment variable with a local CLIP weights file, used instead of any download: for machines
without network, and for checkpoints that remember a path of another machine."""


def find_weights(model: str | dict[str, Any], pretrained: str) -> Path:
    """The weights file for a model: given, cached or downloaded.

    Args:
        model: open_clip model name; a model of one's own can only take a local file.
        pretrained: open_clip tag or path of a local file.

    Raises:
        WeightsError: No such file or tag, or the download failed.
    """
    given = os.environ.get(WEIGHTS_VARIABLE, pretrained)
    if Path(given).is_file():
        return Path(given)
    how = f"pass a local file as 'pretrained', or in the variable {WEIGHTS_VARIABLE}"
    if WEIGHTS_VARIABLE in os.environ or Path(given).suffix in _SUFFIXES or os.sep in given:
        msg = f"weights file {given} does not exist; {how}"
        raise WeightsError(msg)
    if not isinstance(model, str):
        msg = f"open_clip has no weights {given!r} for a CLIP of one's own; {how}"
        raise WeightsError(msg)
    entry = open_clip_weights.get_pretrained_cfg(model, given)
    if not entry:
        tags = ", ".join(open_clip_weights.list_pretrained_tags_by_model(model)) or "none"
        msg = f"open_clip has no weights {given!r} for {model}, its tags are: {tags}; or {how}"
        raise WeightsError(msg)
    return _download(f"{model}/{given}", entry, how)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a CLIP state dict in open_clip's names as float32.

    Takes a safetensors file, a torch file with a state dict (plain, or the ``state_dict`` of an
    open_clip training checkpoint), or OpenAI's TorchScript archive.

    Raises:
        WeightsError: The file is none of these.
    """
    try:
        state = _read(path)
        state = dict(state.get("state_dict", state))
    except Exception as error:
        msg = f"{path} is no CLIP weights file: {error}"
        raise WeightsError(msg) from error
    named = {str(k).removeprefix("module."): v for k, v in state.items() if k not in _OPENAI_EXTRAS}
    if not all(isinstance(value, Tensor) for value in named.values()):
        msg = f"{path} holds more than tensors; save the model's state_dict()"
        raise WeightsError(msg)
    return {k: v.float() if v.is_floating_point() else v for k, v in named.items()}


_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors", ".ckpt")
_OPENAI_EXTRAS = ("input_resolution", "context_length", "vocab_size")


def _read(path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        return dict(load_file(path))
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            scripted = any(name.endswith("constants.pkl") for name in archive.namelist())
        if scripted:
            return dict(torch.jit.load(path, map_location="cpu").state_dict())
    return dict(torch.load(path, map_location="cpu", weights_only=True))


def _download(title: str, entry: dict[str, Any], how: str) -> Path:
    """Fetch through open_clip, which keeps a cache; without network one quick error, no retries."""
    offline = hub.HF_HUB_OFFLINE
    try:
        # What is cached is still found then; the hub's retries would take a minute.
        hub.HF_HUB_OFFLINE = offline or _hub_is_out_of_reach()
        return Path(open_clip_weights.download_pretrained(entry))
    except Exception as error:
        msg = (
            f"could not download the weights {title}, and they are not in the cache folders "
            f"{hub.HF_HUB_CACHE} and ~/.cache/clip: {error}; {how}"
        )
        raise WeightsError(msg) from error
    finally:
        hub.HF_HUB_OFFLINE = offline


def _hub_is_out_of_reach() -> bool:
    request = urllib.request.Request(hub.ENDPOINT, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=10).close()
    except urllib.error.HTTPError:
        return False  # it answered
    except OSError:
        return True
    return False
