"""MedCLIP's weights as its authors release them, in the names that timm and transformers have."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import BadZipFile, ZipFile, is_zipfile

import torch
from torch import Tensor

from anomalib_medclip.clip.weights import read_plain
from anomalib_medclip.errors import WeightsError

_FILE = "pytorch_model.bin"
"""What the archives of its authors hold."""

_SWIN = (
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.norm\.", "patch_embed.norm."),
    (r"^layernorm\.", "norm."),
    (r"^encoder\.", ""),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.(?:output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.attention\.(?:self\.)?(?:relative_position_bias\.)?(?=relative_)", ".attn."),
    (r"\.(?:intermediate\.dense|mlp\.fc1)\.", ".mlp.fc1."),
    (r"(?<!attention)\.(?:output\.dense|mlp\.fc2)\.", ".mlp.fc2."),
)
"""Names of transformers' Swin, of version 4 or 5, and what timm calls the same."""

_QKV = re.compile(r"(.*)\.attention\.(?:self\.)?(query|key|value|q_proj|k_proj|v_proj)\.(.*)")


def read_released(path: str | Path) -> dict[str, Tensor]:
    """All weights of a released archive, or of the ``pytorch_model.bin`` in it; no code is run.

    Raises:
        WeightsError: It is missing, or no such file.
    """
    try:
        found = _read(Path(path))
    except (ValueError, BadZipFile, OSError) as error:
        msg = f"MedCLIP's weights {path} cannot be read: {error}; give the archive as it was "
        msg += f"downloaded, or the {_FILE} in it"
        raise WeightsError(msg) from None
    if not isinstance(found, dict) or "logit_scale" not in found:
        msg = f"{path} holds no weights of MedCLIP: there is no logit_scale; give a file of its own"
        raise WeightsError(msg)
    return {name: value.float() for name, value in found.items() if value.is_floating_point()}


def _read(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    if not is_zipfile(path):
        return read_plain(path)
    with ZipFile(path) as archive:
        inside = [one for one in archive.namelist() if Path(one).name == _FILE]
        if not inside:  # torch's own files are archives, too
            return read_plain(path)
        with TemporaryDirectory() as folder, archive.open(inside[0]) as packed:
            with (copy := Path(folder, _FILE)).open("wb") as file:
                shutil.copyfileobj(packed, file)
            return read_plain(copy)


def of_images(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The image network's weights, in the names of ``StageVisual``."""
    before = "vision_model.model."
    own = {n.removeprefix(before): v for n, v in state.items() if n.startswith(before)}
    if "fc.weight" in own:
        head = own.pop("fc.weight")
    else:
        head, own = state["vision_model.projection_head.weight"], swin_in_timm(own)
    return {"projection_head.weight": head, **{f"model.{n}": v for n, v in own.items()}}


def of_text(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
    """The language model's weights, in the names of transformers, and the layer that follows.

    Buffers that numbers positions, which former versions saved, are left out.
    """
    before = "text_model.model."
    own = {n.removeprefix(before): v for n, v in state.items() if n.startswith(before)}
    own.pop("embeddings.position_ids", None)
    return own, state["text_model.projection_head.weight"]


def swin_in_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of transformers' ``SwinModel`` in the names of timm's ``SwinTransformer``.

    Query, key and value become one layer. A stage's downsampling, which ends a stage there, begins
    the next one here.
    """
    found: dict[str, Tensor] = {}
    joined: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        if name.endswith(("relative_position_index", "position_ids")):
            continue
        if part := _QKV.fullmatch(name):
            block = _renamed(part[1])
            joined.setdefault(f"{block}.attn.qkv.{part[3]}", {})[part[2][0]] = value
        else:
            found[_renamed(name)] = value
    for name, parts in joined.items():
        found[name] = torch.cat([parts[letter] for letter in "qkv"])
    return found


def _renamed(name: str) -> str:
    for pattern, of_timm in _SWIN:
        name = re.sub(pattern, of_timm, name)
    return re.sub(
        r"^layers\.(\d+)\.downsample\.",
        lambda found: f"layers.{int(found[1]) + 1}.downsample.",
        name,
    )
