"""What a text tower or a tokenizer of Hugging Face needs: the library, and files of a model.

The library, transformers, is an extra, and imported here and where such a tower runs only.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download, snapshot_download

from anomalib_medclip.clip.configuration import check_harmless, check_text
from anomalib_medclip.clip.source import LOCAL, Source
from anomalib_medclip.clip.weights import offline_if_out_of_reach
from anomalib_medclip.errors import ConfigError, RuntimeMissingError, WeightsError
from anomalib_medclip.files import fault_of

_WORDS = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")
"""Files with words, of which a tokenizer has one."""

_WORD_FILES = ("tokenizer*.json", "vocab*.json", "*.txt", "special_tokens_map.json", "*.model")
"""What is downloaded of a repository for its tokenizer: words and numbers, and no code."""


def check_library(name: str) -> None:
    """Refuse a model that needs transformers, where it is not installed.

    Raises:
        RuntimeMissingError: It names the extra to install.
    """
    if find_spec("transformers") is None:
        msg = f"{name} has a text tower or a tokenizer of Hugging Face, and transformers is not "
        msg += "installed: pip install 'anomalib-medclip[hf]'"
        raise RuntimeMissingError(msg)


def hf_folder(source: Source) -> Path:
    """The folder with the configuration of a text tower: on this machine, or in the hub's cache.

    Raises:
        RuntimeMissingError: transformers is not installed.
        WeightsError: It is not on this machine, and the hub is out of reach.
    """
    name = str(source.config["text_cfg"]["hf_model_name"])
    check_library(source.name)
    if folder := _local(source, name, ("config.json",)):
        return check_text(folder)
    _refuse_moved(source, name)
    try:
        with offline_if_out_of_reach():
            return check_text(Path(hf_hub_download(name, "config.json")).parent)
    except WeightsError:
        raise
    except Exception as error:
        raise _missing(source, name, "config.json", error) from error


def tokenizer_folder(source: Source) -> Path:
    """The folder with the files of a tokenizer, likewise.

    Raises:
        RuntimeMissingError: transformers is not installed.
        WeightsError: They are not on this machine, and the hub is out of reach.
    """
    name = str(source.config["text_cfg"]["hf_tokenizer_name"])
    check_library(source.name)
    if folder := _local(source, name, _WORDS):
        return check_harmless(folder)
    _refuse_moved(source, name)
    try:
        with offline_if_out_of_reach():
            found = snapshot_download(name, allow_patterns=list(_WORD_FILES))
            return check_harmless(Path(found))
    except WeightsError:
        raise
    except Exception as error:
        raise _missing(source, name, "the tokenizer's files", error) from error


def text_width(source: Source) -> int:
    """Width of a text tower's token stream."""
    text: dict[str, Any] = source.config["text_cfg"]
    if "hf_model_name" not in text:
        return int(text.get("width", 512))
    folder = hf_folder(source)
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    return int(getattr(config, "hidden_size", None) or config.d_model)


def no_blocks_of(name: str) -> ConfigError:
    """What is raised where a text tower's own blocks are needed."""
    msg = f"{name} has a text tower of Hugging Face, into whose blocks nothing can be put; take a "
    msg += "CLIP with a text tower of its own, or a method that only reads features"
    return ConfigError(msg)


def _local(source: Source, name: str, files: tuple[str, ...]) -> Path | None:
    """Where such files lie: by the path that is named, or beside the configuration itself."""
    beside = [source.folder / name, source.folder] if source.folder else []
    for folder in (Path(name), *beside):
        if any(fault_of(folder / file) is None for file in files):  # whatever a name is
            return folder.absolute()
    return None


def _refuse_moved(source: Source, name: str) -> None:
    """A path of this machine is nothing that the hub could be asked for."""
    if Path(name).is_absolute():
        msg = f"{name} is gone, where files lay that the text of {source.name} needs; copy them "
        msg += f"there again, or train again with a backbone whose folder has them ({LOCAL}FOLDER)"
        raise WeightsError(msg)


def _missing(source: Source, name: str, what: str, error: Exception) -> WeightsError:
    msg = (
        f"could not read {what} of {name}, which the text of {source.name} needs, from the hub or "
    )
    msg += (
        f"its cache: {error}; put the files beside open_clip_config.json into a folder, and name "
    )
    msg += f"it as backbone by {LOCAL}FOLDER"
    return WeightsError(msg)
