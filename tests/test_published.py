"""The published tables: whole, as printed, and every contradiction between them said."""

import re
from decimal import ROUND_HALF_UP, Decimal
from importlib.resources import files
from pathlib import Path

import pandas as pd
import pytest

from anomalib_medclip import list_models
from anomalib_medclip.data.bmad import BMAD_SETS
from anomalib_medclip.errors import MedclipError, UnknownNameError
from anomalib_medclip.published import published

DOCS = Path(__file__).parent.parent / "docs"
SAME_CELL = ["method", "variant", "dataset", "setting", "trained_on", "k", "metric"]
COLUMNS = ["paper", "table", *SAME_CELL, "value", "spread", "protocol", "note"]
METRICS = {"I": "image_AUROC", "P": "pixel_AUROC", "IP": "image_and_pixel_AUROC"}

# Read from the papers by eye a second time, apart from the file: paper and table, method, variant,
# dataset, training set of a cross-dataset cell, k, metric, value as printed.
READ_AGAIN = """
MVFA 1 | MKD | | Histopathology | | | I | 77.74
MVFA 1 | MKD | | Retina_RESC | | | P | 86.60
MVFA 1 | MedCLIP | | Chest | | 4 | I | 84.06
MVFA 1 | CLIP | | Liver | | 4 | P | 97.20
MVFA 1 | BGAD | | Brain | | 4 | I | 83.56
MVFA 1 | MVFA | | Liver | | 4 | P | 99.73
MVFA 2 | WinCLIP | | Retina_OCT2017 | | | I | 46.64
MVFA 2 | APRIL-GAN | | Liver | | | P | 97.05
MVFA 2 | MVFA | | Liver | | | I | 76.24
MVFA 3 | WinCLIP | | MVTecAD | | 4 | I | 95.16
MVFA 3 | MVFA | | MVTecAD | | 4 | P | 96.32
MVFA 4 | MVFA | projectors, no feedback | Retina_OCT2017 | | | I | 49.85
MVFA 5 | MVFA | level 2: of all trained | mean_BMAD | | 4 | P | 98.62
MVFA 5 | MVFA | level 3: trained alone | mean_BMAD | | 4 | P | 96.03
MadCLIP 1 | BGAD | | Liver | | 16 | P | 99.25
MadCLIP 1 | BGAD | | mean_BMAD | | 16 | P | 97.20
MadCLIP 1 | MediCLIP | | Brain | | 16 | P | 98.08
MadCLIP 1 | MVFA | | Chest | | 16 | I | 85.72
MadCLIP 1 | MadCLIP | | Brain | | 16 | I | 95.9
MadCLIP 2 | DRA | | mean_BMAD | | 2 | I | 76.3
MadCLIP 2 | MediCLIP | | Retina_OCT2017 | | 2 | I | 93.4
MadCLIP 2 | MVFA | | Histopathology | | 2 | I | 82.61
MadCLIP 2 | MadCLIP | | Retina_RESC | | 4 | P | 98.9
MadCLIP 2 | DRA | | Liver | | 8 | P | 81.78
MadCLIP 2 | BGAD | | Retina_RESC | | 8 | I | 89.96
MadCLIP 2 | MadCLIP | | Liver | | 8 | I | 89.31
MadCLIP 3 | MVFA | | ADNI | Brain | 16 | I | 53.94
MadCLIP 3 | MadCLIP | | OCTDL | Retina_RESC | 16 | I | 88.09
MadCLIP 3 | MVFA | | OCTDL | Retina_OCT2017 | 16 | I | 88.47
MadCLIP 3 | MadCLIP | | CheXpert | Chest | 16 | I | 81.99
MediCLIP 1 | CutPaste | | CheXpert | | 32 | I | 71.4±2.0
MediCLIP 1 | PatchSVDD | | BrainMRI | | 4 | I | 78.4±1.4
MediCLIP 1 | PatchCore | | BUSI | | 32 | I | 88.9±0.1
MediCLIP 1 | MediCLIP | | BrainMRI | | 32 | I | 95.4±0.4
MediCLIP 2 | SQUID | | BUSI | | 4 | P | 56.8±5.1
MediCLIP 2 | AnoDDPM | | BUSI | | 8 | P | 74.7±4.3
MediCLIP 2 | RegAD | | BUSI | | 32 | P | 76.3±0.4
MediCLIP 3 | MediCLIP | | BUSI | BrainMRI | 16 | I | 84.8±1.1
MediCLIP 3 | MediCLIP | | CheXpert | BUSI | 16 | I | 70.7±0.8
MediCLIP 4 | MediCLIP | no learnable tokens | CheXpert | | 16 | I | 71.4±2.1
MediCLIP 5 | MediCLIP | no synthesis | BrainMRI | MVTecAD | | I | 88.2±1.1
IQE-CLIP 1 | AdaCLIP | | Retina_RESC | | | P | 71.15±15.2
IQE-CLIP 1 | APRIL-GAN | | Histopathology | | | I | 67.6±2.2
IQE-CLIP 1 | VCP-CLIP | | Liver | | | I | 69.95±4.5
IQE-CLIP 2 | CLIP | | mean_BMAD | | 4 | IP | 81.56
IQE-CLIP 2 | AdaCLIP | | Liver | | 4 | I | 58.14
IQE-CLIP 2 | VCP-CLIP | | Retina_RESC | | 4 | P | 98.77
IQE-CLIP 3 | IQE-CLIP | no IQM | Brain | | | P | 91.99
IQE-CLIP 4 | IQE-CLIP | no LPT | Brain | | 4 | I | 91.78
IQE-CLIP 5 | IQE-CLIP | no class initialisation | Brain | | 4 | I | 86.07
IQE-CLIP 7 | APRIL-GAN | | Brain | | 2 | P | 92.69
IQE-CLIP 7 | VCP-CLIP | | Liver | | 16 | I | 88.03
IQE-CLIP 7 | AdaCLIP | | Liver | | 8 | P | 72.66
IQE-CLIP 7 | APRIL-GAN | | Chest | | 8 | I | 75.69
"""


