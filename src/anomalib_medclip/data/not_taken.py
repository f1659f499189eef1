"""What lies below a root of volumes and belongs to none of them."""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

from anomalib_medclip.data.cases import ANY_NAME, Case, VolumeSource
from anomalib_medclip.files import A_FOLDER, fault_of, is_folder
from anomalib_medclip.readers.file_kind import kind_of
from anomalib_medclip.readers.left_out import LeftOut
from anomalib_medclip.readers.listing import files_below
from anomalib_medclip.readers.volume_file import parts_of


def not_taken(
    root: Path, sources: Sequence[VolumeSource], cases: Sequence[Case], table: Path | None = None
) -> list[LeftOut]:
    """What lies below a root and belongs to no volume.

    What lies directly in the folder of a volume is left to its reader.

    Args:
        root: The folder.
        sources: How the volumes are laid out.
        cases: The volumes.
        table: Their table of labels.

    Returns:
        Folders in which a source would have a volume and has none, and all other files.
    """
    named = {path for case in cases for path in (case.image, case.mask, case.organ) if path}
    taken = {part for path in named for part in parts_of(path, kind_of(path))}
    above = {folder for path in taken for folder in path.parents}
    lacking = {
        folder: source.image
        for source in sources
        for folder in _folders_of(root, source)
        if folder not in above and fault_of(folder) is A_FOLDER
    }
    taken |= lacking.keys() | ({table} if table else set())
    left_out = [
        LeftOut(folder, f"holds no volume like {image!r}", "name it so, or add a source")
        for folder, image in lacking.items()
    ]
    said, remedy = "is like no pattern of sources", "add a source if it is a volume"
    left_out += [
        LeftOut(path, said, remedy) for path in files_below(root, taken) if path not in taken
    ]
    said = "lies below the folder of a volume, and only what is directly in that is read"
    below = {
        path
        for folder in filter(is_folder, named)
        for path in files_below(folder, taken - {folder})
        if path.parent != folder and path not in taken
    }
    return left_out + [LeftOut(path, said, remedy) for path in sorted(below)]


def _folders_of(root: Path, source: VolumeSource) -> Iterator[Path]:
    """Folders below the root in which a source would have its volumes, but hidden ones."""
    *above, _ = PurePath(ANY_NAME.sub("*", source.image)).parts
    for folder in root.glob("/".join(above)) if above else ():
        if not any(part.startswith(".") for part in folder.relative_to(root).parts):
            yield folder
