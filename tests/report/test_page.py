"""The page without a browser: what stands in it, what never does, and how large it may be."""

import base64
import io
import json
import re
import shutil
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from compare_results import failed, write_results
from PIL import Image
from report_page import PUBLISHED, page_of, records_of, rows_of

from anomalib_medclip.compare.cell_record import CellRecord
from anomalib_medclip.compare.dataset_result import LostLesions
from anomalib_medclip.compare.store import Store
from anomalib_medclip.report.columns import MEANINGS, METRICS
from anomalib_medclip.report.gallery import Gallery, pack
from anomalib_medclip.report.palette import colours
from anomalib_medclip.report.redaction import without_paths
from anomalib_medclip.report.rows import Chart, Estimate
from anomalib_medclip.report.sentences import conclusions, setup_in_words
from anomalib_medclip.report.write import write_report


def failed_record(cell):
    """The record of a planned cell that raised."""
    return CellRecord.of_plain(failed(asdict(cell)))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_results(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def page(store):
    return page_of(store)


class Parsed(HTMLParser):
    """Tags with their attributes, text outside of scripts, and the page's data."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self.data, self.inside = [], "", "", ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.text += " "
        self.inside = dict(attributes).get("id", tag) if tag in ("script", "style") else ""

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, text):
        if not self.inside:
            self.text += text
        elif self.inside == "data":
            self.data += text

    def of(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]

    def words(self):
        return " ".join(self.text.split())


def test_the_same_records_give_the_same_bytes(store, page):
    assert page_of(store) == page
    assert "2026-01-01" not in page, "when it was run is not what was found"


def test_the_address_that_charts_could_be_uploaded_to_is_not_in_the_page(page):
    assert "showSendToCloud: false" in page
    assert "cloud.plotly.com" not in page
    assert "chart-studio.plotly.com" not in page


def test_nothing_is_asked_of_the_network(page):
    parsed = Parsed(page)
    asked = [
        value
        for _, attributes in parsed.tags
        for name, value in attributes.items()
        if name in ("src", "href", "action", "data", "poster", "srcset")
    ]
    assert asked, "there are links within the page"
    assert all(value.startswith("#") for value in asked)
    (policy,) = (meta["content"] for meta in parsed.of("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy


def test_each_figure_is_explained_and_how_patients_are_scored_is_said(store, page):
    parsed = Parsed(page)
    assert set(MEANINGS) == set(METRICS)
    told = {one.get("data-group"): one.get("title") for one in parsed.of("th")}
    for metric, meaning in MEANINGS.items():
        assert meaning in parsed.words(), metric
        assert told[metric] == meaning
    rows = [
        replace(row, aggregated=("the worst image, chosen",)) for row in rows_of(records_of(store))
    ]
    assert "The worst image, chosen. everywhere" in Parsed(page_of(store, rows=rows)).words()


def test_thresholds_of_patients_are_said_with_how_often_they_are_wrong(store, page):
    assert "how often it is wrong" not in Parsed(page).words()  # of records that do not know
    row = rows_of(records_of(store))[0]
    row = replace(row, decided=("draw 0, seed 0: patients have <no> threshold.",))
    words = Parsed(page_of(store, rows=[row])).words()
    assert "Threshold of patients and volumes, and how often it is wrong" in words
    assert f"{row.model}, {setup_in_words(row)} Draw 0, seed 0: patients have <no>" in words


def test_the_page_of_metrics_explains_each_figure_as_the_report_does():
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    for metric, meaning in MEANINGS.items():
        level, _, name = metric.partition("_")
        if f"patient_{name}" in MEANINGS and level in ("image", "volume"):
            metric, meaning = f"patient_{name}", meaning.replace(level, "patient")
        assert f"| `{metric}`" in page
        assert f"| {meaning} |" in page


def test_patients_come_first_and_only_where_they_are_known(store, page):
    headings = [one["data-group"] for one in Parsed(page).of("th") if "data-group" in one]
    assert headings[0] == "patient_AUROC"
    rows = [
        replace(row, honest={k: v for k, v in row.honest.items() if k.startswith("image_")})
        for row in rows_of(records_of(store))
    ]
    page = Parsed(page_of(store, rows=rows))
    headings = {one["data-group"] for one in page.of("th") if "data-group" in one}
    assert not {name for name in headings if name.startswith(("patient", "volume", "lesion"))}
    assert "image_AUROC" in headings


def test_false_positives_are_no_percentage(store):
    row = rows_of(records_of(store))[0]
    count = Estimate(1.166, None, None, (1.166,))
    row = replace(row, honest={**row.honest, "lesion_FalsePositives": count})
    words = Parsed(page_of(store, rows=[row])).words()
    assert " 1.17 " in words
    assert "116.6" not in words


def test_every_link_of_the_contents_leads_somewhere(page):
    parsed = Parsed(page)
    there = {attributes.get("id") for _, attributes in parsed.tags}
    assert {link["href"][1:] for link in parsed.of("a")} <= there


CONFIG = """
# Dr. Zroe's heads
title: Made-up results
models: {MVFA: {config: ../zward/mvfa.yaml}}
data:
  heads: {class_path: anomalib_medclip.data.MedicalFolder, init_args: {root: zroe,
    table: {train: zlabels}, mask_dir: zmasks, normal_dir: /zward/7, files: [zdoe.dcm],
    cover: ZDOE.DCM, splits: {Zoe Zquill: train}, k_shot: 4}}
"""


def test_no_name_and_no_path_is_shown_unless_asked_for(store):
    command = "anomalib-medclip compare /zward/7/heads.yaml --out /out/zdoe"
    grid = replace(store.grid(), command=command)
    broken = failed_record(replace(grid.cells[0], key="f" * 16))
    told = {"message": "cannot read zdoe.dcm", "traceback": "File '/zward/7/zdoe.dcm'"}
    broken = replace(broken, error=replace(broken.error, **told))
    changes = {"grid": grid, "config": CONFIG, "records": [*records_of(store)[:-1], broken]}
    quiet, named = page_of(store, **changes), page_of(store, names=True, **changes)
    secrets = ["p00.nii.gz", "p00_1.png", "zdoe", "Zroe", "zroe", "zward", "zmasks", "zlabels"]
    secrets += ["ZDOE", "Zquill"]
    assert [word for word in secrets if word in quiet] == []
    assert [word for word in secrets if word not in named] == []
    for choice in (
        "heads.yaml",
        "config: mvfa.yaml",
        "anomalib_medclip.data.MedicalFolder",
        "k_shot: 4",
    ):
        assert choice in quiet
    assert "volume 2" in quiet


@pytest.mark.parametrize("folder", ["--out zdoe", "--out=zdoe", "--out 'z doe'", "--ray-address z"])
def test_where_results_go_is_withheld(folder):
    option = folder[: folder.index("z")].rstrip("'")
    found = without_paths(f"compare heads.yaml {folder} --jobs 2")
    assert found == f"compare heads.yaml {option}(path withheld) --jobs 2"


@pytest.mark.parametrize("path", ["/a/b.png", r"C:\a\b.png", "a/b", "./x", "'/a/Jane Doe'"])
def test_a_path_in_a_command_is_withheld(path):
    assert without_paths(f"run --on {path} now") == "run --on (path withheld) now"


def test_what_looks_like_markup_stays_text(store):
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    rows = [
        replace(row, model=evil, note=evil, tested_on=evil) for row in rows_of(records_of(store))
    ]
    figure = {"data": [{"type": "bar", "name": evil}], "layout": {}}
    charts = [Chart("evil", "gap", evil, evil, evil, figure)]
    changes = {"grid": replace(store.grid(), title=evil), "config": f"title: '{evil}'"}
    parsed = Parsed(page_of(store, rows=rows, charts=charts, **changes))
    assert len(parsed.of("script")) == 4
    assert parsed.of("img") == []
    assert json.loads(parsed.data)["charts"]["evil"]["data"][0]["name"] == evil
    assert evil in parsed.text


def test_lesions_too_small_for_an_input_size_are_told(store, page):
    assert "Lesions too small" not in Parsed(page).words()
    records = []
    for record in records_of(store):
        tests = []
        for test in record.tests:
            lost = 3 * (record.cell.model != "PatchCore") * (test.data == "heads")
            lesions = LostLesions(
                size=(240, 240), images=60, images_lost=lost // 3, lesions=84, lesions_lost=lost
            )
            tests.append(replace(test, lesions=lesions))
        records.append(replace(record, tests=tuple(tests)))
    words = Parsed(page_of(store, records=records)).words()
    assert "Lesions too small for a model's input size count for none of its pixel figures" in words
    told = re.search(
        r"heads at the 240 x 240 pixels of ([^:]*): 3 of 84 lesions are no longer in", words
    )
    assert "MVFA" in told[1]
    assert "PatchCore" not in told[1]
    assert "and 1 of 60 abnormal images have none left." in words
    assert "volumes at the 240" not in words


def test_research_use_only_and_untrained_backbones_are_said(store, page):
    assert "research use only" in Parsed(page).words()
    banner = "these figures mean nothing clinically. MVFA, MadCLIP, PatchCore have random weights"
    assert banner in Parsed(page).words()
    rows = [replace(row, untrained=False) for row in rows_of(records_of(store))]
    assert "mean nothing clinically" not in Parsed(page_of(store, rows=rows)).words()


def test_the_best_is_marked_where_the_row_says_so_and_nowhere_else(store):
    rows = rows_of(records_of(store))
    rows = [replace(row, best=frozenset()) for row in rows]
    # The explanation of the sign is its one other place.
    assert Parsed(page_of(store, rows=rows)).text.count("★") == 1
    rows[0] = replace(rows[0], best=frozenset({"image_AUROC", "pixel_AUPRO"}))
    assert Parsed(page_of(store, rows=rows)).text.count("★") == 3


def test_figures_are_percent_with_their_interval(store):
    row = rows_of(records_of(store))[0]
    row.honest["image_AUROC"] = Estimate(0.9117, 0.9042, 0.9312, (0.9117,), "patients")
    row.gap["image_AUROC"] = Estimate(-0.004, None, None, ())
    words = Parsed(page_of(store, rows=[row])).words()
    assert "91.2 90.4\u201393.1" in words
    assert "\u22120.4" in words


def test_what_intervals_cannot_say_stands_once_with_where_it_holds(store):
    rows = [row for row in rows_of(records_of(store)) if row.k_shot == 4]
    few = "Few draws: too sure if supports differ."
    rows = [replace(row, caveats=(few,)) for row in rows]
    rows[0] = replace(rows[0], caveats=(few, "One draw only."))
    words = Parsed(page_of(store, rows=rows)).words()
    assert words.count(few) == 1
    assert f"{few} everywhere" in words
    assert "One draw only. heads (K = 4): MVFA" in words


def test_figures_of_one_protocol_have_one_column(page):
    heads = [tag for tag in Parsed(page).of("th") if "data-metric" in tag]
    columns = {
        metric: [tag["class"].split()[-1] for tag in heads if tag["data-metric"] == metric]
        for metric in ("image_F1Max", "image_SpecificityAtSensitivity", "image_Sensitivity")
    }
    assert columns == {
        "image_F1Max": ["oracle"],
        "image_SpecificityAtSensitivity": ["oracle"],
        "image_Sensitivity": ["honest"],
    }


def test_published_figures_name_paper_and_protocol(page):
    tips = [button["data-tip"] for button in Parsed(page).of("button") if "data-tip" in button]
    assert set(tips) == {"MVFA, table 2: 92.4 (mvfa-few)"}
    assert str(PUBLISHED["value"]) in page, "what the column is sorted by"


def test_failed_and_waiting_trainings_are_listed(page):
    words = Parsed(page).words()
    assert "Failed 1 Not run yet 1" in words
    assert "Broken on heads, K = 4, draw 0, seed 0 RuntimeError" in words
    assert "MediCLIP on heads, K = 4, draw 0, seed 0" in words


def test_records_of_several_versions_are_told(store):
    records = records_of(store)
    records[0].determined_by.versions["anomalib"] = "2.6.1"
    assert "anomalib 2.6.1, 2.7.0" in Parsed(page_of(store, records=records)).words()


def test_a_page_where_all_has_failed_says_so(store):
    records = [failed_record(cell) for cell in store.grid().cells]
    parsed = Parsed(page_of(store, records=records, rows=[], charts=[], gallery=Gallery()))
    assert f"Trainings finished 0 of {len(records)} Failed {len(records)}" in parsed.words()
    assert "there is nothing to compare yet" in parsed.words()
    assert "gallery" not in {attributes.get("id") for attributes in parsed.of("section")}


def test_summary_names_the_best_the_gap_and_who_loses_to_trivial(store):
    rows = [row for row in rows_of(records_of(store)) if row.tested_on == "heads"]
    rows = [row for row in rows if row.k_shot == 4]
    means = {"MVFA": 0.9, "MadCLIP": 0.8, "PatchCore": 0.7, "mean intensity": 0.75}
    for row in rows:
        row.honest["image_AUROC"] = Estimate(means[row.model], None, None, ())
        row.gap["image_AUROC"] = Estimate(0.02 if row.model == "MVFA" else 0.01, None, None, ())
    none, gap, trivial = conclusions(rows)
    assert none == "Patients and draws support no best method by image AUROC in the one comparison."
    assert "by +1.5 points on average, and raise it at most by 2.0, for MVFA on heads" in gap
    assert trivial.endswith("by the mean: PatchCore in 1 of 1 comparisons.")
    rows[0] = replace(rows[0], best=frozenset({"image_AUROC"}))
    best, *_ = conclusions(rows)
    assert best.endswith("a best method by image AUROC for: MVFA on heads (K = 4) with 90.0 %.")


def test_of_many_best_methods_the_summary_only_counts(store):
    rows = rows_of(records_of(store))
    methods = [row for row in rows if row.kind != "trivial"]
    marked = [replace(row, best=frozenset({"image_AUROC"})) for row in methods]
    best, *_ = conclusions(marked)
    assert len(marked) > 4
    assert "MVFA in 4" in best
    assert best.endswith(" cases.")


def test_colours_are_distinct_and_keep_to_their_model():
    many = colours(list("abcdefghi"))
    assert len(set(many.values())) == 9
    assert colours(list("abab")) == {name: many[name] for name in "ab"}


def decoded(text):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))).astype(int)


def test_pictures_and_maps_are_those_of_the_records(store):
    gallery = pack(store.grid(), store)
    arrays = store.arrays(store.grid().cells[0].key)
    for i, image in enumerate(gallery.groups[0]["images"]):
        picture = decoded(gallery.pictures[image["picture"]])
        heat = decoded(gallery.maps[image["maps"][0]])
        assert np.abs(picture - arrays["test0_pictures"][i]).mean() < 6
        assert np.abs(heat - arrays["test0_maps"][i]).mean() < 6
        assert (image["outline"] is None) == (image["label"] == 0)


def test_one_draw_of_each_k_is_shown_with_what_k_does_not_change(store):
    groups = pack(store.grid(), store).groups
    assert [(group["data"], group["k"]) for group in groups] == [
        ("heads", 4), ("heads", 16), ("volumes", 4), ("volumes", 16),
    ]  # fmt: skip
    for group in groups:
        assert group["draw"] == 0
        labels = [model["label"] for model in group["models"]]
        methods = ["MVFA", "MadCLIP", "PatchCore", "PatchCore, all normals", "mean intensity"]
        assert labels == methods
        assert [model["judged"] for model in group["models"]] == [True] * 4 + [False]
    assert groups[0]["volumes"] == []
    assert groups[2]["volumes"] == ["volume 1", "volume 2"]


def test_scores_and_ranks_are_those_of_the_whole_test_set(store):
    group = pack(store.grid(), store).groups[0]
    images = store.record(store.grid().cells[0].key).tests[0].images
    for image in group["images"]:
        score = images.score[image["number"] - 1]
        below = np.mean(np.asarray(images.score) < score) * 96 / 95
        assert image["scores"][0] == pytest.approx(score, abs=1e-4)
        assert image["ranks"][0] == pytest.approx(below, abs=1e-4)


def test_images_are_given_up_evenly_to_keep_to_the_budget(store):
    everything, some = pack(store.grid(), store), pack(store.grid(), store, budget=60_000)
    size = sum(map(len, [*some.pictures, *some.maps, *some.outlines]))
    assert 30_000 < size <= 60_000
    for group, full in zip(some.groups, everything.groups, strict=True):
        numbers = [image["number"] for image in group["images"]]
        assert 2 < len(numbers) < len(full["images"]) == group["stored"]
        assert numbers[0] == 1
        assert numbers[-1] == 16
        assert max(np.diff(numbers)) <= min(np.diff(numbers)) + 1
    shown = [[image["number"] for image in group["images"]] for group in some.groups]
    assert shown[0] == shown[1], "the same images for every K"


def test_pictures_take_only_the_room_that_is_left(store, tmp_path, monkeypatch):
    shutil.copytree(store.folder, tmp_path / "all")
    monkeypatch.setattr("anomalib_medclip.report.write.charts_of", lambda *_: [])
    page, *_ = write_report(Store(tmp_path / "all"))
    whole = page.stat().st_size
    monkeypatch.setattr("anomalib_medclip.report.write._LIMIT", whole - 100_000)
    page, *_ = write_report(Store(tmp_path / "all"))
    assert whole - 400_000 < page.stat().st_size < whole - 50_000


def test_the_page_stays_far_below_twenty_megabytes_without_its_pictures(store):
    bare = page_of(store, gallery=Gallery())
    assert len(bare.encode()) < 7_000_000