@pytest.fixture(scope="module")
def cells():
    return published()


@pytest.fixture(scope="module")
def printed():
    """The same as text, with the digits of the papers."""
    with (files("anomalib_medclip.published") / "tables.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, dtype=str, keep_default_na=False)


def test_every_cell_says_where_it_stands_and_how_it_was_made(cells):
    assert sorted(cells.columns) == sorted(COLUMNS)
    assert str(cells["k"].dtype) == "Int64"
    assert cells["value"].dtype == cells["spread"].dtype == float
    for column in ("paper", "method", "dataset", "setting", "metric", "protocol"):
        assert (cells[column].str.len() > 0).all(), column
    assert not cells.drop(columns=["k", "spread"]).isna().any(axis=None)


def test_no_table_lacks_a_cell(cells):
    counted = cells.groupby(["paper", "table"]).size()
    assert {paper: counted[paper].to_dict() for paper in cells["paper"].unique()} == {
        "MVFA": {1: 11 * 9 - 3, 2: 3 * 9, 3: 3 * 4, 4: 2 * 9, 5: 2 * 9},
        "MadCLIP": {1: 10 * 11 - 4, 2: 3 * (6 * 11 - 4), 3: 2 * 6},
        "MediCLIP": {1: 12 * 8, 2: 4 * 7, 3: 9, 4: 4 * 3, 5: 8 * 3},
        "IQE-CLIP": {1: 6 * 9, 2: 14 * 10 - 3, 3: 4 * 4, 4: 4 * 4, 5: 5 * 4, 7: 4 * 5 * 9},
    }


# Sums of the figures of a table, computed from the text of the papers and not from the file.
SUMS = """
MVFA 8017.04 2105.26 1110.43 1440.14 1645.26
MadCLIP 9330.25 16265.01 903.93
MediCLIP 7077.8 2134.7 753.5 860.5 1968.5
IQE-CLIP 3950.62 11568.63 1411.36 1405.58 1756.01 15911.09
"""


@pytest.mark.parametrize("line", SUMS.strip().splitlines())
def test_tables_add_up_to_what_the_papers_print(printed, line):
    paper, *sums = line.split()
    values = printed.loc[printed["paper"] == paper, "value"].map(Decimal)
    assert [str(total) for total in values.groupby(printed["table"]).sum()] == sums


def test_a_table_prints_a_cell_once(cells):
    assert not cells.duplicated(["paper", "table", *SAME_CELL]).any()


def test_figures_are_percent(cells):
    assert cells["value"].between(30, 100).all()
    assert cells["spread"].dropna().between(0, 20).all()
    spread = cells.groupby(["paper", "table"])["spread"].agg(lambda s: s.notna().all())
    assert set(spread[spread].index) == {("IQE-CLIP", 1), *(("MediCLIP", n) for n in range(1, 6))}


def test_names_are_known(cells):
    other = {"BrainMRI", "BUSI", "CheXpert", "NIHChest", "ADNI", "OCTDL", "MVTecAD"}
    means = {"mean_BMAD", "mean_cross_dataset"}
    assert set(cells["dataset"]) == set(BMAD_SETS) | other | means
    assert set(cells["trained_on"]) - {""} <= set(BMAD_SETS) | other | {"Visa"}
    assert set(cells["metric"]) == set(METRICS.values())
    ours = {"MVFA", "MadCLIP", "MediCLIP", "IQE-CLIP"}
    assert set(cells["paper"]) == ours
    assert {name.replace("-", "").lower() for name in ours} <= set(list_models())
    full = {"CFlow-AD", "RD4AD", "PatchCore", "MKD"}
    few_normal = {"SimpleNet", "SQUID", "AnoDDPM", "CutPaste", "PatchSVDD", "RegAD"}
    clip = {"CLIP", "MedCLIP", "WinCLIP", "APRIL-GAN", "VCP-CLIP", "AdaCLIP"}
    assert set(cells["method"]) == ours | full | few_normal | clip | {"DRA", "BGAD"}


def test_only_sets_with_masks_have_pixel_figures(cells):
    masked = {name for name, known in BMAD_SETS.items() if known.has_masks}
    found = set(cells.loc[cells["metric"] == "pixel_AUROC", "dataset"])
    assert found == masked | {"BUSI", "MVTecAD", "mean_BMAD"}


def test_setting_k_and_training_set_fit(cells):
    crossed = cells["setting"] == "cross-dataset"
    one_source = cells["trained_on"] != ""
    assert (crossed == (one_source | (cells["dataset"] == "mean_cross_dataset"))).all()
    counted = cells["k"].notna() | cells["trained_on"].isin(["MVTecAD", "Visa"])
    assert (
        counted == cells["setting"].isin(["few-normal-shot", "few-shot", "cross-dataset"])
    ).all()


def test_the_readme_explains_every_column_and_protocol_and_no_other(cells):
    text = (files("anomalib_medclip.published") / "README.md").read_text(encoding="utf-8")
    assert f"{len(cells):,} cells" in text
    parts = {part.partition("\n")[0]: part for part in text.split("\n## ")}
    for part, names in (
        ("Columns", cells.columns),
        ("Settings", cells["setting"].unique()),
        ("Protocols", cells["protocol"].unique()),
    ):
        first = re.findall(r"^\| `(\S+)` \|", parts[part], re.MULTILINE)
        assert sorted(first) == sorted(names)


@pytest.mark.parametrize("line", READ_AGAIN.strip().splitlines())
def test_a_cell_is_as_printed(printed, line):
    place, method, variant, dataset, source, k, metric, value = (p.strip() for p in line.split("|"))
    paper, table = place.split()
    key = {"paper": paper, "table": table, "method": method, "variant": variant, "k": k}
    key |= {"dataset": dataset, "trained_on": source, "metric": METRICS[metric]}
    found = printed[(printed[list(key)] == pd.Series(key)).all(axis=1)]
    assert len(found) == 1
    value, _, spread = value.partition("±")
    assert (found["value"].item(), found["spread"].item()) == (value, spread)


def rows_of_mean(printed, mean):
    """The cells that a printed mean is of."""
    here = printed[(printed["paper"] == mean["paper"]) & (printed["variant"] == "")]
    # MVFA prints means in tables 3 and 5, of the sets in table 1.
    here = here[here["table"] == ("1" if mean["paper"] == "MVFA" else mean["table"])]
    for column in ("method", "setting", "k"):
        here = here[here[column] == mean[column]]
    here = here[~here["dataset"].str.startswith("mean_")]
    both = mean["metric"] == METRICS["IP"]
    return here if both else here[here["metric"] == mean["metric"]]


def test_printed_means_are_those_of_the_cells_or_the_note_says_so(printed):
    means = printed[printed["dataset"].str.startswith("mean_") & (printed["variant"] == "")]
    noted = 0
    for _, mean in means.iterrows():
        values = [Decimal(value) for value in rows_of_mean(printed, mean)["value"]]
        sets = {"image_AUROC": 6, "pixel_AUROC": 3, "image_and_pixel_AUROC": 9}[mean["metric"]]
        sets = {"mean_cross_dataset": 5}.get(mean["dataset"], sets)
        if mean["method"] == "BGAD":
            sets = min(sets, 6)
        assert len(values) == sets
        exact = sum(values) / len(values)
        there = Decimal(mean["value"])
        assert abs(exact - there) < Decimal("0.01")
        rounded = exact.quantize(there, ROUND_HALF_UP)
        to_two = exact.quantize(Decimal("0.01"), ROUND_HALF_UP)
        assert (f"the cells' mean is {to_two}" in mean["note"]) == (rounded != there)
        noted += rounded != there
    assert (len(means), noted) == (76, 17)


def test_a_cell_that_is_printed_with_other_values_names_them_all(printed):
    count = 0
    for _, same in printed.groupby(SAME_CELL):
        rows = list(same.itertuples())
        for cell in rows:
            others = [o for o in rows if float(o.value) != float(cell.value)]
            places = [f"{o.paper} table {o.table} prints {o.value}" for o in others]
            assert all(place in cell.note for place in places)
            assert cell.note.count("prints") == len(places)
        count += same["value"].nunique() > 1 and not same["dataset"].iloc[0].startswith("mean_")
    assert count == 90


def test_figures_called_mvfas_are_mvfas(cells):
    """Codes of MVFA's protocols stand in other papers only where these repeat its figures."""
    of_sets = cells[~cells["dataset"].str.startswith("mean_") & (cells["variant"] == "")]
    there = of_sets[of_sets["paper"] == "MVFA"].drop_duplicates(SAME_CELL)
    taken = of_sets[of_sets["protocol"].str.startswith("mvfa-") & (of_sets["paper"] != "MVFA")]
    both = taken.merge(there, on=SAME_CELL, suffixes=("", "_mvfa"))
    assert len(both) == len(taken) > 100
    assert (both["value"] == both["value_mvfa"]).all()
    assert (both["protocol"] == both["protocol_mvfa"]).all()


def test_choices_narrow_the_table_together(cells):
    found = published(dataset="BUSI", k=16, metric="pixel_AUROC", setting="few-normal-shot")
    assert len(found) == 7
    assert found["value"].max() == found.set_index("method").loc["MediCLIP", "value"] == 89.9
    assert list(found.index) == list(range(7))
    assert set(published(setting="zero-shot")["k"].isna()) == {True}
    parts = [published(setting=setting) for setting in cells["setting"].unique()]
    assert sum(map(len, parts)) == len(cells)
    assert published(dataset="Brain", k=32).empty


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"dataset": "brain"}, r"dataset='brain'; choose one of ADNI, .*Brain"),
        ({"k": 3}, r"k=3; choose one of 2, 4, 8, 16, 32"),
        ({"metric": "AUROC"}, r"metric='AUROC'; choose one of .*image_AUROC"),
        ({"setting": "zero_shot"}, r"setting='zero_shot'; choose one of .*zero-shot"),
    ],
)
def test_an_unknown_name_is_answered_with_those_there_are(choice, words):
    with pytest.raises(UnknownNameError, match=words) as raised:
        published(**choice)
    assert isinstance(raised.value, MedclipError)


