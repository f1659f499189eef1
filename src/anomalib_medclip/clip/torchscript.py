"""Tensors of a TorchScript archive, such as OpenAI's of CLIP, without running what it holds.

``torch.jit.load`` runs the archive's code: a ``__setstate__`` may do whatever TorchScript can, and
that includes writing files. Here the archive's pickle is read instruction by instruction, as data:
names of classes and functions stay words, and nothing is imported, made or called. Which attributes
are parameters and buffers stands in the text of the archive's sources, which is not compiled.
"""

import pickletools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZipFile, is_zipfile

import torch
from torch import Tensor


def is_scripted(path: Path) -> bool:
    """Whether a file is a TorchScript archive."""
    if not is_zipfile(path):
        return False
    with ZipFile(path) as archive:
        return any(name.endswith("constants.pkl") for name in archive.namelist())


def read_scripted(path: Path) -> dict[str, Tensor]:
    """Parameters and buffers by name, as ``torch.jit.load(path).state_dict()`` has them.

    Raises:
        ValueError: It needs code of its own to be read, or is no archive of modules.
    """
    with ZipFile(path) as archive:
        found = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        folder = found.removesuffix("data.pkl")
        sources = {
            name.removeprefix(f"{folder}code/"): archive.read(name).decode()
            for name in archive.namelist()
            if name.startswith(f"{folder}code/") and name.endswith(".py")
        }
        if any("def __setstate__" in text for text in sources.values()):
            msg = "a TorchScript archive that restores itself by code of its own, which is not run"
            raise ValueError(msg)
        root = _interpret(archive.read(found))
        stored = dict(_stored(root, "", _saved_names(sources), set()))
        return {name: _tensor(archive, folder, value) for name, value in stored.items()}


class _Name(NamedTuple):
    """A class or function that the pickle names, by module and name."""

    module: str
    name: str


@dataclass(eq=False)
class _Module:
    """An object of the archive."""

    of: _Name
    attributes: dict[str, Any] = field(default_factory=dict)


class _Stored(NamedTuple):
    """Where a tensor lies; the arguments of torch's own rebuilding function, in their order."""

    storage: tuple[str, _Name, str, str, int]
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _NotRead(NamedTuple):
    """What a call would have given."""

    function: _Name


def _interpret(pickle: bytes) -> Any:  # noqa: ANN401 - whatever the pickle holds
    """What a pickle written by TorchScript holds, of plain values and the classes above.

    Raises:
        ValueError: An instruction that TorchScript does not write for modules.
    """
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    for instruction, given, _ in pickletools.genops(pickle):
        if instruction.name not in _ACTIONS:
            msg = f"a TorchScript archive with the instruction {instruction.name}, which is not run"
            raise ValueError(msg)
        _ACTIONS[instruction.name](stack, memo, given)
    return stack.pop()


_Action = Callable[[list[Any], dict[Any, Any], Any], None]
"""What an instruction does with the stack, the values to come back to, and what is given to it."""

_MARK = object()


def _last(stack: list[Any], count: int) -> list[Any]:
    """Take the last values off."""
    taken = stack[len(stack) - count :]
    del stack[len(stack) - count :]
    return taken


def _since_mark(stack: list[Any]) -> list[Any]:
    """Take off all that came after the last mark, and the mark."""
    taken = _last(stack, stack[::-1].index(_MARK))
    stack.pop()
    return taken


def _pushing(make: Callable[[Any], Any]) -> _Action:
    return lambda stack, _, given: stack.append(make(given))


def _joining(count: int) -> _Action:
    return lambda stack, _, __: stack.append(tuple(_last(stack, count)))


def _nothing(stack: list[Any], memo: dict[Any, Any], given: Any) -> None:  # noqa: ANN401
    """Leave all as it is."""


def _keep(stack: list[Any], memo: dict[Any, Any], given: Any) -> None:  # noqa: ANN401
    memo[given] = stack[-1]


def _come_back(stack: list[Any], memo: dict[Any, Any], given: Any) -> None:  # noqa: ANN401
    stack.append(memo[given])


def _tuple(stack: list[Any], _memo: dict[Any, Any], _given: Any) -> None:  # noqa: ANN401
    stack.append(tuple(_since_mark(stack)))


def _set_items(stack: list[Any], _memo: dict[Any, Any], _given: Any) -> None:  # noqa: ANN401
    items = _since_mark(stack)
    stack[-1].update(zip(items[::2], items[1::2], strict=True))


