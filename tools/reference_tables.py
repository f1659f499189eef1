"""Writes the tables of docs/reference: every command with its options, and every config.

    PYTHONPATH=src python tools/reference_tables.py

A test says whether they are as the commands and the configs are.
"""

import argparse
from importlib import import_module
from pathlib import Path
from typing import cast
from unittest.mock import patch

from anomalib_medclip.cli import COMMANDS
from anomalib_medclip.commands.configs import configs, first_sentence

REFERENCE = Path(__file__).parent.parent / "docs" / "reference"
BEGIN, END = "<!-- written by tools/reference_tables.py -->", "<!-- end -->"


def pages() -> dict[Path, str]:
    """What is to stand between the marks of each page."""
    tables = [command_table(name) for name in COMMANDS]
    return {
        REFERENCE / "commands.md": "\n\n".join(tables),
        REFERENCE / "configs.md": config_table(),
    }


def written(page: Path) -> str:
    """What stands between the marks of a page."""
    text = page.read_text(encoding="utf-8")
    return text.partition(BEGIN)[2].partition(END)[0].strip()


def command_table(name: str) -> str:
    """A command and a row for each of its options, or the words of its help where it has none."""
    if help_of := getattr(import_module(f"anomalib_medclip.commands.{name}"), "HELP", None):
        return "\n".join([*_head(name), "```text", help_of, "```"])
    rows = [option_row(action) for action in parser_of(name)._actions if action.dest != "help"]
    heads = ["| option | values | by default | what it says |", "| --- | --- | --- | --- |"]
    return "\n".join([*_head(name), *heads, *rows])


def _head(name: str) -> list[str]:
    words = COMMANDS[name]
    return [f"## {name}", "", f"{words[0].upper()}{words[1:]}.", ""]


class _Found(Exception):  # noqa: N818 - it ends a command, and is no error
    """The parser that a command has made."""


def parser_of(name: str) -> argparse.ArgumentParser:
    """The parser of a command, as it is when the command begins to read its arguments."""

    def stop(parser: argparse.ArgumentParser, *_: object) -> None:
        raise _Found(parser)

    with patch.object(argparse.ArgumentParser, "parse_known_args", stop):
        try:
            import_module(f"anomalib_medclip.commands.{name}").run([])
        except _Found as found:
            return cast("argparse.ArgumentParser", found.args[0])
    msg = f"{name} reads no arguments"
    raise AssertionError(msg)


def option_row(action: argparse.Action) -> str:
    """One option as a row."""
    names = ", ".join(f"`{word}`" for word in action.option_strings)
    said = (action.help or "") % {"default": action.default, "prog": ""}
    cells = (names or f"`{values(action)}`", values(action), default(action), sentence(said))
    shown = (cells[0], cells[1] and f"`{cells[1]}`", *cells[2:])
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in shown) + " |"


def values(action: argparse.Action) -> str:
    """What is to be typed for the value of an option."""
    if action.nargs == 0:
        return ""
    if action.choices:
        return ", ".join(map(str, action.choices))
    word = action.metavar or action.dest.upper()
    return " ".join(word) if isinstance(word, tuple) else word


def default(action: argparse.Action) -> str:
    """What holds where the option is not given; nothing where its words say that."""
    value = action.default
    if action.required and action.nargs != "*":
        return "must be given"
    if value is None or value is False or value == [] or value == argparse.SUPPRESS:
        return ""
    if isinstance(value, list | tuple):
        parted = "/" if action.metavar == "I/N" else " "
        value = "all" if value == action.choices else parted.join(map(str, value))
    return f"`{value}`"


def sentence(words: str) -> str:
    """Words of a help as they stand in a table."""
    return " ".join(words.split())


def config_table() -> str:
    """A row for each config that comes with the package."""
    rows = [
        f"| [`{name}`](../../configs/{name}.yaml) | {first_sentence(path)} |"
        for name, path in configs().items()
    ]
    return "\n".join(["| name | what it is |", "| --- | --- |", *rows])


def main() -> None:
    """Write each page anew between its marks."""
    for page, tables in pages().items():
        before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
        text = f"{before}{BEGIN}\n\n{tables}\n\n{END}{rest.partition(END)[2]}"
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
