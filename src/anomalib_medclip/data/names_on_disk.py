"""Files by the names that other systems and keyboards give them."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath

from anomalib_medclip.files import A_FOLDER, MISSING, fault_of
from anomalib_medclip.readers.mask_names import alike
from anomalib_medclip.readers.picture import IMAGE_SUFFIXES


class NamesOnDisk:
    """Finds files by their written names; each folder is listed once."""

    def __init__(self) -> None:
        self._listed: dict[Path, Mapping[str, Sequence[str]]] = {}

    def find(self, path: str | Path) -> Path:
        """The file or folder that is meant.

        Backslashes may part folders, and letters may be in another case or composed otherwise, as
        a Mac composes an umlaut, if only one file is called so.

        Args:
            path: As it was written.

        Returns:
            What is there; or the path as it is, if nothing or more than one is.
        """
        if fault_of(path) is not MISSING:
            return Path(path)
        written = Path(str(path).replace("\\", "/"))
        here = Path(written.anchor)
        for part in written.relative_to(here).parts:
            there = here / part
            if not os.path.lexists(there):
                names = self._names(here).get(alike(part), ())
                if len(names) != 1:
                    return Path(path)
                there = here / names[0]
            here = there
        return here

    def remedy(self, path: str | Path, root: Path) -> str | None:
        """What to do about a file that is missing, after a look at what is there.

        Args:
            path: The file.
            root: The folder that paths start from.

        Returns:
            A remedy, or ``None`` where nothing like the file is there.
        """
        path = Path(path)
        if others := self._of_that_stem(path):
            if others[0].suffix.lower() in IMAGE_SUFFIXES:
                return f"write its name as {others[0]}, which is there"
            return f"save {others[0]}, which is there, as PNG: its ending is none that is read"
        written = str(path.relative_to(root) if path.is_relative_to(root) else path)
        parts = PureWindowsPath(written).parts  # which parts by slashes and backslashes
        for start in range(1, len(parts)):
            if _is_there(found := self.find(root.joinpath(*parts[start:]))):
                return f"write it from {root} on, as {found.relative_to(root)}, which is there"
        for folder in (root / name for names in self._names(root).values() for name in names):
            if _is_there(found := self.find(folder.joinpath(*parts))):
                return f"give {folder} as root (--data.root): {found} is there"
        if PureWindowsPath(written).drive:
            return f"write it from {root} on: it is a path of another computer"
        return None

    def _of_that_stem(self, path: Path) -> list[Path]:
        """Files of the same folder that differ from this one in their ending."""
        folder, stems = self.find(path.parent), {alike(path.stem), alike(path.name)}
        names = (name for names in self._names(folder).values() for name in names)
        return sorted(folder / name for name in names if alike(Path(name).stem) in stems)

    def _names(self, folder: Path) -> Mapping[str, Sequence[str]]:
        """The names in a folder, by what they have in common; none where it cannot be listed."""
        if folder not in self._listed:
            names = defaultdict(list)
            try:
                for path in sorted(folder.iterdir()):
                    names[alike(path.name)].append(path.name)
            except OSError:
                names.clear()
            self._listed[folder] = dict(names)
        return self._listed[folder]


def _is_there(path: Path) -> bool:
    return fault_of(path) in (None, A_FOLDER)
