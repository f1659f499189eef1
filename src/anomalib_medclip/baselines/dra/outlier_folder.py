"""Where images of another kind lie, to be pseudo anomalies."""

from pathlib import Path
from typing import Any

from anomalib_medclip.errors import DataRootError
from anomalib_medclip.readers.listing import list_images

NOT_TOLD = "a folder that files do not name"
"""What options say in the place of a folder."""


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
            DataRootError: There are none, or nobody says where they are.
        """
        if self._root is None:
            return []
        if self._root == NOT_TOLD:
            msg = "pseudo anomalies were images of a folder, and files do not say of which; give "
            msg += "outlier_root again"
            raise DataRootError(msg)
        if not (found := list_images(Path(self._root)).images):
            msg = f"there is no image in {self._root}; correct outlier_root, or leave it out"
            raise DataRootError(msg)
        return found

    def __deepcopy__(self, memo: Any) -> "OutlierFolder":  # noqa: ANN401 - of copy
        """The same: a model that is trained without a part of the support has the same outliers."""
        del memo
        return self

    @property
    def told(self) -> str | None:
        """What options say of it: whether there is one."""
        return self._root and NOT_TOLD

    def __getstate__(self) -> dict[str, str | None]:
        """Without the folder's name."""
        return {"_root": self.told}