def published_figures(page):
    """Numbers with a decimal point in the tables below a page's heading, spreads aside."""
    text = (DOCS / page).read_text(encoding="utf-8")
    part = text.partition("\n## Published figures\n")[2].partition("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return re.findall(r"(?<!± )\b\d+\.\d+", "\n".join(lines))


@pytest.mark.parametrize("paper", ["MVFA", "MadCLIP", "MediCLIP", "IQE-CLIP"])
def test_the_page_of_a_method_prints_figures_of_its_paper(printed, paper):
    own = printed[(printed["paper"] == paper) & (printed["method"] == paper)]
    shown = published_figures(f"methods/{paper.replace('-', '').lower()}.md")
    assert len(shown) >= 16
    assert set(shown) <= set(own["value"])


def test_the_table_of_all_methods_prints_the_papers_figures(printed):
    words = {"HIS": "Histopathology", "ChestXray": "Chest", "OCT17": "Retina_OCT2017"}
    words |= {"BrainMRI": "Brain", "LiverCT": "Liver", "RESC": "Retina_RESC"}
    part = (
        (DOCS / "methods.md").read_text(encoding="utf-8").partition("\n## Published figures\n")[2]
    )
    shown = [re.findall(r"[\w.]+", line) for line in part.splitlines() if line.startswith("| ")]
    rows = {words[row[0]]: row[1:] for row in shown if row and row[0] in words}
    assert len(rows) == len(words)
    for dataset, row in rows.items():
        metrics = list(METRICS.values())[: len(row) // 3]
        for paper, table in (("MVFA", "1"), ("MadCLIP", "2"), ("IQE-CLIP", "2")):
            key = {"paper": paper, "method": paper, "table": table, "dataset": dataset, "k": "4"}
            found = printed[(printed[list(key)] == pd.Series(key)).all(axis=1)]
            by_metric = found.set_index("metric")["value"]
            assert [by_metric[metric] for metric in metrics] == row[: len(metrics)]
            row = row[len(metrics) :]
