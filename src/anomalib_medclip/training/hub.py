"""A trained model as a folder that can be shared: weights, options, and a card that describes it.

``save_pretrained``, ``from_pretrained`` and ``push_to_hub`` are huggingface_hub's; what is here is
what they ask of a model. The folder holds

=====================  ================================================================
``model.safetensors``  what was learnt; CLIP is named by its tag and fingerprint
``config.json``        options, thresholds and all else that scoring needs
``README.md``          the model card
=====================  ================================================================

and nothing of a patient: no picture, and no name of a file, folder or person.
"""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import lightning
import torch
from huggingface_hub import ModelCard, ModelHubMixin, hf_hub_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from anomalib_medclip.errors import CheckpointError, ConfigError, ResultsError
from anomalib_medclip.files import (
    as_json,
    check_writable,
    fault_of,
    read_json,
    sha256,
    told_if_full,
)
from anomalib_medclip.training.checkpoints import (
    KEY,
    notes_of,
    refuse_commands,
    refuse_unfinished,
    switched_off,
)
from anomalib_medclip.training.model_card import card_facts, card_of

WEIGHTS, CONFIG = "model.safetensors", "config.json"
"""Names in the folder; both are huggingface_hub's."""

_FAMILIAR = "familiar."
"""How names of those tensors begin by which strange images are told."""

_OF_THE_HUB = {
    "revision", "cache_dir", "force_download", "local_files_only", "token",
    "proxies", "resume_download",
}  # fmt: skip
"""What huggingface_hub passes on, some versions more than others, besides options of the model."""

if TYPE_CHECKING:
    from anomalib.models.components.base import AnomalibModule as Base
else:  # a mixin, because anomalib takes every direct subclass of AnomalibModule for a model
    Base = object


