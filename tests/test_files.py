"""Files appear whole; JSON that any reader takes: no number in it is NaN or infinite."""

import json
import math
import os
from pathlib import Path

import pytest

from anomalib_medclip.errors import DamagedFileError, NonFiniteError
from anomalib_medclip.files import as_json, from_json, read_json, write_whole


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_not_written(number):
    with pytest.raises(NonFiniteError, match=r"no JSON can be written: .*it is no result"):
        as_json({"figures": [{"image_AUROC": number}]})


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_word_that_is_no_json_is_not_read(word):
    assert not math.isfinite(json.loads(word)), "Python's own function takes it"
    with pytest.raises(ValueError, match=f"{word} is no number in JSON"):
        from_json(f'{{"score": {word}}}')


def test_what_json_can_say_comes_back():
    value = {"score": 0.1, "map": None, "labels": [1, True], "name": "M\u00fcller"}
    assert from_json(as_json(value)) == value
    assert as_json(value, indent=2) == json.dumps(value, indent=2)


BROKEN = {
    "NaN": b'{"score": NaN}',
    "cut off": b'{"score": 0.',
    "empty": b"",
    "Latin 1": b'{"name": "M\xfcller"}',
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_file_that_is_no_json_is_named(content, tmp_path):
    path = tmp_path / "record.json"
    path.write_bytes(content)
    with pytest.raises(
        DamagedFileError, match=r"record\.json is no JSON: .*; restore it, or delete"
    ):
        read_json(path)
    path.write_text('{"name": "M\u00fcller"}', encoding="utf-8")
    assert read_json(path) == {"name": "M\u00fcller"}


def test_a_file_is_on_the_disk_before_it_appears(tmp_path, monkeypatch):
    steps, fsync, replace = [], os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: steps.append("flushed") or fsync(number))
    monkeypatch.setattr(Path, "replace", lambda *to: steps.append("appeared") or replace(*to))
    write_whole(tmp_path / "record.json", "{}")
    assert steps == ["flushed", "appeared"]
    assert (tmp_path / "record.json").read_text() == "{}"
