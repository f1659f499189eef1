"""Whether configurations of open_clip and of Hugging Face say what they can say.

They come from anybody. What is of another kind is refused here by its name, before a library takes
it for a number, a path or code to run.
"""

from collections.abc import Iterator, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

import timm
from open_clip.hf_configs import arch_dict

from anomalib_medclip.clip.weights import HOW_TO_GIVE
from anomalib_medclip.errors import WeightsError
from anomalib_medclip.files import from_json

MOST_BLOCKS = 512
"""Of a tower; the deepest of open_clip has 64."""

_MOST = 2**48
"""Of other numbers; whether a model of such is too large is asked once it is known."""

_WHOLE = {
    "layers": MOST_BLOCKS,
    "width": _MOST,
    "head_width": _MOST,
    "heads": _MOST,
    "patch_size": _MOST,
    "context_length": 2**12,  # its square is a mask
    "vocab_size": _MOST,
    "attn_pooler_queries": _MOST,
    "attn_pooler_heads": _MOST,
}
"""Whole numbers that a part may say, and the largest that they can be."""

_WORDS = ("timm_model_name", "hf_model_name", "hf_tokenizer_name")

_CLEAN = ("lower", "whitespace", "canonicalize")

_HUGGING_FACE: dict[str, tuple[Any, ...]] = {
    "clean": _CLEAN,
    "strip_sep_token": (True, False),
    "tokenizer_mode": (None, "", "clips"),
}


def checked(where: str, content: Any) -> tuple[dict[str, Any], dict[str, Any]]:  # noqa: ANN401
    """A model's keyword arguments, and how images enter it.

    Args:
        where: The file or the model, for messages.
        content: Of the file, or the keyword arguments alone.

    Raises:
        WeightsError: It is no configuration of open_clip's.
    """
    config = content.get("model_cfg", content) if isinstance(content, Mapping) else content
    if not isinstance(config, Mapping):
        raise _wrong(where, "model_cfg", config, "an object with 'embed_dim' and 'vision_cfg'")
    if "vision_cfg" not in config or "embed_dim" not in config:
        msg = f"{where} says no 'embed_dim' and 'vision_cfg', as a configuration of open_clip "
        msg += "does; write it as open_clip does"
        raise WeightsError(msg)
    _check_whole(where, "embed_dim", config["embed_dim"], _MOST)
    for part in ("vision_cfg", "text_cfg", "multimodal_cfg"):
        if part in config:
            _check_part(where, part, config[part])
    if not isinstance(config.get("quick_gelu", False), bool):
        raise _wrong(where, "quick_gelu", config["quick_gelu"], "true or false")
    enters = content.get("preprocess_cfg") or {}
    _check_entry(where, enters)
    return dict(config), dict(enters)


def tokenizer_options(where: str, text: Mapping[str, Any]) -> dict[str, Any]:
    """What a configuration says of its tokenizer; no file, no library and no code is among it.

    Args:
        where: The model, for messages.
        text: The configuration of its text tower.

    Raises:
        WeightsError: It says what nobody may say, or what there is not.
    """
    given: dict[str, Any] = dict(text.get("tokenizer_kwargs") or {})
    known: dict[str, tuple[Any, ...]] = {"clean": _CLEAN}
    languages: tuple[str, ...] = ()
    if text.get("hf_tokenizer_name"):
        known, languages = _HUGGING_FACE, ("language",)
        given = {"tokenizer_mode": text.get("tokenizer_mode")} | given
    if unknown := given.keys() - known.keys() - set(languages):
        msg = f"{where} has the tokenizer options {sorted(map(str, unknown))}, of which "
        msg += f"{sorted((*known, *languages))} are known; take the others out of tokenizer_kwargs"
        raise WeightsError(msg)
    for name, values in known.items():
        if name in given and not any(given[name] is v or given[name] == v for v in values):
            of = f"one of {', '.join(map(repr, values))}"
            raise _wrong(where, f"tokenizer_kwargs: {name}", given[name], of)
    if not isinstance(given.get("language") or "", str):
        raise _wrong(where, "tokenizer_kwargs: language", given["language"], "a word")
    return {name: value for name, value in given.items() if value not in (None, "")}


def check_harmless(folder: Path) -> Path:
    """The folder, if no configuration in it names code, which transformers would offer to run.

    Raises:
        WeightsError: One does, or is no JSON.
    """
    for path in sorted(folder.glob("*config*.json")):
        for key, value in _entries(_object(path)):
            # Kernels of attention are fetched from the hub, where a repository is named.
            fetched = key.endswith("_implementation") and "/" in str(value)
            if key == "auto_map" or fetched:
                msg = f"{path} names code of its own ({key}), which is not run; take a model that "
                msg += "transformers itself has"
                raise WeightsError(msg)
            if key == "configuration_files":
                msg = f"{path} names other files in its place ({key}), which are not read; take "
                msg += "that out"
                raise WeightsError(msg)
    return folder


