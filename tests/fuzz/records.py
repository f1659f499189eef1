"""Tables, lists and configs of users, and the JSON, CSV and arrays that this package keeps."""

import json

import numpy as np
import torch
from conftest import save_bmad
from fuzz import formats
from fuzz.damage import BYTES, JSON, TEXT
from fuzz.images import WINDOW
from fuzz.target import Target, text
from right_records import grid_of, right_record
from volumes import write_patients

from anomalib_medclip.bench import output
from anomalib_medclip.cache import Shelf
from anomalib_medclip.compare.cell_record import CellRecord, ComparisonGrid
from anomalib_medclip.compare.comparison import find_class, read_config
from anomalib_medclip.compare.store import Store
from anomalib_medclip.components.prompts import WORDS, sentences
from anomalib_medclip.components.words import KINDS, AskedWords
from anomalib_medclip.data import BMAD, MedicalFolder, Volumes
from anomalib_medclip.data.cases import VolumeSource, read_label_table
from anomalib_medclip.data.config import load_data
from anomalib_medclip.data.few_shot import read_support
from anomalib_medclip.data.slice_tree import cut_tree
from anomalib_medclip.score.record import (
    TABLE_COLUMNS,
    former_rows,
    kept_result,
    write_scores,
    write_table,
)
from anomalib_medclip.testing.small import write_lesions

# --- words of prompts


_WORDS = """kind: fixed
object_name: "brain MRI"
normal: ["healthy {}", "{} without lesion"]
abnormal:
  - "{} with a tumour"
templates: ["a scan of a {}.", "this is a {}."]
"""


def _read_words(file):
    asked = AskedWords.of(str(file), KINDS)
    words = asked.above(WORDS)
    asked.check_object(words, None)
    assert all(words.as_plain().values())
    assert all(sentences(asked.object_name or "", words.normal, words.templates))


# --- tables and lists

_COLUMNS = {"mask_column": "mask", "patient_column": "patient", "k_shot": 1}


def _table(folder):
    return write_lesions(folder, count=3, size=(8, 8))


def _json_lines(folder):
    rows = _table(folder).read_text().splitlines()
    lines = [dict(zip(rows[0].split(","), row.split(","), strict=True)) for row in rows[1:]]
    path = folder / "table.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def _read_table(file):
    data = MedicalFolder(table=file, num_workers=0, **_COLUMNS)
    listed = data.list_images()
    assert set(listed["label_index"]) <= {0, 1}
    data.setup()
    assert len(data.support_data)


def _support_list(content):
    def whole(folder):
        _table(folder)
        return text("list.txt", content)(folder)

    return whole


def _read_support_list(file):
    data = MedicalFolder(table=file.with_name("table.csv"), **_COLUMNS)
    found = read_support(data.list_images(), file)
    assert set(found["label_index"]) == {0, 1}


LISTS = (
    _support_list("n-0: 0 2\na-0: 1.png abnormal/3\nn-1: 4\na-1: 5\n"),
    _support_list("normal/0.png\n1.png\n3\n"),
)


def _read_labels(file):
    labels = read_label_table(file, {"P0/scan.nii", "P1/scan.nii"})
    assert set(labels.values()) <= {0, 1}


LABELS = text("labels.csv", "image,slice,label\nP0/scan.nii,0,1\nP0/scan.nii,1,0\nP1/scan.nii,,0\n")

# --- configs


def _data_config(folder):
    _table(folder)
    return text("data.yaml", f"""
class_path: anomalib_medclip.data.MedicalFolder
init_args:
  table: {folder.name}/table.csv
  mask_column: mask
  normal_labels: ['0', healthy]
  k_shot: 1
  intensity: [0, 80.5]
  object_name: breast ultrasound  # words
""")(folder)  # fmt: skip


