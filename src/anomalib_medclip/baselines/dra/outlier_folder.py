"""Where images of another kind lie, to be pseudo anomalies."""

from pathlib import Path
from typing import Any

from anomalib_medclip.errors import DataRootError
from anomalib_medclip.readers.listing import list_images


class OutlierFolder:
    """A folder that copies of a model know, and files that travel do not.

    Args:
        root: The folder; ``None`` for none.
    """

    def __init__(self, root: str | None) -> None:
        self._root = root

    def images(self) -> list[Path]:
        """Its images, those in folders below among them.

        Raises:
            DataRootError: There are none.
        """
        if self._root is None:
            return []
        if not (found := list_images(Path(self._root)).images):
            msg = f"there is no image in {self._root}; correct outlier_root, or leave it out"
            raise DataRootError(msg)
        return found

    def __deepcopy__(self, memo: Any) -> "OutlierFolder":  # noqa: ANN401 - of copy
        """The same: a model that is trained without a part of the support has the same outliers."""
        del memo
        return self

    def __getstate__(self) -> dict[str, None]:
        """Without the folder."""
        return {"_root": None}
