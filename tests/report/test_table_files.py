"""Tables hold every figure in full, and the notice; LaTeX gets what it can set."""

import json
import re
from dataclasses import replace

import pandas as pd
import pytest
from compare_results import write_results
from right_records import failed_record, grid_of, right_record, typed

from anomalib_medclip.provenance import NOTICE
from anomalib_medclip.report.columns import METRICS
from anomalib_medclip.report.summary import summarise
from anomalib_medclip.report.table_files import write_tables
from anomalib_medclip.spreadsheet import original


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    store = write_results(folder)
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("cells/*.json"))]
    rows = summarise(store.grid(), typed(records))
    write_tables(folder / "tables", store.grid(), rows)
    return folder / "tables", store.grid(), rows, records


def by_hand(records, line):
    """Mean over the draws of a cell of the table, from the records."""
    values = []
    for record in records:
        cell = record["cell"]
        k = cell["k_shot"] if cell["normals"] == "support" else None
        same = (cell["model"], cell["normals"], k) == (line.model, line.normals, line.k_shot)
        for test in record.get("tests", []) if same else []:
            if test["data"] == line.tested_on:
                values.append(test[line.protocol][line.metric])
    return sum(values) / len(values)


def test_every_mean_of_the_csv_is_recomputed_from_the_records(made_up):
    folder, _, rows, records = made_up
    table = pd.read_csv(folder / "table.csv", keep_default_na=False, na_values={"k_shot": ""})
    figures = table[table["protocol"].isin(["honest", "oracle"])]
    assert len(figures) == sum(len(row.honest) + len(row.oracle) for row in rows)
    for line in figures.itertuples():
        line = line._replace(k_shot=None if pd.isna(line.k_shot) else int(line.k_shot))
        assert float(line.mean) == pytest.approx(by_hand(records, line), abs=1e-12)
        values = [float(value) for value in line.values.split()]
        assert sum(values) / len(values) == pytest.approx(float(line.mean), abs=1e-12)


def test_the_json_holds_the_rows_in_full(made_up, tmp_path):
    folder, grid, rows, _ = made_up
    found = json.loads((folder / "table.json").read_text(encoding="utf-8"))
    assert (found["command"], found["versions"]) == (grid.command, grid.versions)
    told = replace(grid, command="compare /ward/doe.csv --out doe")
    for names, command in ((False, "compare (path withheld) --out (path withheld)"),
                           (True, told.command)):  # fmt: skip
        _, path, _ = write_tables(tmp_path, told, rows, names)
        assert json.loads(path.read_text())["command"] == command
    assert len(found["rows"]) == len(rows)
    for line, row in zip(found["rows"], rows, strict=True):
        for protocol in ("honest", "oracle", "gap"):
            estimates = row.estimates[protocol]
            assert list(line[protocol]) == list(estimates)
            for metric, estimate in estimates.items():
                as_read = {**line[protocol][metric]}
                assert tuple(as_read.pop("values")) == estimate.values
                assert as_read == {
                    "mean": estimate.mean, "low": estimate.low, "high": estimate.high,
                    "source": estimate.source, "patients": estimate.patients,
                }  # fmt: skip
        assert line["best"] == sorted(row.best)
        assert line["published"] == list(row.published)


def test_the_notice_is_in_every_table(made_up):
    folder = made_up[0]
    table = pd.read_csv(folder / "table.csv")
    assert set(table["notice"]) == {NOTICE}
    assert json.loads((folder / "table.json").read_text())["notice"] == NOTICE
    latex = (folder / "table.tex").read_text()
    assert latex.startswith(f"% {NOTICE}")
    assert latex.count("Research use only.") == latex.count(r"\caption") == 2


def test_what_failed_is_in_every_table(made_up):
    folder, _, _, _ = made_up
    table = pd.read_csv(folder / "table.csv")
    broken = table[table["model"] == "Broken"]
    assert len(broken) == 1
    assert broken[["draws", "failed"]].to_numpy().tolist() == [[0, 1]]
    assert broken["mean"].isna().all()
    rows = json.loads((folder / "table.json").read_text())["rows"]
    assert [row["failed"] for row in rows if row["model"] == "Broken"] == [1]
    assert "Broken & failed" in (folder / "table.tex").read_text()


