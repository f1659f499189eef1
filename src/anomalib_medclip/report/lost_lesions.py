"""What the resize of a model takes from the masks it is measured with, in words."""

from collections.abc import Iterable, Sequence

from anomalib_medclip.compare.cell_record import CellRecord
from anomalib_medclip.compare.dataset_result import LostLesions


def lost_lesions(records: Sequence[CellRecord]) -> list[str]:
    """A sentence for each test set and input size at which lesions vanish from the masks.

    Args:
        records: What was run; those of former versions did not count lesions.
    """
    found: dict[tuple[str, int, int], list[tuple[str, LostLesions]]] = {}
    for record in records:
        for test in record.tests:
            counted = test.lesions
            if counted and counted.lesions_lost:
                place = (test.data, *counted.size)
                found.setdefault(place, []).append((record.cell.model, counted))
    return [_sentence(place, several) for place, several in found.items()]


def _sentence(place: tuple[str, int, int], several: Iterable[tuple[str, LostLesions]]) -> str:
    data, height, width = place
    models = ", ".join(dict.fromkeys(model for model, _ in several))
    worst = max((counted for _, counted in several), key=lambda one: one.lesions_lost)
    return (
        f"{data} at the {height} x {width} pixels of {models}: {worst.lesions_lost} of "
        f"{worst.lesions} lesions are no longer in the masks, and {worst.images_lost} of "
        f"{worst.images} abnormal images have none left."
    )
