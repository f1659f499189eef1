"""Where weights come from: a local file, open_clip's cache, or one download."""

import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

import torch
from huggingface_hub import constants as hub
from open_clip import pretrained as open_clip_weights
from safetensors.torch import load_file
from torch import Tensor

from anomalib_medclip.clip.torchscript import is_scripted, read_scripted
from anomalib_medclip.errors import WeightsError
from anomalib_medclip.files import fault_of


def read_plain(path: str | Path) -> Any:  # noqa: ANN401 - whatever the file holds
    """What a torch file holds, if that is tensors and plain values; nothing in it is run.

    Raises:
        ValueError: It is no regular file, is damaged, or holds anything else.
    """
    if fault := fault_of(path):  # a pipe would be waited for, a device read for ever
        msg = f"it {fault.said}"
        raise ValueError(msg)
    try:
        with Path(path).open("rb") as file:  # by its content, whatever its name
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch's own words advise to open it all the same, which would run it.
        raise ValueError(_other_kind(Path(path)) or _reason(str(error))) from None


_KINDS = {
    b"<": "it is a web page, as a download may leave that failed",
    b"\x1f\x8b": "it is a packed file",
    b"7z": "it is a packed file",
    b"Rar!": "it is a packed file",
}
"""What files are that begin so."""


def _other_kind(path: Path) -> str | None:
    """What a file is, by its content, that is none of torch's."""
    if is_zipfile(path):
        with ZipFile(path) as archive:
            if not any(name.endswith("data.pkl") for name in archive.namelist()):
                return "it is an archive of other files"
    with path.open("rb") as file:
        start = file.read(64).lstrip()
    if not start:
        return "it holds nothing"
    return next((kind for first, kind in _KINDS.items() if start.startswith(first)), None)


def _reason(said: str) -> str:
    named = re.search(r"GLOBAL (\S+)", said)
    if "TorchScript" in said:
        return "a TorchScript archive, which would run code of its own"
    if named:
        said = f"it names {named[1]}, and so holds more than tensors and plain values"
        return f"{said}, of which nothing was run"
    return "it is damaged, or no file that torch has written"


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
        yield read_plain(path)
    except Exception as error:
        msg = f"adapters file {path} does not fit {method}: {error}; it must hold {must_hold}"
        raise WeightsError(msg) from error


WEIGHTS_VARIABLE = "ANOMALIB_MEDCLIP_WEIGHTS"
"""Environment variable with a local CLIP weights file, used instead of any download: for machines
without network, and for checkpoints that remember a path of another machine."""

WEIGHTS_OPTIONS = (
    "'pretrained' (score --pretrained, anomalib's --model.pretrained) or by the variable "
    f"{WEIGHTS_VARIABLE}"
)
"""Where a user says which weights to take, for messages: ``by 'pretrained' ...``."""


HOW_TO_GIVE = f"give a local file by {WEIGHTS_OPTIONS}"
"""What helps where weights are missing, for messages."""


def given_file(pretrained: str) -> Path | None:
    """The local file that is to be read, by the variable or the option; ``None`` for a tag.

    Raises:
        WeightsError: It does not exist.
    """
    given = os.environ.get(WEIGHTS_VARIABLE, pretrained)
    if Path(given).is_file():
        return Path(given)
    if WEIGHTS_VARIABLE in os.environ or Path(given).suffix in _SUFFIXES or os.sep in given:
        what = "is no file" if Path(given).exists() else "does not exist"
        msg = f"weights file {given} {what}; {HOW_TO_GIVE}"
        raise WeightsError(msg)
    return None