class HubVerbs(ModelHubMixin, Base):
    """A model of anomalib that is saved to folders, and read from them, as the hub has them."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Any:  # noqa: ANN401, D102 - the model itself
        # Not as the mixin, which would keep all options once more, paths of files among them.
        return super(ModelHubMixin, cls).__new__(cls)

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        config: Any = None,  # noqa: ANN401 - the mixin's
        repo_id: str | None = None,
        push_to_hub: bool = False,
        model_card_kwargs: dict[str, Any] | None = None,
        run: str | Path | None = None,
        **push_to_hub_kwargs: Any,  # noqa: ANN401 - the mixin's
    ) -> str | None:
        """Write the model to a new folder, with its card.

        Args:
            save_directory: The folder, new or empty.
            config: Nothing: what there is to configure are the options of the model.
            repo_id: Name on the hub; by default that of the folder.
            push_to_hub: Whether to send it there, too.
            model_card_kwargs: What the card is to say besides: ``license``, as the hub calls it,
                and ``data``, a sentence about the images that were learnt from.
            run: ``run.json`` of a test of this very model, whose figures the card is to have.
            **push_to_hub_kwargs: As of ``push_to_hub``.

        Returns:
            The address of what was sent, if it was.

        Raises:
            ResultsError: Something lies in the folder.
            UnfinishedError: The training was not finished.
            CheckpointError: ``run`` is of another model.
            OutputError: Nothing can be written there.
        """
        folder = Path(save_directory)
        if config is not None:
            msg = "a model's configuration are its options; leave config out"
            raise ConfigError(msg)
        if folder.exists() and any(folder.iterdir()):
            msg = f"{folder} holds files already; give a new folder"
            raise ResultsError(msg)
        check_writable(folder)
        noted = notes_of(folder, state := _state_of(self))
        refuse_unfinished(Path("the model to save"), noted)
        facts = {**card_facts(self, noted, state, run), **(model_card_kwargs or {})}
        folder.parent.mkdir(parents=True, exist_ok=True)
        with told_if_full(folder), TemporaryDirectory(dir=folder.parent, prefix=".") as aside:
            whole = Path(aside, folder.name)
            super().save_pretrained(whole, model_card_kwargs=facts)
            if folder.exists():
                folder.rmdir()  # which is empty
            whole.replace(folder)
        if not push_to_hub:
            return None
        name = repo_id or folder.name
        return super().push_to_hub(name, model_card_kwargs=facts, **push_to_hub_kwargs)

    def _save_pretrained(self, save_directory: Path) -> None:
        tensors, plain = _parted(_state_of(self))
        save_file(tensors, save_directory / WEIGHTS, {"format": "pt"})
        text = as_json({"library_name": "anomalib-medclip", KEY: plain}, indent=2)
        (save_directory / CONFIG).write_text(text + "\n", encoding="utf-8")

    def generate_model_card(self, *_args: Any, **kwargs: Any) -> ModelCard:  # noqa: ANN401 - the mixin's
        """The card, of what ``save_pretrained`` has gathered."""
        return card_of(kwargs)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        **options: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401 - the method
        """Read a model from such a folder, or from the hub.

        Args:
            pretrained_model_name_or_path: The folder, or its name on the hub, ``ORG/NAME``.
            **options: Those of the hub, such as ``revision``, and of the model, such as
                ``pretrained``, a file of CLIP's weights where its tag is of no use.

        Raises:
            CheckpointError: There is no such folder, or it holds something else.
            BackboneMismatchError: CLIP's weights are not those of the training.
        """
        name = str(pretrained_model_name_or_path)
        if not Path(name).is_dir() and (name.count("/") != 1 or name[0] in "/.~"):
            msg = f"{name} is no folder, and no name on the hub, which is ORG/NAME; correct it"
            raise CheckpointError(msg)
        return super().from_pretrained(name, **options)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, config: Any = None, **options: Any) -> Any:  # noqa: ANN401
        """The model of a folder, which the hub has handed over or has still to fetch."""
        of_hub = {key: value for key, value in options.items() if key in _OF_THE_HUB}
        own = {k: v for k, v in options.items() if k not in {*_OF_THE_HUB, *(config or {})}}
        if Path(model_id).is_dir():
            weights = Path(model_id, WEIGHTS)
        else:
            weights = Path(hf_hub_download(model_id, WEIGHTS, **of_hub))
        state = read_pretrained(weights)
        refuse_unfinished(weights, notes_of(weights, state))
        own = {"map_location": "cpu", **switched_off(state), **own}
        return cast("Any", cls).load_from_checkpoint(as_file(state), **own)


def read_pretrained(weights: Path) -> dict[str, Any]:
    """A checkpoint made of a folder as ``save_pretrained`` writes it; nothing in it is run.

    Args:
        weights: ``model.safetensors``, beside which lies ``config.json``.

    Raises:
        CheckpointError: They are missing, damaged or of something else, or ask for code.
        WeightsError: Its backbone is a folder, or of the hub.
    """
    for file in (weights, weights.with_name(CONFIG)):
        if fault := fault_of(file):
            msg = f"{file} {fault.said}; copy the whole folder that save_pretrained has written"
            raise CheckpointError(msg)
    try:
        state = _joined(load_file(weights), read_json(weights.with_name(CONFIG))[KEY])
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"{weights.parent} is no model that save_pretrained has written, or damaged: {error};"
        msg += " copy it again"
        raise CheckpointError(msg) from error
    refuse_commands(weights, state)
    return state


def files_of(weights: Path) -> dict[str, str]:
    """SHA-256 of the two files that such a model is read from, by name."""
    return {file.name: sha256(file) for file in (weights, weights.with_name(CONFIG))}


def as_file(state: dict[str, Any]) -> BytesIO:
    """A checkpoint as an opened file, for Lightning."""
    torch.save(state, file := BytesIO())
    file.seek(0)
    return file


def _state_of(method: Any) -> dict[str, Any]:  # noqa: ANN401 - a method
    """What a checkpoint has of a model, besides where a training stood."""
    state = {
        "state_dict": method.state_dict(),
        "hyper_parameters": dict(method.hparams),
        "hparams_name": "kwargs",
        "pytorch-lightning_version": lightning.__version__,
    }
    method.on_save_checkpoint(state)
    return {k: v for k, v in state.items() if k not in ("optimizer_states", "lr_schedulers")}


def _parted(state: Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors of a checkpoint and its plain values; pictures and places are in neither."""
    notes = dict(state[KEY])
    del notes["probes"]
    familiar = notes.pop("familiar") or {}
    tensors = {**state["state_dict"], **{_FAMILIAR + name: v for name, v in familiar.items()}}
    plain = {key: value for key, value in state.items() if key not in ("state_dict", KEY)}
    plain["hyper_parameters"] = _without_places(plain["hyper_parameters"])
    # Safetensors wants each tensor to have a memory of its own.
    own = {name: one.detach().cpu().clone().contiguous() for name, one in tensors.items()}
    return own, {**plain, "notes": notes}


def _without_places(value: Any, name: str = "") -> Any:  # noqa: ANN401 - plain values
    """Options, in which files are named without their folders."""
    if isinstance(value, Mapping):
        return {key: _without_places(one, key) for key, one in value.items()}
    is_file = isinstance(value, str) and (name == "pretrained" or Path(value).is_absolute())
    return Path(value).name if is_file else value


def _joined(tensors: dict[str, torch.Tensor], plain: dict[str, Any]) -> dict[str, Any]:
    """Undo ``_parted``."""
    familiar = {k: tensors.pop(k) for k in list(tensors) if k.startswith(_FAMILIAR)}
    notes = {
        **plain.pop("notes"),
        "probes": torch.empty(0, dtype=torch.uint8),
        "familiar": {k.removeprefix(_FAMILIAR): v for k, v in familiar.items()} or None,
    }
    reading = plain.get("anomalib_pre_processor_config") or {}
    if isinstance(reading.get("intensity"), list):  # JSON has no tuples
        reading["intensity"] = tuple(reading["intensity"])
    return {**plain, "state_dict": tensors, KEY: notes}
