"""Every baseline that is a folder, through a comparison on real images: small and random networks.

Trainings are cut short, so that the rows say so, and nothing is ranked.
"""

from pathlib import Path

import pytest
from tiny import RIVALS, TEST_DATA, Training

from anomalib_medclip.compare.cell_record import ComparisonGrid
from anomalib_medclip.compare.cell_setup import CellSettings
from anomalib_medclip.compare.comparison import ComparisonConfig
from anomalib_medclip.compare.grid import plan_cells
from anomalib_medclip.compare.run_cell import attempt
from anomalib_medclip.report.summary import summarise

SETS = {
    "brain_mri": {"object_name": "brain MRI"},
    "busi": {"object_name": "breast ultrasound", "mask_column": "mask"},
    "liver_ct": {"object_name": "liver CT", "mask_column": "mask", "patient_column": "patient"},
}
SIDE = 64
EPOCHS = 3
"""Of trainings that take as long as the tests of promises, or fewer."""

WITHOUT_MASKS = "brain_mri"
NO_TRAINING = {"RegAD"}  # where there is one set, it trains nothing


def data_of(name):
    """A set as a comparison takes it."""
    root = Path(TEST_DATA, "data", name)
    given = {
        "root": str(root),
        "table": str(root / "labels.csv"),
        "image_column": "file",
        "patient_column": "dup_group",
        "unknown_patient": "-1" if name != "liver_ct" else None,
        "num_workers": 0,
        **SETS[name],
    }
    return {"class_path": "anomalib_medclip.data.MedicalFolder", "init_args": given}


def entry_of(baseline):
    """A baseline as a comparison takes it, with a random trunk and few steps."""
    found = Training.of(baseline)
    options = {"image_size": SIDE, "cross_fit": False, **found.options}
    entry = {
        "class_path": f"anomalib_medclip.baselines.{baseline.__name__}",
        "init_args": options,
        "max_epochs": min(found.epochs, EPOCHS),
        "normals": ["support"],
        "record_every": 0,
    }
    needs_masks = "learns_from_labels_alone" in found.exempt
    return entry | ({"data": [one for one in SETS if one != WITHOUT_MASKS]} if needs_masks else {})


@pytest.mark.nightly(also="tests/baselines/test_contract.py::test_promise")
@pytest.mark.parametrize("baseline", RIVALS, ids=lambda one: one.__name__)
def test_a_baseline_runs_on_real_images_and_its_row_says_what_was_cut(baseline, record_property):
    if not TEST_DATA:
        pytest.skip("ANOMALIB_MEDCLIP_TEST_DATA names no folder with data")
    config = ComparisonConfig(
        models={baseline.__name__: entry_of(baseline)},
        data={name: data_of(name) for name in SETS},
        k_shot=[16],
    )
    cells = plan_cells(config)
    records = [attempt(cell, CellSettings(accelerator="cpu"))[0] for cell in cells]
    assert [record.error for record in records if record.status != "done"] == []
    planned = tuple(cell.planned() for cell in cells)
    grid = ComparisonGrid(title="", command="", versions={}, published={}, cells=planned)
    rows = summarise(grid, records)
    own = [row for row in rows if row.model == baseline.__name__]
    assert len(own) == (2 if "data" in config.models[baseline.__name__] else 3)
    for row in own:
        assert 0 <= row.honest["image_AUROC"].mean <= 1
        assert ("pixel_AUROC" in row.honest) == (row.tested_on != WITHOUT_MASKS)
        assert row.cut or baseline.__name__ in NO_TRAINING
        assert not row.best
        record_property(row.tested_on, round(row.honest["image_AUROC"].mean, 3))
