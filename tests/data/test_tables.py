"""Tables as programs and keyboards write them, and files by the names that they give."""

import bz2
import csv
import gzip
import io
import json
import unicodedata

import numpy as np
import pytest

from anomalib_medclip.data.cases import read_label_table
from anomalib_medclip.data.folder import MedicalFolder
from anomalib_medclip.data.names_on_disk import NamesOnDisk
from anomalib_medclip.data.tables import read_rows
from anomalib_medclip.errors import DataRootError

COUNT = 6
FOLDERS = ("", "sick", "Größe/links", "a, b", "x;y", "Ward 3")
HEADERS = ("image", "Image", " image ", "IMAGE", '"image"', "\N{NO-BREAK SPACE}image")
LABELS = (
    ("0", "1"),
    ("0.0", "1.0"),
    ("normal", "abnormal"),
    ("Normal", "ABNORMAL"),
    ("0,0", "1,0"),
    ("0e+00", "1.0e+00"),
    ("FALSE", "True"),
)
TABLES = 240


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Empty files, which tables are to name; nothing reads them here."""
    home = tmp_path_factory.mktemp("tables")
    for folder in FOLDERS:
        (home / folder).mkdir(parents=True, exist_ok=True)
        for number in range(COUNT):
            (home / folder / f"{number}.png").touch()
    return home


class Drawn:
    """A table that was drawn: its rows, and how they are written."""

    def __init__(self, root, seed):
        self.root, self.draw = root, np.random.default_rng(seed)
        folder = self.pick(FOLDERS)
        self.paths = [str(root / folder / f"{number}.png") for number in range(COUNT)]
        self.labels = self.draw.integers(0, 2, COUNT).tolist()
        self.patients = [self.pick(("P1", "Müller", "7", "")) for _ in range(COUNT)]
        words = self.pick(LABELS)
        self.rows = [
            (self.spelt(path), words[label], patient)
            for path, label, patient in zip(self.paths, self.labels, self.patients, strict=True)
        ]

    def pick(self, these):
        return these[self.draw.integers(len(these))]

    def spelt(self, path):
        """The path of an image as another system or keyboard writes it."""
        name = path.removeprefix(f"{self.root}/")
        name = unicodedata.normalize(self.pick(("NFC", "NFD")), name)
        name = name.replace(".png", self.pick((".png", ".PNG", ".png")))
        name = self.pick(("", "", "./")) + name
        return self.pick((name, name, name.replace("/", "\\"), f"{self.root}/{name}"))

    def write(self):
        kind = self.pick(("csv", "csv", "csv", "list", "lines"))
        if kind == "csv":
            name, content = self.as_csv()
        else:
            cells = [dict(zip(("image", "label", "who"), row, strict=True)) for row in self.rows]
            cells = [
                {**row, "label": self.number(row["label"]), "more": {"a": [1]}} for row in cells
            ]
            whole = json.dumps(cells, indent=self.pick((None, 2)), ensure_ascii=False)
            lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in cells)
            name, content = ("t.json", whole) if kind == "list" else ("t.txt", lines + "\n\n")
            content = content.encode(self.pick(("utf-8", "utf-8-sig")))
        path = self.root / name
        path.write_bytes(content)
        return path

    def number(self, word):
        return float(word) if word in ("0.0", "1.0") else word

    def as_csv(self):
        separator = self.pick((",", ";", "\t", "|"))
        file = io.StringIO()
        every, some = csv.QUOTE_ALL, csv.QUOTE_MINIMAL
        ends = self.pick(("\n", "\r\n", "\r"))
        writer = csv.writer(
            file, delimiter=separator, quoting=self.pick((every, some)), lineterminator=ends
        )
        blank = self.pick(("", "", " "))
        order = self.draw.permutation(4)
        for row in self.rows:
            cells = [*row, self.pick(("", "a word", "3,5", "x;y"))]
            writer.writerow([cells[place] + blank for place in order])
            if self.draw.random() < 0.1:
                file.write(ends)  # a line without cells
        names = [self.pick(HEADERS), "label" + blank, "Who", "note"]
        if separator == "," and names[0] == " image ":
            names[0] = "image "
        header = separator.join(names[place] for place in order) + ends
        if self.draw.random() < 0.15:
            header = self.pick(("sep={}", '"sep={}"')).format(separator) + ends + header
        encoding = self.pick(("utf-8", "utf-8-sig", "utf-16", "cp1252"))
        name = self.pick(("t.csv", "t.txt", "T.CSV"))
        text = unicodedata.normalize("NFC", header + file.getvalue())
        content = text.encode(encoding)
        return name, self.pick((content, content, gzip.compress(content)))


@pytest.mark.parametrize("first", range(0, TABLES, 80))
def test_a_table_is_read_as_it_is_meant_whoever_wrote_it(root, first):
    for seed in range(first, first + 80):
        drawn = Drawn(root, seed)
        data = MedicalFolder(root, drawn.write(), patient_column="who")
        found = data.list_images()
        assert list(found["image_path"]) == drawn.paths, seed
        assert list(found["label_index"]) == drawn.labels, seed
        assert list(found["group"]) == drawn.patients, seed


CUT_OFF = gzip.compress(b"image,label\na,0\n", mtime=0)[:-9]
"""Without the time of day, which would give a test another name in another process."""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "sick/0.png,1\nsick/1.png,1\n",
            r"no column 'image' but sick/0\.png, 1; write a line with",
        ),
        ("image label\na 0\n", r"'image' but image label; name the columns .*, parted by commas"),
        ("path,images\na,b\n", r"but path, images; say .*--data\.image_column, such as 'images'"),
        ("image,label,label\na,0,1\n", r"t\.csv names the column 'label' twice; give each"),
        (
            "image,label\na, b.png,0\n",
            r"line 2, has 3 cells, and the header names 2.*',' in quotes",
        ),
        (
            "Study 12\n\nimage,label\na,0\n",
            "no column 'image' but Study 12; name the columns in",
        ),
        ("image,label\n\n\na,2\n", r"line 4, has label '2'"),
        (b"PK\3\4 and so on", r"is a workbook or an archive and no text; save .*'CSV UTF-8'"),
        (b"\xd0\xcf\x11\xe0 and so on", "is a workbook or an archive"),
        ("image,label\n画像,0\n".encode("shift-jis"), "is not UTF-8 text: .* save it as UTF-8"),
        ("image,label\nжжж,0\n".encode("cp1251"), "is not UTF-8 text: .* save it as UTF-8"),
        (bz2.compress(b"image,label\na,0\n"), "is packed by bzip2; unpack it"),
        (CUT_OFF, r"t\.csv cannot be unpacked: .*; restore it"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
    ],
)
def test_what_is_no_table_is_refused_with_a_remedy_for_it(tmp_path, text, words):
    content = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataRootError, match=words):
        MedicalFolder(table=tmp_path / "t.csv").list_images()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"image": ["a"], "label": [0]}', "line 1, holds lists and no values; write one object"),
        ('[{"image": "a"}, 3]', "object 2, is '3' and not an object"),
        ('[{"image": "a"}', "is not JSON: .*; write a list of objects"),
        ('{"a.png": 1, "b.png": 0}', "has files as keys; write a list of rows, as .*image.*label"),
        ('{"image": NaN}', "NaN is no number in JSON"),
    ],
)
def test_json_of_another_shape_is_refused(tmp_path, text, words):
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(DataRootError, match=words):
        read_rows(tmp_path / "t.json")


@pytest.mark.parametrize(
    ("normal", "cell", "label"),
    [
        ("Benign", "benign", 0),
        ("benign", "BENIGN", 0),
        ("2", "2.0", 0),
        ("2", "20", 1),
        ("a", "b", 1),
    ],
)
def test_labels_that_mean_normal_are_known_in_any_case(tmp_path, normal, cell, label):
    (tmp_path / "t.csv").write_text(f"image,label\na.png,{cell}\n")
    data = MedicalFolder(table=tmp_path / "t.csv", normal_labels=[normal])
    assert data.list_images()["label_index"].tolist() == [label]


@pytest.mark.parametrize("label", ["", "nan", "NaN", "N/A", "None", "?", "-1", "-1.0", "Unknown"])
def test_a_label_that_says_nothing_is_refused_unless_it_is_said_to_mean_normal(tmp_path, label):
    (tmp_path / "t.csv").write_text(f"image,label\na.png,No Finding\nb.png,{label}\nc.png,Mass\n")
    words = "line 3, has label '.*', which (is none; write it|says neither .*; write which)"
    with pytest.raises(DataRootError, match=words):
        MedicalFolder(table=tmp_path / "t.csv", normal_labels=["No Finding"]).list_images()
    said = MedicalFolder(table=tmp_path / "t.csv", normal_labels=["No Finding", label])
    assert said.list_images()["label_index"].tolist() == [0, 0, 1]


@pytest.mark.parametrize("label", ["yes", "no", "WAHR", "2"])
def test_a_label_that_may_mean_either_is_refused(tmp_path, label):
    (tmp_path / "t.csv").write_text(f"image,label\na.png,{label}\n")
    with pytest.raises(DataRootError, match=r"line 2, has label .*; name .*--data\.normal_labels"):
        MedicalFolder(table=tmp_path / "t.csv").list_images()


def test_true_and_false_of_json_are_labels(tmp_path):
    rows = [{"image": "a.png", "label": True}, {"image": "b.png", "label": False}]
    (tmp_path / "t.json").write_text(json.dumps(rows))
    found = MedicalFolder(table=tmp_path / "t.json").list_images()
    assert found["label_index"].tolist() == [1, 0]


def test_ids_with_the_zeros_of_a_fraction_are_whole_in_patterns_where_the_file_is_there(tmp_path):
    for name in ("4.png", "5.png", "6.0.png", "6.png"):
        (tmp_path / name).touch()
    (tmp_path / "t.csv").write_text("id,label,site\n4.0,0,1\n5.0,1,1.0\n6.0,1,2\n7.0,1,\n")
    options = {"image_column": "{id}.png", "patient_column": "{site}_x"}
    found = MedicalFolder(table=tmp_path / "t.csv", **options).list_images()
    names = [path.removeprefix(f"{tmp_path}/") for path in found["image_path"]]
    assert names == ["4.png", "5.png", "6.0.png", "7.0.png"]
    assert found["group"].tolist()[:3] == ["1_x", "1_x", "2_x"]


def test_a_table_in_the_encoding_of_windows_is_read_with_a_warning(tmp_path, caplog):
    text = "image,label,who\nGröße.png,0,Anna\nà côté.png,1,François\n"
    (tmp_path / "t.csv").write_bytes(text.encode("cp1252"))
    found = MedicalFolder(table=tmp_path / "t.csv", patient_column="who").list_images()
    names = [path.removeprefix(f"{tmp_path}/") for path in found["image_path"]]
    assert names == ["Größe.png", "à côté.png"]
    assert found["group"].tolist() == ["Anna", "François"]
    [warning] = [one.getMessage() for one in caplog.records]
    assert (
        "is read as that of Windows (cp1252); see that its letters are right, first in line 2"
        in (warning)
    )
    assert "Gr" not in warning  # a row may name a patient


def test_who_is_unknown_is_known_in_any_case(tmp_path):
    (tmp_path / "t.csv").write_text("image,label,who\na.png,0,Unknown\nb.png,0,P1\n")
    options = {"patient_column": "who", "unknown_patient": "unknown"}
    found = MedicalFolder(table=tmp_path / "t.csv", **options).list_images()
    assert found["group"].tolist() == ["", "P1"]


@pytest.fixture
def disk(tmp_path):
    for name in ("set/sick/a0.png", "set/N1.PNG", "set/ä.png", "set/Two.png", "set/two.png",
                 "set/b.svg", "set/below/c.png"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path / "set"


@pytest.mark.parametrize(
    ("written", "there"),
    [
        ("sick\\a0.png", "sick/a0.png"),
        ("SICK/A0.png", "sick/a0.png"),
        ("n1.png", "N1.PNG"),
        ("a\N{COMBINING DIAERESIS}.png", "ä.png"),
        ("sick/../N1.png", "sick/../N1.PNG"),
        ("two.png", "two.png"),
        ("TWO.png", "TWO.png"),  # which of the two?
        ("none/a0.png", "none/a0.png"),
        ("s" * 300, "s" * 300),
        ("a\0b", "a\0b"),
    ],
)
def test_a_file_is_found_by_another_spelling_if_only_one_is_meant(disk, written, there):
    assert NamesOnDisk().find(disk / written) == disk / there


@pytest.mark.parametrize(
    ("written", "remedy"),
    [
        ("sick/a0.jpg", "write its name as {}/sick/a0.png, which is there"),
        ("sick/a0", "write its name as {}/sick/a0.png, which is there"),
        ("b.png", "save {}/b.svg, which is there, as PNG: its ending is none that is read"),
        ("C:\\data\\sick\\a0.png", "write it from {} on, as sick/a0.png, which is there"),
        ("\\\\server\\share\\sick\\a0.png", "write it from {} on, as sick/a0.png, which is there"),
        ("/home/jane/sick/a0.png", "write it from {} on, as sick/a0.png, which is there"),
        ("C:\\data\\x.png", "write it from {} on: it is a path of another computer"),
        ("c.png", "give {0}/below as root (--data.root): {0}/below/c.png is there"),
        ("none.png", None),
        ("s" * 300 + "/a.png", None),
    ],
)
def test_a_missing_file_is_looked_for_before_a_remedy_is_given(disk, written, remedy):
    found = NamesOnDisk().remedy(disk / written, disk)
    assert found == (remedy and remedy.format(disk))


@pytest.mark.parametrize("name", ["P0/ct", "P0\\ct", "./P0/ct/", "P0//ct"])
@pytest.mark.parametrize(("label", "number"), [("1", ""), ("1.0", "3.0")])
def test_labels_of_volumes_are_found_by_other_spellings(tmp_path, name, label, number):
    (tmp_path / "t.csv").write_text(f"image;label;slice\n{name};{label};{number}\n")
    labels = read_label_table(tmp_path / "t.csv", {"P0/ct", "P1/ct"})
    assert labels == {("P0/ct", 3 if number else None): 1}


def test_a_label_for_a_volume_that_is_not_there_names_the_nearest(tmp_path):
    (tmp_path / "t.csv").write_text("image,label\nP0/flair,1\n")
    with pytest.raises(
        DataRootError, match=r"'P0/flair', which no .* such as to P0/flair\.nii\.gz"
    ):
        read_label_table(tmp_path / "t.csv", {"P0/flair.nii.gz", "P1/flair.nii.gz"})
