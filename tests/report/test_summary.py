"""Rows say what the files say: means, intervals, what is best, and what the papers print."""

import json
from collections import defaultdict

import numpy as np
import pytest
from compare_results import write_results
from right_records import failed_record, grid_of, right_record, with_figure
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from anomalib_medclip.compare.store import Store
from anomalib_medclip.errors import UnknownNameError
from anomalib_medclip.metrics import bootstrap
from anomalib_medclip.published import published
from anomalib_medclip.report.rows import METRICS
from anomalib_medclip.report.summary import label, summarise


def rows_of(*records, **grid):
    return summarise(grid_of(records, **grid), records)


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


def test_every_figure_is_recomputed_from_the_files(tmp_path):
    store = write_results(tmp_path, draws=(0, 1, 2))
    for draw in (0, 1, 2):  # seeds of a draw, of a skill of their own
        for seed in (0, 1, 2)[: draw + 1]:
            record = right_record("right", draw, skill=1 + seed, seed=seed)
            store.write(record["key"], record)
    records = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("cells/*.json"))]
    rows = summarise(store.grid(), records)
    expected = on_disk(tmp_path)
    compared = 0
    for row in rows:
        for protocol in ("honest", "oracle", "gap"):
            for metric in METRICS:
                place = (row.model, row.normals, row.tested_on, row.k_shot, metric, protocol)
                found = getattr(row, protocol).get(metric)
                if place not in expected:
                    assert found is None
                    continue
                compared += 1
                draws = [np.mean(seeds) for _, seeds in sorted(expected.pop(place).items())]
                half = stats.t.ppf(0.975, len(draws) - 1) * stats.sem(draws)
                assert found.mean == pytest.approx(np.mean(draws), abs=1e-12)
                assert found.values == pytest.approx(draws, abs=1e-12)
                if max(draws) - min(draws) < 1e-9:
                    assert found.source != "draws"
                    continue
                assert found.high - found.mean == pytest.approx(half, abs=1e-9)
                assert found.mean - found.low == pytest.approx(half, abs=1e-9)
                assert found.source == "draws"
    assert compared > 300
    assert not expected


def test_image_figures_are_those_of_the_scores(tmp_path):
    store = Store(tmp_path)
    for draw in range(3):
        record = right_record("MVFA", draw)
        store.write(record["key"], record)
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


def test_one_cell_has_an_interval_over_patients_where_its_scores_make_the_figure():
    record = with_figure(right_record("MVFA"), "pixel_AUROC", 0.9)
    (row,) = rows_of(record)
    images = record["tests"][0]["images"]
    interval = bootstrap(images["score"], images["label"], images["patient"])
    found = row.honest["image_AUROC"]
    assert (found.mean, found.low, found.high) == pytest.approx(tuple(interval))
    assert {m: row.honest[m].source for m in row.honest} == {
        "image_AUROC": "patients", "image_AP": "patients", "pixel_AUROC": "",
    }  # fmt: skip
    assert row.oracle["image_AUROC"].low is None  # of these scores there is no record


def test_seeds_of_one_draw_have_an_interval_over_patients():
    records = [right_record("MVFA", seed=seed) for seed in range(3)]
    (row,) = rows_of(*records)
    images = [record["tests"][0]["images"] for record in records]
    scores = [one["score"] for one in images]
    interval = bootstrap(scores, images[0]["label"], images[0]["patient"])
    found = row.honest["image_AUROC"]
    assert (found.mean, found.low, found.high) == pytest.approx(tuple(interval))
    assert (len(found.values), found.source) == (1, "patients")


def test_draws_that_change_nothing_make_no_figure_certain():
    records = [right_record("MVFA")]
    for draw in (1, 2):
        records.append({**records[0], "key": f"again {draw}"})
        records[-1]["cell"] = {**records[0]["cell"], "draw": draw}
    (row,) = rows_of(*[with_figure(record, "pixel_AUROC", 0.9) for record in records])
    found = row.honest["image_AUROC"]
    assert (len(found.values), found.source) == (3, "patients")
    assert found.high - found.low > 0.05
    assert row.honest["pixel_AUROC"][:3] == (pytest.approx(0.9), None, None)
    assert row.gap["image_AUROC"].low is None


def test_one_patient_leaves_the_figure_without_interval():
    record = right_record("MVFA")
    record["tests"][0]["images"]["patient"] = [7] * 80
    (row,) = rows_of(record)
    found = row.honest["image_AUROC"]
    assert found.mean == record["tests"][0]["honest"]["image_AUROC"]
    assert (found.low, found.high, found.source) == (None, None, "")


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
    assert summarise(grid_of(records), records[::-1]) == rows


def test_all_normals_and_zero_shot_have_no_k():
    zero = {"tests": ["heads"], "data": "others", "facts": {"zero_shot": True}}
    records = [
        right_record("PatchCore", normals="train", kind="baseline"),
        right_record("MVFA", **zero),
        failed_record(right_record("MVFA", 1, tests=["heads"], data="others")),
        right_record("MVFA"),
    ]
    rows = rows_of(*records)
    assert [(label(row), row.k_shot, row.failed) for row in rows] == [
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


def test_a_set_that_no_paper_has_is_refused():
    with pytest.raises(UnknownNameError, match="no published table has dataset='Heads'"):
        rows_of(right_record("MVFA"), published={"heads": "Heads"})
