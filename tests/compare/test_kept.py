"""What a new plan leaves of a former one."""

from right_records import grid_of, right_record

from anomalib_medclip.compare.cell_record import CellRecord
from anomalib_medclip.compare.kept import with_former
from anomalib_medclip.compare.store import Store
from anomalib_medclip.report.summary import summarise


def record(data, *tests, key=None, **more):
    plain = right_record("MVFA", data=data, tests=[*tests], **more)
    if key:  # as code or data that changed would give
        plain["key"] = plain["cell"]["key"] = key
    return plain


def with_new(tmp_path, former, new, **changed):
    """A new plan after a former one, whose cells are done."""
    store = Store(tmp_path)
    store.write_grid(grid_of(former, published={"brain": "Brain"}), "")
    for one in former:
        store.write(one["key"], CellRecord.of_plain({**one, **changed}))
    return store, with_former(grid_of(new, published={"liver": "Liver"}), store)


def test_what_is_not_planned_anew_stays(tmp_path):
    former, new = record("brain", "brain"), record("liver", "liver")
    store, grid = with_new(tmp_path, [former], [new])
    assert [cell.data for cell in grid.cells] == ["liver", "brain"]
    assert grid.published == {"brain": "Brain", "liver": "Liver"}
    store.write(new["key"], CellRecord.of_plain(new))
    rows = summarise(grid, store.records(grid))
    assert [(row.tested_on, row.draws) for row in rows] == [("liver", 1), ("brain", 1)]


def test_what_is_planned_anew_takes_the_place_of_what_was(tmp_path):
    former, new = record("brain", "brain"), record("brain", "brain", key="changed")
    _, grid = with_new(tmp_path, [former], [new])
    assert [cell.key for cell in grid.cells] == ["changed"]


def test_a_test_set_that_has_gone_stays_alone(tmp_path):
    former = record("brain", "brain", "busi")
    new = record("brain", "brain", "liver", key="changed")
    store, grid = with_new(tmp_path, [former], [new])
    assert [cell.tests for cell in grid.cells] == [("brain", "liver"), ("busi",)]
    store.write("changed", CellRecord.of_plain(new))
    rows = summarise(grid, store.records(grid))
    found = {row.tested_on: row.draws for row in rows}
    assert found == {"brain": 1, "liver": 1, "busi": 1}


def test_what_has_failed_does_not_stay(tmp_path):
    new = record("liver", "liver")
    _, grid = with_new(tmp_path, [record("brain", "brain")], [new], status="failed")
    assert [cell.data for cell in grid.cells] == ["liver"]


def test_without_a_former_plan_it_is_the_new_one(tmp_path):
    grid = grid_of([record("brain", "brain")])
    assert with_former(grid, Store(tmp_path)) == grid
