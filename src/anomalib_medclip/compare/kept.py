"""What a former plan has found that a new one has nothing in the place of."""

from dataclasses import replace

from anomalib_medclip.compare.cell_record import ComparisonGrid, PlannedCell
from anomalib_medclip.compare.store import Store
from anomalib_medclip.errors import MedclipError


def with_former(grid: ComparisonGrid, store: Store) -> ComparisonGrid:
    """A new plan and, after it, the cells of the plan in a folder that are done.

    Whatever has changed of data, options or code, a cell of the same model, data, K, draw and seed
    takes the place of a former one, test set by test set.

    Args:
        grid: The new plan.
        store: The folder; it may be empty.
    """
    try:
        former = store.grid()
    except MedclipError:  # there is none, or it will be written anew
        return grid
    places = {_place(cell, test) for cell in grid.cells for test in cell.tests}
    kept = []
    for cell in former.cells:
        left = tuple(test for test in cell.tests if _place(cell, test) not in places)
        if left and _is_done(cell.key, store):
            kept.append(replace(cell, tests=left))
    published = {**former.published, **grid.published}
    return replace(grid, cells=(*grid.cells, *kept), published=published)


def _place(cell: PlannedCell, test: str) -> tuple[object, ...]:
    k_shot = None if cell.normals == "train" else cell.k_shot
    return cell.model, cell.normals, cell.data, test, k_shot, cell.draw, cell.seed


def _is_done(key: str, store: Store) -> bool:
    store.forget_damaged(key)
    record = store.record(key)
    return record is not None and record.status == "done"
