"""Rows say what the files say: means, intervals, what is best, and what the papers print."""

import json
from collections import defaultdict

import numpy as np
import pytest
from compare_results import write_results
from right_records import failed_record, grid_of, right_record, typed, with_figure
from sklearn.metrics import average_precision_score, roc_auc_score

from anomalib_medclip.compare.cell_record import CellRecord
from anomalib_medclip.compare.store import Store
from anomalib_medclip.errors import UnknownNameError
from anomalib_medclip.metrics.clustered import Sample, clustered_interval
from anomalib_medclip.metrics.influence import Influence, averaged, of_auroc
from anomalib_medclip.published import published
from anomalib_medclip.report.columns import METRICS
from anomalib_medclip.report.summary import summarise


def rows_of(*records, **grid):
    return summarise(grid_of(records, **grid), typed(records))


def on_disk(folder):
    """Figures by row, metric and protocol, and in these by draw, read from the files alone."""
    found = defaultdict(lambda: defaultdict(list))
    for path in (folder / "cells").glob("*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        cell = record["cell"]
        for test in record.get("tests", []):
            k = cell["k_shot"] if cell["normals"] == "support" else None
            row = (cell["model"], cell["normals"], test["data"], k)
            for metric in METRICS:
                honest, oracle = test["honest"].get(metric), test["oracle"].get(metric)
                gap = None if honest is None or oracle is None else oracle - honest
                for protocol, value in (("honest", honest), ("oracle", oracle), ("gap", gap)):
                    if value is not None:
                        found[(*row, metric, protocol)][cell["draw"]].append(value)
    return found


def test_words_that_are_not_a_methods_own_stand_beside_its_name():
    words = {"normal": ["quiet {}"], "abnormal": ["broken {}", "ill {}"], "templates": ["a {}."]}
    [own] = rows_of(right_record("MVFA", note="small"))
    [other] = rows_of(right_record("MVFA", note="small", facts={"words": words}))
    assert own.note == "small"
    assert other.note == "small; normal: quiet {}; abnormal: broken {}, ill {}"


def test_every_figure_is_recomputed_from_the_files(tmp_path):
    store = write_results(tmp_path, draws=(0, 1, 2))
    for draw in (0, 1, 2):  # seeds of a draw, of a skill of their own
        for seed in (0, 1, 2)[: draw + 1]:
            record = right_record("right", draw, skill=1 + seed, seed=seed)
            store.write(record["key"], CellRecord.of_plain(record))
    records = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("cells/*.json"))]
    rows = summarise(store.grid(), typed(records))
    expected = on_disk(tmp_path)
    compared = 0
    for row in rows:
        for protocol in ("honest", "oracle", "gap"):
            for metric in METRICS:
                place = (row.model, row.normals, row.tested_on, row.k_shot, metric, protocol)
                found = row.estimates[protocol].get(metric)
                if place not in expected:
                    assert found is None
                    continue
                compared += 1
                draws = [np.mean(seeds) for _, seeds in sorted(expected.pop(place).items())]
                assert found.mean == pytest.approx(np.mean(draws), abs=1e-12)
                assert found.values == pytest.approx(draws, abs=1e-12)
                if protocol != "honest" or metric == "image_ECE":
                    assert (found.low, found.high, found.source) == (None, None, "")
                    continue
                assert found.low < found.mean < found.high
                assert found.source == "patients and draws"
    assert compared > 300
    assert not expected


def test_image_figures_are_those_of_the_scores(tmp_path):
    store = Store(tmp_path)
    for draw in range(3):
        record = right_record("MVFA", draw)
        store.write(record["key"], CellRecord.of_plain(record))
    written = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("cells/*.json"))]
    row = rows_of(*written)[0]
    images = [record["tests"][0]["images"] for record in written]
    for metric, by_hand in (("AUROC", roc_auc_score), ("AP", average_precision_score)):
        expected = np.mean([by_hand(one["label"], one["score"]) for one in images])
        assert row.honest[f"image_{metric}"].mean == pytest.approx(expected, abs=1e-12)


def test_seeds_of_a_draw_are_averaged_first():
    seeds = [with_figure(right_record("MVFA", 0, seed=s), "image_AUROC", 0.9) for s in range(3)]
    other = with_figure(right_record("MVFA", 1), "image_AUROC", 0.5)
    (row,) = rows_of(*seeds, other)
    assert row.honest["image_AUROC"].mean == pytest.approx(0.7)  # not 0.8
    assert row.honest["image_AUROC"].values == pytest.approx((0.9, 0.5))
    assert row.draws == 4