def _volumes_config(folder):
    return text("data.yaml", """
data:
  class_path: anomalib_medclip.data.Volumes
  init_args:
    root: volumes
    sources:
      - image: '{patient}/flair.nii.gz'
        mask: '{patient}/seg.nii.gz'
        lesion_labels: [1, 2]
        ignore_labels: [4]
    plane: axial
    slices: [0, 3]
    intensity: {percentiles: [1, 99]}
    splits: {P0: train, P1: test}
""")(folder)  # fmt: skip


def _read_data_config(file):
    assert load_data(file).name


def _compare_config(folder):
    _data_config(folder)
    return text("compare.yaml", """
title: Some methods
models:
  MVFA: {class_path: anomalib_medclip.MVFA, init_args: {levels: [1, 2], seed: 3}, max_epochs: 2}
  PatchCore:
    class_path: anomalib_medclip.MediCLIP
    normals: [support, train]
    image_size: 64
data:
  heads: {config: data.yaml, init_args: {k_shot: 3}}
  livers: {class_path: anomalib_medclip.data.Phantoms, init_args: {organ: head}, published: Brain}
k_shot: [4, 16]
draws: {4: 2, 16: 1}
seeds: [0, 1]
tests: {heads: [livers]}
feature_cache: 0.5
""")(folder)  # fmt: skip


def _named_config(folder):
    _compare_config(folder)
    return folder / "data.yaml"


def _read_compare_config(file):
    for entry in read_config(file.with_name("compare.yaml")).models.values():
        assert find_class(entry).__name__ == entry["class_path"].rpartition(".")[2]


# --- what compare keeps

_KEY = "0123456789abcdef"


def _store(ending):
    def whole(folder):
        store, record = Store(folder), right_record("MVFA", patients=4)
        planned = {**record["cell"], "key": _KEY}
        grid = grid_of([{**record, "cell": planned}])
        store.write_grid(grid, "title: A\n")
        arrays = {"maps": np.arange(24, dtype=np.uint8).reshape(1, 4, 6)}
        store.write(_KEY, CellRecord.of_plain({**record, "key": _KEY, "cell": planned}), arrays)
        return folder / ending

    return whole


def _read_store(file):
    store = Store(file.parent if file.name == "grid.json" else file.parent.parent)
    grid = store.grid()
    assert isinstance(grid, ComparisonGrid)
    for cell in grid.cells:
        record = store.record(cell.key)
        assert record is None or isinstance(record, CellRecord)
    for one in store.arrays(_KEY).values():
        assert isinstance(one, np.ndarray)
    store.forget_damaged(_KEY)
    assert store.record(_KEY) is None or store.arrays(_KEY) is not None


def _shelf(folder):
    Shelf(folder, "tower", 1.0).keep("image", torch.arange(12.0).reshape(3, 4))
    return next(folder.rglob("*.npz"))


def _read_shelf(file):
    found = Shelf(file.parents[2], "tower", 1.0).find("image")
    assert found is None or isinstance(found, torch.Tensor)


ARRAYS = (formats.in_zip(formats.npy_header, formats.npy_header, *BYTES), *BYTES)

# --- what score keeps

_MADE_WITH = {"threshold": {"value": 0.5, "from": "validation"}, "versions": {"torch": "2"}}


def _result(folder):
    record = {"input": "a.png", "score": 0.5, "slices": [{"slice": 0, "score": 0.5, "label": 1}]}
    home = folder / "a"
    home.mkdir()
    write_scores(home, record, _MADE_WITH)
    return home / "scores.json"


def _read_result(file):
    assert kept_result(file.parent, _MADE_WITH)["provenance"] == _MADE_WITH


def _results(folder):
    for name in "ab":
        (folder / name).mkdir()
    row = dict.fromkeys(TABLE_COLUMNS, "") | {"status": "scored", "score": 0.5, "slices": 1}
    rows = {name: {**row, "name": name, "input": f"{name}.png"} for name in "ab"}
    return write_table(folder, rows, ["a", "b"])


def _read_results(file):
    assert list(former_rows(file.parent).columns) == list(TABLE_COLUMNS)


