"""What a run says on the screen, of a record that is written by hand."""

import pytest

from anomalib_medclip.training import closing_block

RECORD = {
    "notice": "research use only",
    "method": {"name": "MVFA", "options": {}},
    "data": {"name": "BMAD", "category": "Brain"},
    "training": {"setting": "few-shot", "sets": ["Brain"], "epochs": 50, "seconds": 61.4},
    "threshold": {
        "from": "validation", "of_patients_from": "12 patients of validation",
        "image": {
            "value": 0.5, "raw": 0.34321, "words": "it calls 1 of 6 normal patients abnormal",
        },
        "pixel": {"value": None, "raw": None},
        "patient": {"value": 0.51, "words": "it finds 6 of 6 abnormal patients"},
    },
    "decisions": {
        "patient": {
            "smallest_p": 0.2, "prevalence": None,
            "p_words": "no p-value is below 0.2", "probability_words": "no probability",
        },
    },
    "test": {
        "seconds": 4.0, "images_of_unknown_patients": 0, "aggregated": "the worst image, chosen",
        "levels": {
            "image": {"normal": {"units": 48}, "abnormal": {"units": 40}},
            "patient": {"normal": {"units": 3}, "abnormal": {"units": 9}},
        },
    },
    "figures": {
        "image_AUROC": {"value": 0.91249, "low": 0.8, "high": 1.0, "words": ""},
        "image_AP": {"value": 0.5, "low": None, "high": None, "words": "too few patients: why"},
        "image_F1": {"value": None, "low": None, "high": None, "words": "no threshold is known: x"},
        "patient_AUROC": {"value": None, "low": None, "high": None, "words": "too few patients: 3"},
        "patient_F1": {"value": None, "low": None, "high": None, "words": "too few patients: 3"},
        "lesion_FalsePositives": {"value": 1.25, "low": 0.5, "high": 2.0, "words": ""},
    },
    "other_figures": {"my_IoU": 0.25},
    "files": {"metrics": "test_metrics.json", "scores": "test_scores.csv", "pictures": None,
              "checkpoint": "weights/lightning/model.ckpt"},
}  # fmt: skip

SAID = """
MVFA on BMAD Brain; research use only
trained: few-shot, 50 epochs on Brain in 61 s
of       normal  abnormal  figure                       value  95 % interval
patient       3         9  all                              -  too few patients
                           threshold                    0.510  from 12 patients
                                                               of validation
image        48        40  AUROC                        0.912  0.800 to 1.000
                           AP                           0.500  too few patients
                           F1                               -  no threshold is
                                                               known
                           threshold                    0.500  from validation
lesion                     false positives per patient  1.250  0.500 to 2.000
                           my_IoU                       0.250
too few patients: 5 of each class are needed
threshold of images: it calls 1 of 6 normal patients abnormal
threshold of patients: it finds 6 of 6 abnormal patients
decisions about patients: no p-value is below 0.2; no probability
in runs/v0: run.json, weights/lightning/model.ckpt
"""


def test_it_is_a_table_of_80_columns_plain_where_it_is_no_terminal(tmp_path, capsys):
    closing_block.show(RECORD, "runs/v0")
    out = capsys.readouterr().out
    assert [line.rstrip() for line in out.splitlines()] == SAID.splitlines()
    assert max(map(len, out.splitlines()[:-1])) <= 80
    assert "\x1b" not in out


@pytest.mark.parametrize("missing", ["levels", "aggregated", "images_of_unknown_patients"])
def test_what_a_test_does_not_know_it_does_not_say(missing, capsys):
    test = {name: one for name, one in RECORD["test"].items() if name != missing}
    closing_block.show({**RECORD, "test": test}, "runs/v0")
    assert "MVFA on BMAD Brain" in capsys.readouterr().out
