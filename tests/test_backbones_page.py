"""The tables of docs/backbones.md say what is so: each model in its family, and every method."""

import open_clip
import pytest
from backbone_table import PAGE, written
from families import configs, family_of

from anomalib_medclip.models import get_model, list_models

TEXT = PAGE.read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.split("|")[1:-1]] for line in TEXT.splitlines()]
FAMILIES = [row for row in ROWS if row and row[-1].startswith("`")]


@pytest.mark.parametrize("name", ["ViT-L-14-336", "ViT-B-16-SigLIP", "RN50", "convnext_base"])
def test_a_model_is_in_the_row_of_its_family(name):
    [row] = [row for row in FAMILIES if f"`{name}`" in row[-1].split(", ")]
    kind = family_of(configs()[name])
    assert row[1].startswith(f"{kind.image}: {'run' if kind.runs else 'refused'}")
    assert kind.text in row[2] or not kind.runs


def test_every_model_is_named_once():
    named = [name for row in FAMILIES for name in row[-1].split(", ")]
    assert len(named) == len(set(named))
    assert {f"`{name}`" for name in open_clip.list_models()} <= set(named)


def test_every_method_has_a_column():
    columns = [get_model(name).__name__ for name in list_models()]
    assert ["", *columns] in ROWS


@pytest.mark.nightly(also="tests/test_backbones_page.py::test_every_method_has_a_column")
def test_the_tables_are_those_that_the_tool_writes():
    assert written(TEXT) == TEXT
