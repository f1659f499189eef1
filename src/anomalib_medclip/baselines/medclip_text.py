"""MedCLIP's text: report-like sentences to one feature for normal and one for abnormal.

The language model needs transformers, an extra; what it says may be kept in a file, and scoring
does without.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from anomalib_medclip.baselines.medclip_weights import of_text, read_released
from anomalib_medclip.clip.towers import TextTower
from anomalib_medclip.components.prompts import ABNORMAL_STATES, NORMAL_STATES, PromptEncoder
from anomalib_medclip.errors import NotReadyError, RuntimeMissingError, WeightsError

NORMAL = tuple(f"Findings: {state}." for state in NORMAL_STATES)
ABNORMAL = tuple(f"Findings: {state}." for state in ABNORMAL_STATES)
"""MVFA's states as sentences of a report, ``{}`` where the object's name goes; ours, for no prompts
were published."""

TOKENIZER = "emilyalsentzer/Bio_ClinicalBERT"
"""Repository of the tokenizer that MedCLIP was trained with."""

LONGEST = 77
"""Tokens after which a sentence is cut."""


class MedCLIPText(nn.Module):
    """A BERT, and a linear layer without bias into the shared space.

    Args:
        config: Keyword arguments of transformers' ``BertConfig``.
        tokenizer: transformers' tokenizer.
        embed_dim: Width of the shared space.
    """

    def __init__(self, config: dict[str, Any], tokenizer: Any, embed_dim: int = 512) -> None:  # noqa: ANN401
        super().__init__()
        from transformers import BertConfig, BertModel  # an extra

        self.model = BertModel(BertConfig(**config), add_pooling_layer=True).eval()
        self.projection_head = nn.Linear(self.model.config.hidden_size, embed_dim, bias=False)
        self.tokenizer = tokenizer

    @classmethod
    def released(cls, weights: str | Path, tokenizer: str | Path = TOKENIZER) -> "MedCLIPText":
        """The language model of released weights.

        Args:
            weights: The authors' archive, or the file in it.
            tokenizer: Its repository, or a folder with its files.

        Raises:
            RuntimeMissingError: transformers is not installed.
            WeightsError: The weights or the tokenizer cannot be read.
        """
        _check_library()
        from transformers import AutoTokenizer

        state, head = of_text(read_released(weights))
        try:
            words = AutoTokenizer.from_pretrained(str(tokenizer), trust_remote_code=False)
            text = cls(config_of(state), words, len(head))
            text.model.load_state_dict(state)
            text.projection_head.load_state_dict({"weight": head})
        except (OSError, KeyError, RuntimeError, ValueError) as error:
            said = str(error).partition("\n")[0]
            msg = f"MedCLIP's text cannot be made of {weights} and the tokenizer {tokenizer}: "
            msg += f"{said}; give a folder with the tokenizer's files, or text_features"
            raise WeightsError(msg) from error
        return text

    @torch.no_grad()
    def forward(self, sentences: Sequence[str]) -> Float[Tensor, "sentence embed_dim"]:
        """Unit vectors of sentences, which are one batch.

        A feature is the mean over the first, the second and the last layer, and over all positions,
        padding included. So it depends on the longest sentence beside it: sentences of a class
        belong together, in one order.
        """
        tokens = self.tokenizer(
            list(sentences), padding=True, truncation=True, max_length=LONGEST, return_tensors="pt"
        )
        kinds = {name: tokens[name] for name in ("input_ids", "attention_mask")}
        states = self.model(**kinds, output_hidden_states=True).hidden_states
        mean = torch.stack([states[1], states[2], states[-1]]).mean(dim=(0, 2))
        return F.normalize(self.projection_head(mean), dim=-1)

    def features(
        self,
        object_name: str,
        normal: Sequence[str] = NORMAL,
        abnormal: Sequence[str] = ABNORMAL,
    ) -> Float[Tensor, "2 embed_dim"]:
        """Mean feature of the normal and of the abnormal sentences.

        Their product with an image is its mean cosine with the sentences, and so they are no unit
        vectors.

        Args:
            object_name: What images show.
            normal: Sentences for normal images, ``{}`` where the name goes.
            abnormal: Sentences for abnormal images.
        """
        groups = ([one.format(object_name) for one in states] for states in (normal, abnormal))
        return torch.stack([self(group).mean(dim=0) for group in groups])


def config_of(state: dict[str, Tensor]) -> dict[str, Any]:
    """Keyword arguments of ``BertConfig`` that fit weights; heads are 64 wide, as BERT's are."""
    words, width = state["embeddings.word_embeddings.weight"].shape
    layers = {name.split(".")[2] for name in state if name.startswith("encoder.layer.")}
    return {
        "vocab_size": words,
        "hidden_size": width,
        "num_hidden_layers": len(layers),
        "num_attention_heads": max(1, width // 64),
        "intermediate_size": len(state["encoder.layer.0.intermediate.dense.bias"]),
        "max_position_embeddings": len(state["embeddings.position_embeddings.weight"]),
        "type_vocab_size": len(state["embeddings.token_type_embeddings.weight"]),
    }


def write_text_features(
    path: str | Path,
    weights: str | Path,
    object_name: str,
    tokenizer: str | Path = TOKENIZER,
    normal: Sequence[str] = NORMAL,
    abnormal: Sequence[str] = ABNORMAL,
) -> Path:
    """Keep what the language model says of an object, so that scoring does without it.

    Args:
        path: File to write, in safetensors' format.
        weights: The authors' archive, or the file in it.
        object_name: What images show, such as ``"chest X-ray"``.
        tokenizer: Its repository, or a folder with its files.
        normal: Sentences for normal images, ``{}`` where the name goes.
        abnormal: Sentences for abnormal images.

    Raises:
        RuntimeMissingError: transformers is not installed.
        WeightsError: The weights or the tokenizer cannot be read.
    """
    found = MedCLIPText.released(weights, tokenizer).features(object_name, normal, abnormal)
    save_file({"text": found.contiguous()}, str(path), {"object_name": object_name})
    return Path(path)


def read_text_features(path: str | Path, embed_dim: int) -> Float[Tensor, "2 embed_dim"]:
    """What ``write_text_features`` has kept.

    Raises:
        WeightsError: It is missing, or no such file.
    """
    try:
        found = load_file(str(path))["text"].float()
    except Exception as error:  # safetensors' own kinds
        msg = f"text features {path} cannot be read: {error}; write them by write_text_features"
        raise WeightsError(msg) from error
    if found.shape != (2, embed_dim):
        msg = f"text features {path} are {tuple(found.shape)}, and should be {(2, embed_dim)}: "
        msg += "write them by write_text_features"
        raise WeightsError(msg)
    return found


class MedCLIPPrompts(PromptEncoder):
    """Text features of MedCLIP, from a file or by its language model.

    Args:
        weights: Released weights with the language model, or ``None``.
        tokenizer: Its repository, or a folder with its files.
        kept: What ``write_text_features`` kept, or ``None``.
        normal: Sentences for normal images, ``{}`` where the object's name goes.
        abnormal: Sentences for abnormal images.
    """

    reads_words: ClassVar[bool] = False  # its text is no text tower of CLIP

    def __init__(
        self,
        weights: str | None,
        tokenizer: str,
        kept: Tensor | None = None,
        normal: Sequence[str] = NORMAL,
        abnormal: Sequence[str] = ABNORMAL,
    ) -> None:
        super().__init__()
        self.weights, self.tokenizer, self.kept = weights, tokenizer, kept
        self.normal, self.abnormal = tuple(normal), tuple(abnormal)

    def forward(
        self, tower: TextTower | None, object_name: str = ""
    ) -> Float[Tensor, "2 embed_dim"]:
        """Mean feature of the normal and of the abnormal sentences; the tower is not asked.

        Raises:
            NotReadyError: There is neither a file nor a language model.
            RuntimeMissingError: transformers is not installed.
            WeightsError: Weights or tokenizer cannot be read.
        """
        del tower
        if self.kept is not None:
            return self.kept
        if self.weights is None:
            msg = "random weights have no language model; give text_features, or pretrained"
            raise NotReadyError(msg)
        text = MedCLIPText.released(self.weights, self.tokenizer)
        return text.features(object_name, self.normal, self.abnormal)


def _check_library() -> None:
    if find_spec("transformers") is None:
        msg = "MedCLIP's text needs transformers: pip install 'anomalib-medclip[hf]', or give "
        msg += "text_features, written where it is installed"
        raise RuntimeMissingError(msg)