def test_latex_has_a_table_for_each_set_with_as_many_cells_as_columns(made_up):
    folder, _, rows, _ = made_up
    latex = (folder / "table.tex").read_text()
    tables = re.findall(r"\\begin\{table\}.*?\\end\{table\}", latex, re.DOTALL)
    assert len(tables) == 2
    for table in tables:
        columns = len(re.search(r"\\begin\{tabular\}\{(\w+)\}", table)[1])
        assert columns == 10  # names; K of 4, 16 and none, for patients, images and pixels
        body = table[table.index(r"\midrule") : table.index(r"\bottomrule")]
        lines = body.splitlines()[1:]
        assert {line.count(" & ") for line in lines} == {columns - 1}
        assert table.count("{") == table.count("}")
    honest = rows[0].honest["image_AUROC"]
    cell = rf"{100 * honest.mean:.1f} $\pm$ {50 * (honest.high - honest.low):.1f}"
    oracle = rf"{{\scriptsize\color{{gray}}({100 * rows[0].oracle['image_AUROC'].mean:.1f})}}"
    patients = rows[0].honest["patient_AUROC"]  # at one epoch alone: no oracle
    first = rf"{100 * patients.mean:.1f} $\pm$ {50 * (patients.high - patients.low):.1f}"
    assert rf"MVFA\textdagger{{}} & {first} & {cell} {oracle} & " in tables[0]


def written(folder, records):
    grid = grid_of(records)
    return write_tables(folder, grid, summarise(grid, typed(records)))


def test_only_the_marked_is_bold(tmp_path):
    records = [
        right_record(model, draw, skill, k=k)
        for model, k, skill in (("A", 4, 6), ("B", 4, 0.5), ("A", 8, 1), ("B", 8, 1))
        for draw in range(4)
    ]
    csv, _, latex = written(tmp_path, records)
    (row, *_) = summarise(grid_of(records), typed(records))
    best = f"{100 * row.honest['image_AUROC'].mean:.1f}"
    assert re.findall(r"\\textbf\{([\d.]+)\}", latex.read_text()) == [best]
    table = pd.read_csv(csv)
    marked = table[table["best"].eq(True)]
    assert marked[["model", "k_shot", "metric", "protocol"]].to_numpy().tolist() == [
        ["A", 4, "image_AUROC", "honest"],
        ["A", 4, "image_AP", "honest"],
    ]


def test_names_are_escaped_for_latex(tmp_path):
    record = right_record(r"a_b & 50% {\x} ~^#$", data="set_1", tests=["set_1"])
    text = written(tmp_path, [record])[2].read_text()
    escaped = r"a\_b \& 50\% \{\textbackslash{}x\} \textasciitilde{}\textasciicircum{}\#\$"
    assert f"\n{escaped} & " in text
    assert r"\caption{set\_1: AUROC" in text


def test_a_name_is_neither_a_formula_nor_an_argument(tmp_path):
    """``[2pt]`` and ``*`` after the end of a line of LaTeX would be arguments of that end."""
    names = ["[2pt] A", "* B", '=HYPERLINK("http://x")', "-C", "@D"]
    csv, _, latex = written(tmp_path, [right_record(name) for name in names])
    table = pd.read_csv(csv)
    assert set(table["model"].map(original)) == set(names)
    assert not table["model"].str.match(r"[=+\-@]").any()
    assert (table["protocol"] == "gap").any()
    assert pd.api.types.is_float_dtype(table["mean"]), "a negative number stays one"
    lines = latex.read_text().splitlines()
    assert not [line for line in lines if line.lstrip().startswith(("[", "*"))]
    assert any(line.startswith("{[}2pt{]} A & ") for line in lines)


def test_tables_are_replaced_whole(tmp_path):
    first = written(tmp_path / "new", [right_record("MVFA", draw) for draw in (0, 1)])
    again = written(tmp_path / "new", [right_record("MadCLIP")])
    assert first == again == sorted((tmp_path / "new").iterdir(), key=again.index)
    for path in again:
        assert "MVFA" not in path.read_text()
        assert "MadCLIP" in path.read_text()


def test_all_failed_is_a_table_too(tmp_path):
    csv, _, latex = written(tmp_path, [failed_record(right_record("MVFA"))])
    assert pd.read_csv(csv)["failed"].tolist() == [1]
    assert "MVFA & failed" in latex.read_text()


def test_every_metric_has_its_place(made_up):
    table = pd.read_csv(made_up[0] / "table.csv")
    assert set(table["metric"].dropna()) == set(METRICS)
