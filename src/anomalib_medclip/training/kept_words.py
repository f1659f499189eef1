"""The words of prompts in a checkpoint, which needs no file of them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from anomalib_medclip.components.words import KINDS, Words
from anomalib_medclip.errors import CheckpointError


def refuse_named_words(path: str | Path, options: Iterable[Mapping[str, Any]]) -> None:
    """Refuse a checkpoint that names a file of words, which would be opened; ours hold the words.

    Args:
        path: Of the checkpoint, for messages.
        options: What it says of its model's options, wherever it says it.

    Raises:
        CheckpointError: It does.
    """
    for said in (one.get("prompts") for one in options):
        if isinstance(said, str) and said not in KINDS:
            msg = f"checkpoint {path} names {said!r} as its prompts, and no file is opened for a "
            msg += "checkpoint; train it again by 'anomalib train'"
            raise CheckpointError(msg)


def refuse_other_words(file: object, noted: Mapping[str, Any] | None, words: Words | None) -> None:
    """Refuse to go on with other words than a text was encoded or learnt with.

    Args:
        file: The checkpoint, for messages.
        noted: What its prompts say; ``None`` in files of former versions.
        words: What those of the model say.

    Raises:
        CheckpointError: They differ.
    """
    if noted is None or words is None or noted == (here := words.as_plain()):
        return
    name = next(name for name in here if noted.get(name) != here[name])
    msg = f"{file} was made with other words, of {name}: {noted.get(name)}; pass the prompts of "
    msg += "the training run, or train again"
    raise CheckpointError(msg)
