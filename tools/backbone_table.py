"""Writes the tables of docs/backbones.md: which model's towers run, and which method runs on them.

    PYTHONPATH=src:tests/helpers python tools/backbone_table.py

takes a small copy of a model of each family, with random weights, and has every method encode three
images, score them and, if it learns, learn from them. What is refused is told by its reason.
"""

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import torch
from families import Family, configs, families, small, stand_in

from anomalib_medclip.clip.backbone import Backbone
from anomalib_medclip.clip.towers import TextTower
from anomalib_medclip.errors import MedclipError
from anomalib_medclip.models import get_model, list_models

PAGE = Path(__file__).parent.parent / "docs" / "backbones.md"
BEGIN, END = "<!-- written by tools/backbone_table.py -->", "<!-- end -->"

RUNS = "runs"


def tables() -> str:
    """Both tables, as Markdown."""
    names = list_models()
    listed = f"models, all of open_clip {version('open_clip_torch')}'s list among them"
    towers = [
        f"| | image tower | text tower | tokenizer | {listed} |",
        "| --- | --- | --- | --- | --- |",
    ]
    methods = [
        "| | " + " | ".join(get_model(name).__name__ for name in names) + " |",
        "| --- |" + " --- |" * len(names),
    ]
    reasons: dict[str, str] = {}
    for number, (family, models) in enumerate(families().items(), 1):
        towers.append(f"| {number} | {_towers(family, models[0])} | {_listed(models)} |")
        if family.runs:
            cells = [_cell(said, reasons) for said in _methods(models[0])]
            methods.append(f"| {number} | " + " | ".join(cells) + " |")
    notes = [f"- ({mark}) {reason}" for reason, mark in reasons.items()]
    return "\n".join([*towers, "", *methods, "", *notes])


def _towers(family: Family, example: str) -> str:
    """What of a family was run."""
    if not family.runs:
        try:
            Backbone(example).load()
        except MedclipError:
            return f"{family.image}: refused | not run | not run"
        msg = f"{example} was expected to be refused, and is not"
        raise AssertionError(msg)
    name = stand_in(configs()[example]["vision_cfg"], family)
    copy = f", as `{name}`" if name else ""
    text, tokens = (
        part if part == "none" else f"{part}: run" for part in (family.text, family.tokens)
    )
    tokens += " with a small vocabulary" if family.tokens.startswith("Hugging") else ""
    return f"{family.image}: run{copy} | {text} | {tokens}"


def _listed(models: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in models)


def _cell(said: str, reasons: dict[str, str]) -> str:
    """A few words, or the mark of a note with the reason."""
    if said.startswith(RUNS):
        return said
    return f"({reasons.setdefault(said, chr(ord('a') + len(reasons)))})"


def _methods(model: str) -> Iterator[str]:
    """What every method says of a small copy of a model."""
    with TemporaryDirectory() as folder:
        name = small(configs()[model], Path(folder))
        for method in map(get_model, list_models()):
            yield _said(method, name)


def _said(method: Any, backbone: str) -> str:  # noqa: ANN401 - any method
    """That it runs, with which options, or why not."""
    reason, own = "", rf"local-dir:\S+|\b{re.escape(Path(backbone).name)}\b"
    for options in ({}, *_choices(method)):
        try:
            without = _run(method, backbone, options)
        except MedclipError as error:
            reason = reason or re.sub(own, "it", str(error).partition(";")[0])
        else:
            said = ", ".join(f"`{key}: {value}`" for key, value in options.items())
            return f"{RUNS} with {said}" if said else f"{RUNS}{without}"
    return reason


def _choices(method: Any) -> Iterator[dict[str, str]]:  # noqa: ANN401 - any method
    """Options by which a method may do without words, or without single tokens."""
    yield from ({"prompts": kind} for kind in method.prompt_kinds[1:])
    signature = inspect.signature(method, eval_str=True)
    if "mode" in signature.parameters:
        yield from ({"mode": mode} for mode in get_args(signature.parameters["mode"].annotation))


def _run(method: Any, backbone: str, options: Mapping[str, str]) -> str:  # noqa: ANN401
    """Encode images, score them, take the gradient of the loss; say if no word has a part."""
    torch.manual_seed(0)
    made = method(backbone=backbone, pretrained=None, image_size=64, visualizer=False, **options)
    model = made.model
    tower = model.text_tower
    if tower is None and model.prompts.reads_words:
        tower = TextTower(model.clip.backbone)
    text = model.prompts(tower, "brain")
    encoded, labels = model.encode(torch.rand(3, 3, 64, 64)), torch.tensor([False, False, True])
    model.text, model.few_shot = text.detach(), model.has_memory
    if model.has_memory:
        model.fit_support(encoded, encoded[:2].unsqueeze(0), labels, torch.arange(3))
    found = model.score(encoded, text)
    assert found.anomaly_map.shape == (3, 64, 64)
    if any(one.requires_grad for one in model.parameters()):
        masks = torch.zeros(3, 1, 64, 64)
        masks[2, :, 16:32, 16:32] = 1
        model.loss(encoded, masks, labels, text).backward()
    return "" if model.prompts.reads_words else " without text"


def written(page: str) -> str:
    """The page with the tables as they are now."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {PAGE}", file=sys.stderr)