def test_an_undefined_figure_is_absent_and_never_zero():
    one, two = right_record("MVFA", 0), right_record("MVFA", 1)
    (row,) = rows_of(one, with_figure(two, "image_AP", None))
    assert "pixel_AUROC" not in row.honest
    assert row.honest["image_AP"].values == (one["tests"][0]["honest"]["image_AP"],)
    assert set(row.gap) == {"image_AUROC"}


def by_hand(records):
    """Interval of image AUROC from the scores of the images alone."""
    draws = {}
    for record in records:
        images = record["tests"][0]["images"]
        influence = of_auroc(images["score"], images["label"], images["patient"])
        draws.setdefault(record["cell"]["draw"], []).append(influence)
    return clustered_interval(Sample.of([averaged(seeds) for seeds in draws.values()]))


def test_an_interval_is_over_patients_and_draws_the_seeds_of_a_draw_averaged():
    records = [right_record("MVFA", draw, seed=seed) for draw in range(4) for seed in range(2)]
    (row,) = rows_of(*records)
    found = row.honest["image_AUROC"]
    assert found[:3] == pytest.approx(tuple(by_hand(records)), abs=1e-9)
    assert (len(found.values), found.source) == (4, "patients and draws")
    assert row.honest["image_AP"].low < row.honest["image_AP"].mean < row.honest["image_AP"].high
    assert row.oracle["image_AUROC"].low is None  # of these scores there is no record


def test_one_cell_has_an_interval_over_its_patients():
    record = with_figure(right_record("MVFA"), "pixel_AUROC", 0.9)
    (row,) = rows_of(record)
    assert row.honest["image_AUROC"][:3] == pytest.approx(tuple(by_hand([record])), abs=1e-9)
    assert {m: row.honest[m].source for m in row.honest} == {
        "image_AUROC": "patients", "image_AP": "patients", "pixel_AUROC": "",
    }  # fmt: skip


def test_splits_drawn_anew_are_joined_by_patient_and_not_by_number():
    """Each draw tests half of the patients; their numbers begin at 0 in each."""
    records, whole = [], [f"p{number:02d}" for number in range(20)]
    for draw in range(4):
        record = right_record("MVFA", draw, patients=10)
        known = whole[:10] if draw % 2 else whole[10:]
        record["tests"][0]["patients"]["known_as"] = known
        records.append(record)
    (row,) = rows_of(*records)
    apart = row.honest["image_AUROC"]
    for record in records:
        record["tests"][0]["patients"]["known_as"] = whole[:10]
    (row,) = rows_of(*records)
    same = row.honest["image_AUROC"]
    assert apart.high - apart.low < 0.9 * (same.high - same.low), "twice as many patients"


def test_draws_that_change_nothing_make_no_figure_certain():
    records = [right_record("MVFA")]
    for draw in range(1, 4):
        records.append({**records[0], "key": f"again {draw}"})
        records[-1]["cell"] = {**records[0]["cell"], "draw": draw}
    found = rows_of(*records)[0].honest["image_AUROC"]
    assert found.high - found.low > 0.05
    assert found[:3] == pytest.approx(tuple(by_hand(records[:1])), abs=1e-6)


def test_figures_of_pixels_have_an_interval_by_what_the_record_says_of_patients():
    records = []
    for draw in range(4):
        record = with_figure(right_record("MVFA", draw), "pixel_AUPRO", 0.8)
        names = record["tests"][0]["patients"]["known_as"]
        parts = np.random.default_rng(draw).normal(0, 0.01, (20, 2))
        plain = Influence(0.8, tuple(names), parts, np.full((20, 2), 2)).as_plain()
        record["tests"][0]["influence"] = {"pixel_AUPRO": plain}
        records.append(record)
    found = rows_of(*records)[0].honest["pixel_AUPRO"]
    assert 0.65 < found.low < 0.78
    assert 0.82 < found.high < 0.90
    assert found.source == "patients and draws"


def test_a_threshold_chosen_on_the_test_labels_makes_an_oracle_figure_only():
    record = right_record("MVFA")
    for metric in ("image_F1Max", "image_SpecificityAtSensitivity"):
        for protocol in ("honest", "oracle"):  # earlier records have them in both
            record = with_figure(record, metric, 0.9, protocol)
    (row,) = rows_of(record)
    for metric in ("image_F1Max", "image_SpecificityAtSensitivity"):
        assert metric in row.oracle
        assert metric not in row.honest
        assert metric not in row.gap


