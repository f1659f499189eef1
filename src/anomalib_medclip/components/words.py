"""The words of prompts: states and templates, and the file or mapping in which a user says them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

from anomalib_medclip.errors import ConfigError
from anomalib_medclip.files import MISSING, fault_of, from_yaml

Kind = Literal["learnable", "fixed", "anchors"]
"""Sentences whose words around the states learn, sentences that do not, or no words at all."""

KINDS: tuple[Kind, ...] = get_args(Kind)
"""All of them."""

PLACE = "{}"
"""Where an object's name goes in a state, and a state in a template."""

LISTS = ("normal", "abnormal", "templates")
"""The keys that hold sentences or parts of them."""

_KEYS = ("kind", "object_name", *LISTS)


@dataclass(frozen=True)
class Words:
    """What sentences are made of.

    Attributes:
        normal: States of a normal object; ``{}`` is where its name goes, in all of the states or
            in none.
        abnormal: States of an abnormal object.
        templates: Sentences, ``{}`` where the state goes; empty where states are all there is.

    Raises:
        ConfigError: Some states name the object and others do not.
    """

    normal: tuple[str, ...]
    abnormal: tuple[str, ...]
    templates: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """See ``Words``."""
        states = self.normal + self.abnormal
        without = [one for one in states if PLACE not in one]
        if 0 < len(without) < len(states):
            msg = f"the state {without[0]!r} has no {PLACE} for the object's name, and others "
            msg += "have; write it in all states or in none"
            raise ConfigError(msg)

    @property
    def name_the_object(self) -> bool:
        """Whether they say what the images show."""
        return PLACE in self.normal[0]

    def about(self, object_name: str) -> "Words":
        """The same with the object's name in its place."""
        normal, abnormal = (
            tuple(one.replace(PLACE, object_name) for one in states)
            for states in (self.normal, self.abnormal)
        )
        return replace(self, normal=normal, abnormal=abnormal)

    def as_plain(self) -> dict[str, list[str]]:
        """Lists by name, as JSON, YAML and checkpoints hold them."""
        return {name: list(found) for name, found in asdict(self).items()}