def check_text(folder: Path) -> Path:
    """The folder, if its ``config.json`` is of a text tower that open_clip knows.

    Raises:
        WeightsError: It is none, is no JSON, or is larger than any.
    """
    path = check_harmless(folder) / "config.json"
    said = _object(path)
    if (kind := said.get("model_type")) not in list(arch_dict):
        raise _wrong(str(path), "model_type", kind, f"one of {', '.join(arch_dict)}")
    for name, value in said.items():
        if name.endswith("layers") and value is not None:
            _check_whole(str(path), name, value, MOST_BLOCKS)
    return folder


def check_timm(name: str, model: str | None = None) -> None:
    """Refuse what is no name of timm's own list; timm would fetch repositories and open folders.

    Args:
        name: What is asked of timm.
        model: What asks for it, for messages.

    Raises:
        WeightsError: It is none.
    """
    if not timm.is_model(name):
        asks = f" for {model}" if model else ""
        msg = f"timm knows no network {name[:60]!r}{asks}; see timm.list_models()"
        raise WeightsError(msg)


def check_timm_tag(name: str, tag: str) -> None:
    """Refuse a tag that timm has not.

    Raises:
        WeightsError: It has others of this name, which are said.
    """
    tags = timm.list_pretrained(f"{name}.*")
    if f"{name}.{tag}" not in tags:
        known = ", ".join(one.partition(".")[2] for one in tags) or "none"
        msg = f"timm has no weights {tag!r} for {name}, its tags are: {known}; or {HOW_TO_GIVE}"
        raise WeightsError(msg)


def _object(path: Path) -> dict[str, Any]:
    try:
        found = from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"{path} is no JSON ({error}); copy it there again"
        raise WeightsError(msg) from None
    if not isinstance(found, dict):
        msg = f"{path} holds no object; copy it there again"
        raise WeightsError(msg)
    return found


def _entries(value: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - whatever JSON has
    """Every key of a tree and its value."""
    if isinstance(value, dict):
        yield from value.items()
    for one in value.values() if isinstance(value, dict) else value:
        if isinstance(one, dict | list):
            yield from _entries(one)


def _check_part(where: str, part: str, said: Any) -> None:  # noqa: ANN401 - whatever JSON has
    if not isinstance(said, Mapping):
        remedy = "" if part == "vision_cfg" else ", or be left out"
        raise _wrong(where, part, said, f"an object{remedy}")
    for name, most in _WHOLE.items():
        if name in said and not (part == "vision_cfg" and _is_of_a_resnet(name, said[name])):
            _check_whole(where, f"{part}: {name}", said[name], most)
    for name in _WORDS:
        absent = name == "hf_tokenizer_name" and said.get(name) is None
        if name in said and not absent and not (isinstance(said[name], str) and said[name]):
            raise _wrong(where, f"{part}: {name}", said[name], "a name, or be left out")
    if not isinstance(said.get("tokenizer_kwargs") or {}, Mapping):
        raise _wrong(where, f"{part}: tokenizer_kwargs", said["tokenizer_kwargs"], "an object")


def _is_of_a_resnet(name: str, value: Any) -> bool:  # noqa: ANN401 - whatever JSON has
    """Whether a number is none because the tower is a ResNet, which is refused by its kind."""
    if name == "layers":
        return isinstance(value, list | tuple) and bool(value)
    return name == "patch_size" and value is None


def _check_whole(where: str, name: str, value: Any, most: int) -> None:  # noqa: ANN401
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise _wrong(where, name, value, f"a whole number from 1 to {most}")


def _check_entry(where: str, said: Any) -> None:  # noqa: ANN401 - whatever JSON has
    if not isinstance(said, Mapping):
        raise _wrong(where, "preprocess_cfg", said, "an object, or be left out")
    for name in ("mean", "std"):
        three = said.get(name)
        if three and not (_are_three(three) and (name == "mean" or min(three) > 0)):
            raise _wrong(where, f"preprocess_cfg: {name}", three, "three numbers, of std above 0")
    for name, kind in (("interpolation", str), ("quick_gelu", bool)):
        if not isinstance(said.get(name), kind | None):
            raise _wrong(where, f"preprocess_cfg: {name}", said[name], f"a {kind.__name__}")


def _are_three(value: Any) -> bool:  # noqa: ANN401 - whatever JSON has
    if not isinstance(value, list | tuple) or len(value) != 3:
        return False
    return all(type(one) in (int, float) and abs(one) < 1e6 and isfinite(one) for one in value)


def _wrong(where: str, name: str, value: Any, needed: str) -> WeightsError:  # noqa: ANN401
    given = repr(value)
    given = given if len(given) <= 60 else f"{given[:60]} ..."
    msg = f"{where} says {name} is {given}, and it must be {needed}; correct it there, or have "
    msg += "open_clip write it again"
    return WeightsError(msg)