def test_figures_at_the_threshold_are_honest_with_an_interval_inside_0_to_1():
    record = right_record("MVFA", skill=9)
    label = np.array(record["tests"][0]["images"]["label"], dtype=bool)
    called = label.copy()
    called[:9] = False  # four patients and a little are missed
    record["tests"][0]["images"]["called"] = called.astype(int).tolist()
    sensitivity = called[label].mean()
    figures = {"image_Sensitivity": sensitivity, "image_Specificity": 1.0,
               "image_F1": 2 * sensitivity / (1 + sensitivity)}  # fmt: skip
    for metric, value in figures.items():
        record = with_figure(record, metric, float(value))
    row = rows_of(record)[0]
    assert 0.6 < row.honest["image_Sensitivity"].low < sensitivity
    assert sensitivity < row.honest["image_Sensitivity"].high < 1
    # All 40 normal images are right, of 20 patients: Wilson's of 20 is 0.839 to 1.
    assert row.honest["image_Specificity"][:3] == pytest.approx((1, 0.8389, 1), abs=1e-4)
    assert row.honest["image_F1"].low < row.honest["image_F1"].mean < row.honest["image_F1"].high
    assert "image_Sensitivity" not in row.oracle


def test_without_a_finite_threshold_its_figures_are_absent_and_this_is_said():
    record = right_record("MVFA")
    record["tests"][0]["images"]["called"] = None
    for metric in ("image_Sensitivity", "image_Specificity", "image_F1"):
        record = with_figure(record, metric, None)
    (row,) = rows_of(record)
    assert "image_F1" not in row.honest
    assert "No finite threshold: sensitivity, specificity and F1 at it are absent." in row.caveats


def test_a_figure_of_patients_has_an_interval_by_what_the_record_says_of_them():
    records = []
    for draw in range(2):
        record = with_figure(right_record("MVFA", draw), "patient_AUROC", 0.75)
        random = np.random.default_rng(draw)
        names = record["tests"][0]["patients"]["known_as"]
        label, score = [n % 2 for n in range(20)], random.normal(size=20)
        score[1::2] += 1
        units = {"patient": names, "label": label, "score": score.tolist(), "called": None}
        record["tests"][0] |= {"levels": {"patient": units}, "aggregated": "the worst image"}
        records.append(record)
    (row,) = rows_of(*records)
    draws = [
        of_auroc(one["score"], one["label"], one["patient"])._replace(value=0.75)
        for one in (record["tests"][0]["levels"]["patient"] for record in records)
    ]
    expected = clustered_interval(Sample.of(draws))
    assert row.honest["patient_AUROC"][:3] == pytest.approx(tuple(expected), abs=1e-9)
    assert row.aggregated == ("the worst image",)
    assert "patient_AUROC" not in row.best
    few = with_figure(records[0], "patient_AUROC", None)
    (row,) = rows_of(few)
    assert "patient_AUROC" not in row.honest
    assert "Too few patients of a class were tested for figures of patients or volumes." in (
        row.caveats
    )


def test_thresholds_come_with_how_often_they_are_wrong_draw_by_draw():
    few = {"rule": "the largest F1", "normal": 4, "abnormal": 2, "smallest_p": 0.2}
    few["no_probability"] = "too few patients: 4 normal"
    many = {"rule": "the largest F1", "normal": 30, "abnormal": 30, "smallest_p": 1 / 31,
            "calibration": "sigmoid", "calibrated_on": 60, "prevalence": 0.5}  # fmt: skip
    records = []
    for draw, grounds in enumerate((few, many)):
        record = right_record("MVFA", draw)
        units = {"patient": ["a"], "label": [1], "score": [0.5], "called": [1],
                 "threshold": 0.4, "words": "it finds 2 of 2", "grounds": grounds}  # fmt: skip
        nothing = {**units, "called": None, "threshold": None, "words": "too few patients: none"}
        record["tests"][0]["levels"] = {"patient": units, "volume": units if draw else nothing}
        records.append(record)
    (row,) = rows_of(*records)
    known = "; no p-value is below 0.2, since it compares with 4 normal patients; no probability "
    known += "is known; too few patients: 4 normal."
    wrong = " are called abnormal above 0.400, by the largest F1; it finds 2 of 2"
    assert row.decided == (
        f"draw 0, seed 0: patients{wrong}{known}",
        f"draw 0, seed 0: volumes have no threshold; too few patients: none{known}",
        f"draw 1, seed 0: patients and volumes{wrong}; no p-value is below 0.032, since it "
        "compares with 30 normal patients; a probability is known, by a curve (sigmoid) of 60 "
        "patients, for a share of 50 % abnormal ones.",
    )
    for record in records:
        for units in record["tests"][0]["levels"].values():
            units["grounds"] = None
    assert rows_of(*records)[0].decided == ()