def _append(stack: list[Any], _memo: dict[Any, Any], _given: Any) -> None:  # noqa: ANN401
    values = _last(stack, 1)
    stack[-1].extend(values)


def _appends(stack: list[Any], _memo: dict[Any, Any], _given: Any) -> None:  # noqa: ANN401
    values = _since_mark(stack)
    stack[-1].extend(values)


def _new(stack: list[Any], _memo: dict[Any, Any], _given: Any) -> None:  # noqa: ANN401
    of, _ = _last(stack, 2)
    stack.append(_Module(of))


def _build(stack: list[Any], _memo: dict[Any, Any], _given: Any) -> None:  # noqa: ANN401
    attributes = stack.pop()
    if not isinstance(stack[-1], _Module) or not isinstance(attributes, dict):
        msg = "a TorchScript archive that restores itself by code of its own, which is not run"
        raise ValueError(msg)
    stack[-1].attributes = attributes


def _call(stack: list[Any], _memo: dict[Any, Any], _given: Any) -> None:  # noqa: ANN401
    function, arguments = _last(stack, 2)
    is_tensor = function == _Name("torch._utils", "_rebuild_tensor_v2")
    stack.append(_Stored(*arguments[:4]) if is_tensor else _NotRead(function))


_LITERALS = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE")

_ACTIONS: dict[str, _Action] = {
    **dict.fromkeys(("PROTO", "STOP"), _nothing),
    "BINPERSID": _nothing,  # the words that say where numbers lie, as they are
    **dict.fromkeys(_LITERALS, _pushing(lambda given: given)),
    "GLOBAL": _pushing(lambda given: _Name(*given.split(" ", 1))),
    "NONE": _pushing(lambda _: None),
    "NEWTRUE": _pushing(lambda _: True),
    "NEWFALSE": _pushing(lambda _: False),
    "MARK": _pushing(lambda _: _MARK),
    "EMPTY_TUPLE": _pushing(lambda _: ()),
    "EMPTY_LIST": _pushing(lambda _: []),
    "EMPTY_DICT": _pushing(lambda _: {}),
    **{f"TUPLE{count}": _joining(count) for count in (1, 2, 3)},
    "TUPLE": _tuple,
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _keep),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _come_back),
    "APPEND": _append,
    "APPENDS": _appends,
    "SETITEMS": _set_items,
    "NEWOBJ": _new,
    "BUILD": _build,
    "REDUCE": _call,
}

_CLASS = re.compile(
    r"^class (\w+)\(Module\):\n  __parameters__ = \[(.*)\]\n(?:  __buffers__ = \[(.*)\]\n)?",
    re.MULTILINE,
)


def _saved_names(sources: dict[str, str]) -> dict[_Name, list[str]]:
    """By class, the attributes that are parameters or buffers."""
    return {
        _Name(file.removesuffix(".py").replace("/", "."), name): re.findall(
            r'"([^"]+)"', f"{parameters} {buffers}"
        )
        for file, text in sources.items()
        for name, parameters, buffers in _CLASS.findall(text)
    }


def _stored(
    module: Any,  # noqa: ANN401 - checked here
    prefix: str,
    names: dict[_Name, list[str]],
    seen: set[int],
) -> Iterator[tuple[str, _Stored]]:
    """Every parameter and buffer below a module, by its whole name; each module is read once."""
    if not isinstance(module, _Module) or module.of not in names:
        msg = "a TorchScript archive of something else than modules"
        raise ValueError(msg)
    if id(module) in seen:
        return
    seen.add(id(module))
    for name in names[module.of]:
        if isinstance(value := module.attributes.get(name), _Stored):
            yield prefix + name, value
    for name, value in module.attributes.items():
        if isinstance(value, _Module):
            yield from _stored(value, f"{prefix}{name}.", names, seen)


def _tensor(archive: ZipFile, folder: str, stored: _Stored) -> Tensor:
    """A tensor's numbers, which are as many as the archive holds of it, and no more."""
    _, kind, key, _, _ = stored.storage
    dtype = _DTYPES[kind.name]
    flat = torch.frombuffer(bytearray(archive.read(f"{folder}data/{key}")), dtype=dtype)
    return flat.as_strided(stored.size, stored.stride, stored.offset).clone()


_DTYPES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}
