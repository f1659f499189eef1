"""Sentences to tokens, and where in them the words stand: CLIP's byte pairs, or Hugging Face's."""

import textwrap
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from inspect import signature
from pathlib import Path
from typing import Any

import open_clip
import torch
from jaxtyping import Int
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from torch import Tensor

from anomalib_medclip.clip.configuration import tokenizer_options
from anomalib_medclip.clip.hugging_face import hf_folder, tokenizer_folder
from anomalib_medclip.clip.source import Source
from anomalib_medclip.errors import WeightsError
from anomalib_medclip.files import as_json, from_json


class Tokenizer(ABC):
    """Makes tokens of sentences.

    Attributes:
        context_length: Tokens of each sentence, padding included.
        first: Number of tokens before the first word.
    """

    context_length: int
    first: int

    @abstractmethod
    def __call__(self, sentences: Sequence[str]) -> Int[Tensor, "sentence context"]:
        """Tokens, padded to the context length; not to be changed."""

    @abstractmethod
    def ends(self, tokens: Int[Tensor, "sentence context"]) -> Int[Tensor, "sentence"]:
        """Position after the last word: of the token that ends the sentence."""


class BytePairs(Tokenizer):
    """CLIP's own.

    Args:
        context_length: See ``Tokenizer``.
        options: Of open_clip's ``SimpleTokenizer``, such as how sentences are cleaned.
    """

    first = 1

    def __init__(self, context_length: int, options: dict[str, Any] | None = None) -> None:
        self.context_length = context_length
        self._options = as_json(options or {}, sort_keys=True)

    def __call__(self, sentences: Sequence[str]) -> Int[Tensor, "sentence context"]:
        """Tokens, padded with zeros."""
        return _byte_pairs(tuple(sentences), self.context_length, self._options)

    def ends(self, tokens: Int[Tensor, "sentence context"]) -> Int[Tensor, "sentence"]:
        """Position of the end-of-text token, whose number is the largest."""
        return tokens.argmax(dim=-1)


class HuggingFaceTokens(Tokenizer):
    """A tokenizer of Hugging Face.

    Args:
        source: Where the model comes from.

    Raises:
        RuntimeMissingError: transformers is not installed.
        WeightsError: Files are missing, or are none of a tokenizer; or its options are none.
    """

    def __init__(self, source: Source) -> None:
        text = source.config["text_cfg"]
        self.context_length = int(text.get("context_length", 77))
        self._kept: dict[tuple[str, ...], Tensor] = {}
        options = tokenizer_options(source.name, text)
        folder = tokenizer_folder(source)
        if "kwargs" in signature(HFTokenizer).parameters:  # former versions of it pass nothing on
            options["trust_remote_code"] = False
        self._told = partial(_read_by_transformers, folder, str(text["hf_tokenizer_name"]))
        with self._told():
            self._made = HFTokenizer(str(folder), self.context_length, **options)
            self.first, self._end = self._around_words()

    def __call__(self, sentences: Sequence[str]) -> Int[Tensor, "sentence context"]:
        """Tokens, padded as the tokenizer does."""
        found = tuple(sentences)
        if found not in self._kept:
            if len(self._kept) >= _MOST:
                self._kept.clear()
            with self._told(), torch.inference_mode(mode=False):  # see _byte_pairs
                self._kept[found] = self._tokenize(list(found))
        return self._kept[found]

    def ends(self, tokens: Int[Tensor, "sentence context"]) -> Int[Tensor, "sentence"]:
        """Position of the first token that ends a sentence; where there is none, the last."""
        ended = tokens == self._end
        ended[:, : self.first] = False
        ended[:, -1] = True
        return ended.int().argmax(dim=-1)

    def _tokenize(self, sentences: list[str]) -> Int[Tensor, "sentence context"]:
        made = self._made
        if getattr(made, "tokenizer_mode", ""):
            return made(sentences)
        # As open_clip's, whose former versions call what transformers has no more.
        tokens: Tensor = made.tokenizer(
            [made.clean_fn(sentence) for sentence in sentences],
            return_tensors="pt",
            max_length=self.context_length,
            padding="max_length",
            truncation=True,
        ).input_ids
        if made.strip_sep_token:
            tokens = tokens.masked_fill(tokens == made.tokenizer.sep_token_id, 0)
        return tokens

    def _around_words(self) -> tuple[int, int]:
        """How many tokens stand before a word, and the token after it."""
        tokenizer = self._made.tokenizer
        word = tokenizer("x", add_special_tokens=False).input_ids
        whole = self._tokenize(["x"])[0].tolist()
        places = (n for n in range(len(whole)) if whole[n : n + len(word)] == word)
        first = next(places)
        rest = whole[first + len(word) :]
        return first, rest[0] if rest else tokenizer.pad_token_id


@contextmanager
def _read_by_transformers(folder: Path, name: str) -> Iterator[None]:
    """What goes wrong is of these files; the panics of its library are no ``Exception``."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        reason = textwrap.shorten(str(error), 200, placeholder=" ...")
        msg = f"{folder} holds no tokenizer that transformers reads: {reason}; copy the files "
        msg += f"of {name} there again"
        raise WeightsError(msg) from error


_MOST = 64
"""Lists of sentences whose tokens are kept: prompts that learn read the same words again."""


def tokenizer_of(source: Source) -> Tokenizer:
    """The tokenizer of a model's text tower.

    Raises:
        RuntimeMissingError: It is one of Hugging Face, and transformers is not installed.
        WeightsError: Its files are missing or damaged.
    """
    text = source.config["text_cfg"]
    if "hf_model_name" in text:
        hf_folder(source)  # of a tower that is none it is said before a tokenizer reads its files
    if text.get("hf_tokenizer_name"):
        return HuggingFaceTokens(source)
    return BytePairs(int(text.get("context_length", 77)), tokenizer_options(source.name, text))


@lru_cache(maxsize=_MOST)
def _byte_pairs(sentences: tuple[str, ...], length: int, options: str) -> Tensor:
    """Kept, because prompts that learn read the same words at every step."""
    with torch.inference_mode(mode=False):  # whoever asks first, others may learn with them
        if options != "{}":
            found: Tensor = SimpleTokenizer(**from_json(options))(list(sentences), length)
            return found
        return open_clip.tokenize(list(sentences), length)