def test_what_failed_is_counted_and_keeps_its_row():
    done = right_record("MVFA", 0)
    broken = failed_record(right_record("MadCLIP", 0))
    rows = rows_of(done, failed_record(right_record("MVFA", 1)), broken)
    assert [(row.model, row.draws, row.failed) for row in rows] == [
        ("MVFA", 1, 1), ("MadCLIP", 0, 1),
    ]  # fmt: skip
    assert (rows[1].honest, rows[1].cost, rows[1].best) == ({}, {}, frozenset())


def test_methods_come_first_then_baselines_then_trivial_ones_as_in_the_config():
    records = [
        right_record("size", kind="trivial"),
        right_record("PatchCore", kind="baseline"),
        right_record("MVFA", k=16),
        right_record("MVFA", k=4),
        right_record("IQECLIP"),
    ]
    rows = rows_of(*records)
    assert [(row.model, row.k_shot) for row in rows] == [
        ("MVFA", 4), ("MVFA", 16), ("IQECLIP", 4), ("PatchCore", 4), ("size", 4),
    ]  # fmt: skip
    assert summarise(grid_of(records), typed(records[::-1])) == rows


def test_all_normals_and_zero_shot_have_no_k():
    zero = {"tests": ["heads"], "data": "others", "facts": {"zero_shot": True}}
    records = [
        right_record("PatchCore", normals="train", kind="baseline"),
        right_record("MVFA", **zero),
        failed_record(right_record("MVFA", 1, tests=["heads"], data="others")),
        right_record("MVFA"),
    ]
    rows = rows_of(*records)
    assert [(row.label, row.k_shot, row.failed) for row in rows] == [
        ("MVFA", 4, 0),
        ("MVFA, zero-shot, from others", None, 1),
        ("PatchCore, all normals", None, 0),
    ]


def test_costs_are_medians():
    records = [right_record("MVFA", draw) for draw in range(3)]
    for record, seconds in zip(records, (1.0, 100.0, 2.0), strict=True):
        record["measured"]["train_seconds"] = seconds
    assert rows_of(*records)[0].cost["train_seconds"] == 2.0


@pytest.mark.parametrize(
    ("record", "name", "setting", "k"),
    [
        (right_record("MVFA"), "MVFA", "few-shot", 4),
        (right_record("iqe, ours", model_config={"class_path": "anomalib_medclip.IQECLIP"}),
         "IQE-CLIP", "few-shot", 4),
        (right_record("MediCLIP", k=16), "MediCLIP", "few-normal-shot", 16),
        (right_record("patch core", normals="train"), "PatchCore", "full-shot", None),
        (right_record("c", normals="train", model_config={"class_path": "anomalib.models.Cflow"}),
         "CFlow-AD", "full-shot", None),
        (right_record("MVFA", data="x", facts={"zero_shot": True}), "MVFA", "zero-shot", None),
    ],
)  # fmt: skip
def test_figures_of_the_papers_stand_beside_ours(record, name, setting, k):
    (row,) = rows_of(record, published={"heads": "Brain"})
    table = published(dataset="Brain", setting=setting, k=k)
    table = table[(table["method"] == name) & (table["variant"] == "")]
    assert [cell["value"] for cell in row.published] == table["value"].tolist()
    assert row.published
    assert {(cell["setting"], cell["k"], cell["variant"]) for cell in row.published} == {
        (setting, k, "")
    }


def test_a_transfer_has_figures_of_the_same_transfer_only():
    record = right_record("MadCLIP", k=16, data="brains", tests=["adni"])
    names = {"adni": "ADNI", "brains": "Brain"}
    (row,) = rows_of(record, published=names)
    assert {cell["trained_on"] for cell in row.published} == {"Brain"}
    (row,) = rows_of(record, published={**names, "brains": "Liver"})
    assert row.published == ()


def test_figures_of_another_setting_do_not_stand_beside_ours():
    (row,) = rows_of(right_record("MVFA", normals="train"), published={"heads": "Brain"})
    assert row.published == ()  # without K the papers have MVFA zero-shot only


def test_a_set_that_is_only_trained_on_needs_no_figures_of_its_own():
    record = right_record("MediCLIP", k=16, data="visa", tests=["busi"])
    (row,) = rows_of(record, published={"visa": "Visa", "busi": "BUSI"})
    assert row.published == ()  # what is printed of it has no K


def test_a_set_that_no_paper_has_is_refused():
    with pytest.raises(UnknownNameError, match="no published table has dataset='Heads'"):
        rows_of(right_record("MVFA"), published={"heads": "Heads"})