def _bench(folder):
    words = ("what", "method", "runtime", "precision", "device_name", "images")
    row = dict.fromkeys(output.CSV_COLUMNS, 1.5) | dict.fromkeys(words, "x")
    row |= {"threads": None, "parts": {"tower": 1.0, "rest": 0.5}}
    hardware = dict.fromkeys(("cores_allowed", "cores", "memory_gb", "load"), 2)
    packages = ("anomalib-medclip", "torch", "open_clip_torch", "onnxruntime", "openvino")
    run = {"id": "first", "hardware": {**hardware, "cpu": "x", "units": ["avx2"]}}
    run["versions"] = dict.fromkeys(packages, "1")
    output.save(folder / "rows.csv", row, run, overwrite=False)
    return folder / "rows.json"


def _read_bench(file):
    assert output.markdown([file.with_suffix(".csv")])


# --- what slice keeps, and BMAD's own layout


def _volumes(file, name="set"):
    source = VolumeSource("{patient}/flair.nii.gz", "{patient}/seg.nii.gz")
    return Volumes(file, [source], intensity=WINDOW, k_shot=1, name=name)


def _tree(damaged):
    def whole(folder):
        write_patients(folder / "in", 2)
        cut_tree(_volumes(folder / "in"), folder / "out")
        if damaged.startswith(".notes"):  # as a run leaves them that was killed
            tree = folder / "out" / "set_AD"
            manifest = json.loads((tree / "manifest.json").read_text())
            volumes = manifest.pop("volumes")
            manifest.pop("failed")
            (tree / ".notes").mkdir()
            (tree / ".notes" / "options.json").write_text(json.dumps(manifest))
            for note in volumes:
                (tree / ".notes" / f"{note['name']}.json").write_text(json.dumps(note))
            (tree / "manifest.json").unlink()
        return next((folder / "out" / "set_AD").glob(damaged))

    return whole


def _read_tree(file):
    given = next(one for one in file.parents if one.name == "given" or (one / "in").exists())
    made = cut_tree(_volumes(given / "in"), given / "out")
    assert made.pictures > 0


def _bmad(folder):
    root = save_bmad("Brain", folder)
    home = root / "Brain_AD"
    made = [path.relative_to(home).as_posix() for path in root.rglob("img/*.png")]
    note = {"name": "P1", "patient": "P1", "sources": {}}
    note["slices"] = [{"file": path, "lesion": 0, "ignored": 0} for path in made]
    manifest = home / "manifest.json"
    manifest.write_text(json.dumps({"volumes": [note]}))
    return manifest


def _read_bmad(file):
    assert len(BMAD(file.parents[1], category="Brain", k_shot=2).list_images())


TARGETS = (
    Target("words of prompts", (text("words.yaml", _WORDS),), TEXT, _read_words),
    Target("table", (_table, _json_lines), TEXT, _read_table, names=(".png", "table")),
    Target("support list", LISTS, TEXT, _read_support_list),
    Target("table of labels", (LABELS,), TEXT, _read_labels),
    Target("data config", (_data_config, _volumes_config), TEXT, _read_data_config),
    Target("compare config", (_compare_config, _named_config), TEXT, _read_compare_config),
    Target("record of a cell", (_store(f"cells/{_KEY}.json"),), JSON, _read_store),
    Target("grid of cells", (_store("grid.json"),), JSON, _read_store),
    Target("arrays of a cell", (_store(f"cells/{_KEY}.npz"),), ARRAYS, _read_store),
    Target("cached features", (_shelf,), ARRAYS, _read_shelf),
    Target("scores", (_result,), JSON, _read_result),
    Target("table of scores", (_results,), TEXT, _read_results),
    Target("bench results", (_bench,), JSON, _read_bench),
    Target("sliced tree", (_tree("manifest.json"), _tree(".notes/*.json")), JSON, _read_tree),
    Target("manifest of BMAD", (_bmad,), JSON, _read_bmad),
)