def find_weights(model: str | dict[str, Any], pretrained: str) -> Path:
    """The weights file for a model of open_clip's: given, cached or downloaded.

    Args:
        model: open_clip model name; a model of one's own can only take a local file.
        pretrained: open_clip tag or path of a local file.

    Raises:
        WeightsError: No such file or tag, or the download failed.
    """
    if file := given_file(pretrained):
        return file
    if not isinstance(model, str):
        msg = f"open_clip has no weights {pretrained!r} for a CLIP of one's own; {HOW_TO_GIVE}"
        raise WeightsError(msg)
    entry = open_clip_weights.get_pretrained_cfg(model, pretrained)
    if not entry:
        tags = ", ".join(open_clip_weights.list_pretrained_tags_by_model(model)) or "none"
        msg = f"open_clip has no weights {pretrained!r} for {model}, its tags are: {tags}; "
        msg += f"or {HOW_TO_GIVE}"
        raise WeightsError(msg)
    return download(f"{model}/{pretrained}", entry)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a CLIP state dict in open_clip's names as float32.

    Takes a safetensors file, a torch file with a state dict (plain, or the ``state_dict`` of an
    open_clip training checkpoint), or OpenAI's TorchScript archive. Of none of them is code run.

    Raises:
        WeightsError: The file is none of these.
    """
    if fault := fault_of(path):
        msg = f"weights file {fault.about(path)}"
        raise WeightsError(msg)
    try:
        state = _read(path)
        state = dict(state.get("state_dict", state))
    except Exception as error:
        # Of libraries' words none is of use to who has the file.
        reason = str(error) if isinstance(error, ValueError) else "it is damaged"
        msg = f"{path} is no weights file: {reason}; {_SAVE_IT}"
        raise WeightsError(msg) from None
    named = {str(k).removeprefix("module."): v for k, v in state.items() if k not in _OPENAI_EXTRAS}
    if not all(isinstance(value, Tensor) for value in named.values()):
        msg = f"{path} holds more than tensors; {_SAVE_IT}"
        raise WeightsError(msg)
    return {k: v.float() if v.is_floating_point() else v for k, v in named.items()}


_SAVE_IT = "save the model's state_dict() to a file, or download the file again"
_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors", ".ckpt")
_OPENAI_EXTRAS = ("input_resolution", "context_length", "vocab_size")


_OF_CLIP = {"visual.conv1.weight", "token_embedding.weight", "logit_scale"}


def _read(path: Path) -> dict[str, Any]:
    if _is_safetensors(path):
        return dict(load_file(path))
    if not is_scripted(path):
        found = read_plain(path)
        if not isinstance(found, dict):
            msg = f"it holds a {type(found).__name__} and no state dict"
            raise ValueError(msg)
        return found
    state = read_scripted(path)
    if not state.keys() >= _OF_CLIP:
        msg = "a TorchScript archive, but not of CLIP"
        raise ValueError(msg)
    return dict(state)


def _is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do, whatever its name: a length, and a JSON object."""
    with path.open("rb") as file:
        length, start = int.from_bytes(file.read(8), "little"), file.read(1)
    return start == b"{" and length < path.stat().st_size


def download(title: str, entry: dict[str, Any]) -> Path:
    """Fetch through open_clip, which keeps a cache.

    Args:
        title: What is fetched, for messages.
        entry: Where it is, as open_clip's tables say.

    Raises:
        WeightsError: It could not be fetched, and is not in the cache.
    """
    try:
        with offline_if_out_of_reach():
            return Path(open_clip_weights.download_pretrained(entry))
    except Exception as error:
        msg = (
            f"could not download the weights {title}, and they are not in the cache folders "
            f"{hub.HF_HUB_CACHE} and ~/.cache/clip: {error}; {HOW_TO_GIVE}"
        )
        raise WeightsError(msg) from error


@contextmanager
def offline_if_out_of_reach() -> Iterator[None]:
    """Without network one quick error of the hub's functions, no retries, which take a minute.

    What is cached is still found.
    """
    with offline() if hub.HF_HUB_OFFLINE or hub_is_out_of_reach() else nullcontext():
        yield


@contextmanager
def offline() -> Iterator[None]:
    """Let the hub's functions ask no network for a while; what is cached is still found."""
    before, hub.HF_HUB_OFFLINE = hub.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        hub.HF_HUB_OFFLINE = before


def hub_is_out_of_reach() -> bool:
    """Whether Hugging Face does not answer within ten seconds."""
    request = urllib.request.Request(hub.ENDPOINT, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=10).close()
    except urllib.error.HTTPError:
        return False  # it answered
    except OSError:
        return True
    return False
