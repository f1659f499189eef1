"""Tensors of a TorchScript archive, such as OpenAI's of CLIP, without running what it holds.

``torch.jit.load`` runs the archive's code: a ``__setstate__`` may do whatever TorchScript can, and
that includes writing files. Here the archive's pickle is read instruction by instruction, as data:
names of classes and functions stay words, and nothing is imported, made or called. Which attributes
are parameters and buffers stands in the text of the archive's sources, which is not compiled.
"""

import pickletools
import re
from collections.abc import Iterator
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


_MARK = object()
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "BINUNICODE8")
_EMPTY: dict[str, type] = {"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _interpret(pickle: bytes) -> Any:  # noqa: ANN401 - whatever the pickle holds
    """What a pickle written by TorchScript holds, of plain values and the classes above.

    Raises:
        ValueError: An instruction that TorchScript does not write.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for instruction, given, _ in pickletools.genops(pickle):
        name = instruction.name
        if name in _LITERALS:
            stack.append(given)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            stack.append(tuple(_last(stack, _TUPLES[name])))
        elif name == "GLOBAL":
            stack.append(_Name(*given.split(" ", 1)))
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[given] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[given])
        elif name == "MARK":
            stack.append(_MARK)
        elif name in _ACTIONS:
            _ACTIONS[name](stack)
        elif name not in ("PROTO", "STOP"):
            msg = f"a TorchScript archive with the instruction {name}, which is not run"
            raise ValueError(msg)
    return stack.pop()


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


def _append(stack: list[Any]) -> None:
    value = stack.pop()
    stack[-1].append(value)


def _appends(stack: list[Any]) -> None:
    values = _since_mark(stack)
    stack[-1].extend(values)


def _set_items(stack: list[Any]) -> None:
    items = _since_mark(stack)
    stack[-1].update(zip(items[::2], items[1::2], strict=True))


def _new(stack: list[Any]) -> None:
    of, _ = _last(stack, 2)
    stack.append(_Module(of))


def _build(stack: list[Any]) -> None:
    module, attributes = _last(stack, 2)
    if not isinstance(module, _Module) or not isinstance(attributes, dict):
        msg = "a TorchScript archive that restores itself by code of its own, which is not run"
        raise ValueError(msg)
    module.attributes = attributes
    stack.append(module)


def _call(stack: list[Any]) -> None:
    function, arguments = _last(stack, 2)
    is_tensor = function == _Name("torch._utils", "_rebuild_tensor_v2")
    stack.append(_Stored(*arguments[:4]) if is_tensor else _NotRead(function))


_ACTIONS = {
    "TUPLE": lambda stack: stack.append(tuple(_since_mark(stack))),
    "APPEND": _append,
    "APPENDS": _appends,
    "SETITEMS": _set_items,
    "NEWOBJ": _new,
    "BUILD": _build,
    "REDUCE": _call,
    "BINPERSID": lambda stack: None,  # the words that say where numbers lie, as they are
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