@dataclass(frozen=True)
class AskedWords:
    """What a user says of prompts, by ``prompts``: a kind, a YAML file, or what is in one.

    Attributes:
        kind: Whether the words around the states learn; ``None`` where that is not said.
        object_name: What the images show; ``None`` where that is not said.
        lists: ``normal``, ``abnormal`` and ``templates``, as far as they are said.
        source: The file's name, or the option's, for messages.

    Example:
        >>> asked = AskedWords.of({"normal": ["healthy {}"], "abnormal": ["{} with a tumour"]})
        >>> asked.above(Words(("{}",), ("damaged {}",), ("a photo of a {}.",))).templates
        ('a photo of a {}.',)
        >>> AskedWords.of({"abnormal": []})
        Traceback (most recent call last):
        anomalib_medclip.errors.ConfigError: prompts: abnormal is empty; give one text or more
    """

    kind: Kind | None = None
    object_name: str | None = None
    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    source: str = "prompts"

    @classmethod
    def of(
        cls, prompts: str | Mapping[str, Any] | None, kinds: Sequence[Kind] = ()
    ) -> "AskedWords":
        """Read and check what was said.

        Args:
            prompts: One of ``kinds``, a YAML file, or a mapping such as one holds.
            kinds: Those that the method has.

        Raises:
            ConfigError: There is no such kind or file, or something in it is not understood; it
                names file, key and remedy.
        """
        if prompts is None:
            return cls()
        if isinstance(prompts, str):
            for kind in kinds:
                if prompts == kind:
                    return cls(kind=kind)
            return cls._checked(_read(prompts, kinds), kinds, prompts)
        return cls._checked(prompts, kinds, "prompts")

    @classmethod
    def _checked(cls, said: Any, kinds: Sequence[Kind], source: str) -> "AskedWords":  # noqa: ANN401
        if not isinstance(said, Mapping) or not said:
            _refuse(source, f"it is no mapping; give it some of {', '.join(_KEYS)}")
        for key in said:
            if key not in _KEYS:
                near = get_close_matches(str(key), _KEYS, n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                _refuse(source, f"there is no {key!r}; {hint}There are {', '.join(_KEYS)}")
        kind, name = said.get("kind"), said.get("object_name")
        if kind is not None and kind not in kinds:
            known = " or ".join(map(repr, kinds)) or "none for this method; leave it out"
            _refuse(source, f"kind is {kind!r}, and must be {known}")
        if name is not None:
            _text(source, "object_name", name, places=0)
        if kind == "anchors" and len(said) > 1:
            _refuse(source, "kind 'anchors' has no words; leave the rest out")
        lists = {key: _texts(source, key, said[key]) for key in LISTS if said.get(key) is not None}
        if lists.get("normal") and set(lists["normal"]) == set(lists.get("abnormal", ())):
            _refuse(source, "normal and abnormal say the same; nothing could be told apart by it")
        return cls(kind, name, lists, source)

    def above(self, default: Words) -> Words:
        """A method's own words, in which those that were said take the place of its own.

        Raises:
            ConfigError: They do not go together.
        """
        try:
            return replace(default, **self.lists)
        except ConfigError as error:
            _refuse(self.source, str(error))

    def check_object(self, words: Words, option: str | None) -> str | None:
        """What the images show, if it was asked for, by the option or among the words.

        Args:
            words: What the prompts say.
            option: The model's option ``object_name``.

        Raises:
            ConfigError: It was asked for twice, or the words have no place for it.
        """
        if option is not None and self.object_name not in (None, option):
            said = f"object_name is {self.object_name!r}, and the option says {option!r}"
            _refuse(self.source, f"{said}; leave one of them out")
        name = self.object_name if option is None else option
        if name is not None and not words.name_the_object:
            _refuse(self.source, f"no state has a {PLACE} for the object {name!r}; write one in it")
        return name

    def settled(
        self, default: Words, option: str | None, stand_in: str | None
    ) -> tuple[Words, str | None]:
        """What a method's prompts are made of, and the object's name if it was asked for.

        Args:
            default: The method's own words.
            option: The model's option ``object_name``.
            stand_in: What a method says for the object whose sentences are made when it is built,
                before any data; ``None`` for others, whose words keep the place for its name.

        Raises:
            ConfigError: They do not go together, or leave open what the images show.
        """
        words = self.above(default)
        name = self.check_object(words, option)
        if stand_in is None:
            return words, name
        said = [one for key in ("normal", "abnormal") for one in self.lists.get(key, ())]
        if name is None and any(PLACE in one for one in said):
            _refuse(
                self.source,
                f"the states have {PLACE} for the object's name, and the sentences of this method "
                "are made before it meets data that say it; write object_name beside the states",
            )
        return words.about(stand_in if name is None else name), name

    def as_plain(self) -> str | dict[str, Any] | None:
        """What ``of`` reads as the same, whether or not the file is there."""
        if self.object_name is None and not self.lists:
            return self.kind
        named = {"kind": self.kind, "object_name": self.object_name}
        lists = {key: list(texts) for key, texts in self.lists.items()}
        return {key: value for key, value in named.items() if value is not None} | lists


def _read(path: str, kinds: Sequence[Kind]) -> Any:  # noqa: ANN401 - whatever a YAML file holds
    if fault := fault_of(path):
        if fault is MISSING:
            known = "".join(f"{kind!r}, " for kind in kinds)
            msg = f"prompts is {path!r}, and there is no such file; give {known}a file like those "
            msg += "that `anomalib-medclip configs` lists below prompts, or what is in one"
            raise ConfigError(msg)
        _refuse(path, f"it {fault.said}; {fault.remedy}")
    try:
        return from_yaml(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:  # of the encoding, too
        _refuse(path, f"it is no YAML: {' '.join(str(error).split())}; correct it")


def _texts(source: str, key: str, value: Any) -> tuple[str, ...]:  # noqa: ANN401 - as above
    """The texts of a list."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        _refuse(source, f"{key} is {value!r}, and must be a list; begin each line with '- '")
    if not value:
        _refuse(source, f"{key} is empty; give one text or more")
    for number, one in enumerate(value):
        where = f"{key}[{number}]"
        _text(source, where, one, places=1)
        if not one.strip():
            _refuse(source, f"{where} is blank; take it out")
        if key == "templates" and PLACE not in one:
            _refuse(source, f"{where} is {one!r}; write {PLACE} where the state goes")
    return tuple(value)


def _text(source: str, where: str, said: Any, places: int) -> None:  # noqa: ANN401 - as above
    """Refuse what no sentence can hold: no text, several lines, more braces than places."""
    if not isinstance(said, str):
        _refuse(source, f"{where} is {said!r}, and must be text; put it in quotes")
    rest = said.replace(PLACE, "", places)
    if "{" in rest or "}" in rest:
        may = f"one {PLACE} and no other brace" if places else "no brace"
        _refuse(source, f"{where} is {said!r}, and may have {may}")
    if said.splitlines() not in ([], [said]):
        _refuse(source, f"{where} is {said!r}, and has a line break; write it in one line")


def _refuse(source: str, said: str) -> NoReturn:
    msg = f"{source}: {said}"
    raise ConfigError(msg)
